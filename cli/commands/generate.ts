/** `weir generate`: seeded synthetic events of a dataset, to a server or to stdout. */
import { setTimeout as wait } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Dataset } from '../../model/dataset.ts'
import { WeirError } from '../../model/errors.ts'
import { ProjectErrors } from '../../model/project.ts'
import { parseDataset } from '../../model/project-dataset.ts'
import {
  type CommonOptions,
  clientOf,
  jsonOption,
  projectFolder,
  serverOptions,
  share,
  show,
  stopSignal,
  wholeNumber,
} from '../context.ts'
import { generate, type Kind } from '../generator.ts'
import { out, progress } from '../output.ts'
import { readProjectFiles } from '../project-files.ts'
import { openSender, sentText } from '../sending.ts'

/** One dataset of a project, without compiling its views. Throws WEIR_CLI_NO_DATASET. */
export const datasetOf = async (folder: string, name: string, config?: string): Promise<Dataset> => {
  const found: Dataset[] = []
  for (const file of (await readProjectFiles(folder, config)).filter((f) => f.path.startsWith('datasets/'))) {
    const { dataset, errors } = parseDataset(file.path, file.text, 1)
    if (errors.length > 0) throw new ProjectErrors(errors)
    if (dataset) found.push(dataset)
  }
  const dataset = found.find((d) => d.name === name)
  if (dataset) return dataset
  throw new WeirError({
    code: 'WEIR_CLI_NO_DATASET',
    message: `The project has no dataset ${name}.`,
    expected: `one of ${found.map((d) => d.name).join(', ')}`,
    got: name,
    next: 'check the name, or name another project: --project <dir>',
  })
}

type GenerateCommandOptions = CommonOptions & {
  rate: number
  events?: number
  disorder: number
  duplicates: number
  bad: number
  seed: number
  print?: boolean
}

export const generateCommand = (program: Command): void => {
  const command = program
    .command('generate')
    .argument('<dataset>', 'dataset of the project')
    .option('--events <n>', 'how many; without it until Ctrl-C', wholeNumber('--events', 1))
    .option('--rate <n>', 'events per second; 0: as fast as the server takes them', wholeNumber('--rate', 0), 0)
    .option('--disorder <share>', 'share of events that are up to two hours late', share('--disorder'), 0.05)
    .option('--duplicates <share>', 'share of events that are sent twice', share('--duplicates'), 0.02)
    .option('--bad <share>', 'share of events that are broken', share('--bad'), 0.01)
    .option('--seed <n>', 'another seed gives other events', wholeNumber('--seed', 0), 1)
    .option('--print', 'write them to stdout and send nothing')
    .addHelpText(
      'after',
      `
Late, duplicate and broken events come on purpose: what the server makes of them is the point.

Examples:
  weir generate orders --events 10000
  weir generate orders --rate 500                       500 a second until Ctrl-C
  weir generate orders --events 5 --bad 0 --print       look at them
  weir generate orders --events 1000000 --print | gzip > orders.ndjson.gz`,
    )
  jsonOption(serverOptions(command)).action(async (name: string, options: GenerateCommandOptions) => {
    const dataset = await datasetOf(projectFolder(options), name, options.config)
    const signal = stopSignal()
    const total = options.events ?? Number.POSITIVE_INFINITY
    // Without a rate the events spread over the hour before now; with one they happen as they are sent.
    const stepMs = options.rate > 0 ? 1_000 / options.rate : Math.max(0.001, 3_600_000 / (options.events ?? 3_600_000))
    const startMs = options.rate > 0 || options.events === undefined ? Date.now() : Date.now() - 3_600_000
    const events = generate(dataset, { ...options, startMs, stepMs })
    const kinds: Record<Kind, number> = { fresh: 0, late: 0, duplicate: 0, bad: 0 }
    if (options.print) {
      for (let n = 0; n < total && !signal.aborted; n++) {
        out(events.next().value.line)
        if (n % 1_000 === 999) await new Promise((resolve) => process.stdout.write('', resolve))
      }
      return
    }
    const bar = progress(name, options.events ?? 0, options.json)
    const sender = openSender({
      client: await clientOf(options),
      dataset: name,
      events: options.rate > 0 ? Math.min(5_000, Math.max(1, Math.floor(options.rate / 5))) : 5_000,
      parallel: 2,
      progress: (sent) => bar.update(sent.accepted + sent.rejected, sentText(sent)),
    })
    const began = performance.now()
    for (let n = 0; n < total && !signal.aborted; n++) {
      const { line, kind } = events.next().value
      kinds[kind]++
      await sender.write(line, n + 1)
      if (options.rate > 0) {
        const early = began + ((n + 1) * 1_000) / options.rate - performance.now()
        if (early > 20) await wait(early, undefined, { signal }).catch(() => undefined)
      }
    }
    const sent = await sender.end()
    bar.stop()
    show(options, { ...sent, kinds }, () =>
      [
        sentText(sent),
        `made: ${Object.entries(kinds)
          .map(([kind, n]) => `${n} ${kind}`)
          .join(', ')}`,
      ].join('\n'),
    )
  })
}
