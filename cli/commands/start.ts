/** `weir start`: the server. Runs until Ctrl-C or TERM, then takes no more, drains and closes. */
import type { Command } from 'commander'
import { strayNames } from '../../model/settings.ts'
import { type CommonOptions, dataFolder, projectFolder, projectOptions, stopSignal, wholeNumber } from '../context.ts'
import { openLogger } from '../logger.ts'
import { Exit, out } from '../output.ts'
import type { WeirOptions } from '../ports.ts'
import { loadProject } from '../project-files.ts'
import { parseRoles, ROLES } from '../roles.ts'
import { strayText } from '../stray.ts'
import type { Weir } from '../wire.ts'

type StartOptions = CommonOptions & { port?: number; host?: string; role: (typeof ROLES)[number][] }

/** Resolves when the signal aborts, at once when it has. */
const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })

/** Ends the process `ms` after the signal, wherever it is then: nothing that was acknowledged depends on how it ends. */
const endInTime = async (signal: AbortSignal, ms: number): Promise<void> => {
  await aborted(signal)
  setTimeout(() => {
    process.stderr.write(`weir: not everything was closed within ${ms} ms; nothing acknowledged is lost\n`)
    process.exit(1)
  }, ms).unref()
}

/** Opens a Weir, lets `use` run until the signal, closes; all that comes after the signal has `server.stopMs`. */
export const runUntilStopped = async (
  options: WeirOptions,
  signal: AbortSignal,
  use: (weir: Weir) => Promise<void> | void,
): Promise<void> => {
  const { openWeir } = await import('../wire.ts')
  void endInTime(signal, options.project.settings.server.stopMs)
  let weir: Weir
  try {
    weir = await openWeir({ ...options, signal })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'WEIR_CLI_STOPPED')) throw error
    out('stopped before it had started; nothing is lost')
    return
  }
  await use(weir)
  await aborted(signal)
  await weir.stop()
}

export const startCommand = (program: Command): void => {
  const command = program
    .command('start')
    .option(
      '--port <port>',
      'TCP port; 0 takes a free one (default: server.port, 8080)',
      wholeNumber('--port', 0, 65_535),
    )
    .option('--host <host>', 'address to bind; without API keys loopback only (default: server.host, 127.0.0.1)')
    .option('--role <roles>', 'roles of this process, with commas', parseRoles, [...ROLES])
    .addHelpText(
      'after',
      `
Roles: ingest (the door), speed (fresh aggregates), batch (archive, extend, recompute), serving (queries).
Each role of a data folder runs in one process at a time. kill -9 at any moment is safe; the next start goes on.

Examples:
  weir start
  weir start --project shop --data /var/lib/weir --port 9000
  weir start --role ingest --port 8080 & weir start --role speed,batch,serving --port 8081
  weir keys create --scope admin && weir start --host 0.0.0.0

The log goes to stderr: JSON lines, or plain ones on a terminal. WEIR_LOG_LEVEL=debug says more.`,
    )
  projectOptions(command).action(async (options: StartOptions) => {
    const signal = stopSignal()
    const project = await loadProject(projectFolder(options), options.config)
    const logger = openLogger()
    for (const stray of strayNames(process.env)) logger.warn(strayText(stray))
    const weirOptions: WeirOptions = {
      project,
      dataDir: await dataFolder(options),
      roles: options.role,
      logger,
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.port === undefined ? {} : { port: options.port }),
    }
    await runUntilStopped(weirOptions, signal, (weir) => out(`weir ${options.role.join(', ')} at ${weir.url}`))
    if (process.exitCode) throw new Exit(Number(process.exitCode))
  })
}
