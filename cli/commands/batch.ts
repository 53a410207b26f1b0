/** `weir batch`: the batch layer on demand. Jobs run in the server; a repeated one is harmless. */
import type { Command } from 'commander'
import type { Job } from '../../model/ports/scheduler.ts'
import { type CommonOptions, clientOf, jsonOption, serverOptions, show, wholeNumber } from '../context.ts'
import { runJob, viewNames } from '../jobs.ts'
import { Exit } from '../output.ts'
import { type Status, statusText } from '../status-text.ts'

const ACTIONS: [string, string, string][] = [
  ['extend', 'merge what came since the last cut into the batch view', 'weir batch extend revenue_by_country'],
  ['recompute', 'derive the batch view again from the lake, then publish it', 'weir batch recompute'],
  ['verify', 'compare speed and batch, cell by cell; exit 1 on any difference', 'weir batch verify'],
  [
    'publish',
    'extend up to this moment and write the Delta mirror of the view',
    'weir batch publish revenue_by_country',
  ],
]

/** Differing cells of a job's result, where it compares anything. */
export const differencesOf = (job: Job): number => {
  const result = (job.result ?? {}) as { differing?: number; verified?: { differing: number } | null }
  return result.differing ?? result.verified?.differing ?? 0
}

type Result = {
  outcome?: string
  generation?: number
  cells?: number | unknown[]
  reasons?: string[]
  ranges?: Record<string, { from: number; to: number }>
  skipped?: Record<string, string>
  explained?: unknown[]
  verified?: Result | null
}

/** What a job did, in a line, and a line for each thing that a person should see. */
const jobText = (job: Job): string => {
  const result = (job.result ?? {}) as Result
  const compared = result.ranges ? result : result.verified
  const differing = differencesOf(job)
  const words = [
    result.outcome ?? 'done',
    ...(result.generation === undefined ? [] : [`generation ${result.generation}`]),
    ...(typeof result.cells === 'number' ? [`${result.cells} cells`] : []),
    ...(compared?.ranges ? [`${Object.keys(compared.ranges).length} partition(s) compared`] : []),
    `${differing} differing`,
  ]
  const cells = [compared?.cells, result.explained].find((c) => Array.isArray(c) && c.length > 0) as
    | unknown[]
    | undefined
  return [
    `${job.action} ${job.view}: ${words.join(', ')}`,
    ...(result.reasons ?? []).map((r) => `  ${r}`),
    ...Object.entries(compared?.skipped ?? {}).map(([p, why]) => `  partition ${p} was not compared: ${why}`),
    ...(cells ?? []).slice(0, 10).map((c) => `  ${JSON.stringify(c)}`),
  ].join('\n')
}

const runAll = async (action: string, view: string | undefined, options: CommonOptions, body = {}): Promise<void> => {
  const client = await clientOf(options)
  const done: Job[] = []
  for (const name of view === undefined ? await viewNames(client) : [view])
    done.push(await runJob(client, name, action, body, options.json))
  show(options, done, () => done.map(jobText).join('\n'))
  if (done.some((j) => differencesOf(j) !== 0)) throw new Exit(1)
}

export const batchCommand = (program: Command): void => {
  const batch = program.command('batch').addHelpText(
    'after',
    `
These run by themselves on the schedules of weir.yaml; here they run now. Without a view: for all views.

Examples:
  weir batch status
  weir batch recompute revenue_by_country
  weir batch verify                               exits 1 if speed and batch differ anywhere
  weir batch rollback revenue_by_country --to 12  the files of generation 12 again, up to date`,
  )
  for (const [name, description, example] of ACTIONS) {
    const command = batch
      .command(name)
      .description(description)
      .argument('[view]', 'view (default: all)')
      .addHelpText('after', `\nExample:\n  ${example}`)
    jsonOption(serverOptions(command)).action((view: string | undefined, options: CommonOptions) =>
      runAll(name, view, options),
    )
  }
  const rollback = batch
    .command('rollback')
    .description('publish the files of an earlier generation again, extended to the current cut')
    .argument('<view>', 'view')
    .requiredOption('--to <generation>', 'generation, see `weir batch status`', wholeNumber('--to', 1))
    .option('--force', 'also to one whose lineage is known to be wrong')
    .addHelpText('after', '\nExample:\n  weir batch rollback revenue_by_country --to 12')
  jsonOption(serverOptions(rollback)).action((view: string, options: CommonOptions & { to: number; force?: boolean }) =>
    runAll('rollback', view, options, { generation: options.to, force: options.force ?? false }),
  )
  const status = batch
    .command('status')
    .description('cuts, generations, lag, drift, last runs')
    .argument('[view]', 'view')
  jsonOption(serverOptions(status)).action(async (view: string | undefined, options: CommonOptions) => {
    const all = await (await clientOf(options)).json<Status>('GET', '/v1/status')
    const chosen = view === undefined ? all : { ...all, views: all.views.filter((v) => v.name === view) }
    show(options, chosen, () => statusText(chosen))
  })
}
