/** `weir demo` (= `npm start`): see it work; `--once`: prove that it works, and end. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { stopSignal, wholeNumber } from '../context.ts'
import { quietLogger } from '../logger.ts'
import { Exit, note, out, outJson } from '../output.ts'
import { examplesFolder } from '../package.ts'
import type { WeirOptions } from '../ports.ts'
import { loadProject } from '../project-files.ts'
import { ROLES } from '../roles.ts'
import { runUntilStopped } from './start.ts'

type DemoOptions = { once?: boolean; port: number; rate: number; data?: string; json?: boolean; seconds?: number }

const once = async (options: DemoOptions): Promise<void> => {
  const began = performance.now()
  const { openWeir } = await import('../wire.ts')
  const { runOnce } = await import('../once.ts')
  const dataDir = await mkdtemp(join(options.data ?? tmpdir(), 'weir-once-'))
  try {
    const project = await loadProject(join(examplesFolder, 'shop'))
    project.settings.schedules = { extend: 'off', recompute: 'off', verify: 'off', compact: 'off' }
    const weir = await openWeir({ project, dataDir, roles: ROLES, logger: quietLogger(), port: 0 })
    let result: Awaited<ReturnType<typeof runOnce>>
    try {
      result = await runOnce(weir, (line) => (options.json ? undefined : out(line)))
    } finally {
      if ((await weir.stop()) !== 'in time') note('the stop took longer than its deadline')
    }
    const seconds = Math.round((performance.now() - began) / 100) / 10
    if (options.json) outJson({ ...result, seconds })
    for (const difference of result.differences) note(`DIFFERENCE  ${difference}`)
    if (!options.json)
      out(
        result.ok
          ? `ok          0 differences, ${seconds} s`
          : `FAILED      ${result.differences.length} difference(s)`,
      )
    if (!result.ok) throw new Exit(1)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}

const forever = async (options: DemoOptions): Promise<void> => {
  const signal = stopSignal()
  out('weir: starting the shop example …')
  const { runDemo } = await import('../demo.ts')
  const project = await loadProject(join(examplesFolder, 'shop'))
  const weirOptions: WeirOptions = {
    project,
    dataDir: resolve(options.data ?? '.weir'),
    roles: ROLES,
    logger: quietLogger(),
    host: '127.0.0.1',
    port: options.port,
    onBusyPort: (port) => note(`Port ${port} is taken; using a free one.`),
  }
  let ran = false
  await runUntilStopped(weirOptions, signal, async (weir) => {
    ran = true
    out(
      `weir ${weir.url} · the shop example, ${options.rate} events a second · data in ${weir.ports.dataDir} · Ctrl-C stops`,
    )
    const timer =
      options.seconds === undefined ? undefined : setTimeout(() => process.emit('SIGINT'), options.seconds * 1_000)
    await runDemo(weir, options.rate, signal)
    clearTimeout(timer)
    out('draining …')
  })
  if (ran) out('stopped; the next start goes on from here')
}

export const demoCommand = (program: Command): void => {
  program
    .command('demo')
    .option('--once', 'a bounded run that compares every number, then exits 0, or 1 on any difference')
    .option('--rate <n>', 'events per second', wholeNumber('--rate', 1, 1_000_000), 500)
    .option('--port <port>', 'TCP port; a free one when it is taken', wholeNumber('--port', 0, 65_535), 8080)
    .option('--data <dir>', 'data folder (default: .weir in the current one; with --once a temporary one in it)')
    .option('--seconds <n>', 'stop by itself after this long', wholeNumber('--seconds', 1))
    .option('--json', 'with --once: the result as JSON')
    .addHelpText(
      'after',
      `
One line a second: events in, revenue of the current hour merged from batch and speed, lag, drift (differing cells, 0).

Examples:
  weir demo
  weir demo --rate 5000
  weir demo --once            the smoke test`,
    )
    .action((options: DemoOptions) => (options.once ? once(options) : forever(options)))
}
