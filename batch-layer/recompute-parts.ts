/**
 * All parts of a view up to a cut, from the lake's files alone: planned as shards, run by a `WorkerRunner`, merged into parts.
 * Invariant: a plan is a plain value kept in the lake's store; whoever continues it comes to the same files.
 */
import type { ScanFile } from '../lake/scan.ts'
import type { Cut } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { type BatchContext, checkSignal, datasetOf } from './context.ts'
import { endJob, findJobs, type JobRecord, meaningOf, recordKey, recordsAreWhole, writeJob } from './job-record.ts'
import { grouped, type MergedParts, NO_PARTS, partsRoot, shardsRoot, slotsFor } from './parts.ts'
import {
  type InputFile,
  inProcessRunner,
  recordedShard,
  type ShardJob,
  type ShardResult,
  type WorkerRunner,
} from './shard.ts'

export type RecomputeOptions = {
  signal?: AbortSignal
  progress?(fraction: number): void
  /** Begin a new job even if a killed one could be continued. */
  restart?: boolean
  /** Compressed bytes of lake files in a shard; default batch.recomputeShardBytes. */
  shardBytes?: number
  /** Cells (counted before merging) of the parts that one merge makes; default 2 million. */
  mergeCells?: number
}

const shardBytesOf = (ctx: BatchContext, { shardBytes }: RecomputeOptions): number =>
  shardBytes ?? ctx.settings.batch.recomputeShardBytes

const inputOf = ({ key, size, sha256, rows }: ScanFile): InputFile => ({
  key,
  size,
  rows,
  ...(sha256 === undefined ? {} : { sha256 }),
})

/** Cells of all shards, and bytes of their files, up to which they are merged in this process. */
const OWN_CELLS = 500_000
const OWN_CELL_BYTES = 32 * 1024 * 1024

/** A job that can be continued, or a new one up to `cut`. Jobs that cannot be are ended. */
export const openJob = async (
  ctx: BatchContext,
  view: View,
  cutOf: () => Promise<Cut>,
  options: RecomputeOptions,
): Promise<{ job: JobRecord; resumed: boolean }> => {
  const meaning = meaningOf(view, ctx.engine.version)
  const store = ctx.lake.store
  let found: JobRecord | undefined
  for (const job of await findJobs(store, view)) {
    if (found === undefined && !options.restart && job.meaning === meaning && (await readable(ctx, view, job)))
      found = job
    else await endJob(store, job)
  }
  if (found !== undefined) return { job: found, resumed: true }
  const cut = await cutOf()
  const scan = await ctx.lake.scan(datasetOf(ctx, view.dataset), { below: cut })
  const inputs = scan.files.map(inputOf)
  const job: JobRecord = {
    formatVersion: 1,
    id: crypto.randomUUID(),
    view: view.name,
    version: view.version,
    meaning,
    cut,
    ranges: scan.ranges,
    shards: grouped(inputs, (f) => f.size, shardBytesOf(ctx, options)),
    slots: 1,
    startedAt: new Date(ctx.now()).toISOString(),
  }
  await writeJob(store, job)
  return { job, resumed: false }
}

/** Whether the inputs of the shards that are still to run are in the store, the files of those that ran, and no record is damaged. */
const readable = async (ctx: BatchContext, view: View, job: JobRecord): Promise<boolean> => {
  const store = ctx.lake.store
  const present = new Set<string>()
  for (const prefix of [`events/${view.dataset}/`, `${shardsRoot(view)}/`, `${partsRoot(view)}/`])
    for (const { key } of await store.list(prefix)) present.add(key)
  if (!(await recordsAreWhole(store, job))) return false
  for (const [n, inputs] of job.shards.entries()) {
    const done = await recordedShard(store, recordKey(job, job.shards.length === 1 ? 'whole' : 'shard', n))
    if ((done?.files ?? inputs).some((f) => !present.has(f.key))) return false
  }
  return true
}

/** Runs what is left of the job; its parts at `job.cut`. */
export const recomputeParts = async (
  ctx: BatchContext,
  view: View,
  job: JobRecord,
  options: RecomputeOptions,
): Promise<MergedParts> => {
  const here = inProcessRunner({ store: ctx.lake.store, engine: ctx.engine, now: () => ctx.now() })
  const there = ctx.runWorker ?? here
  const run = async (runner: WorkerRunner, jobs: ShardJob[], from: number, to: number) => {
    checkSignal(options.signal)
    return runner(jobs, {
      signal: options.signal,
      onProgress: (done, total) => options.progress?.(from + ((to - from) * done) / Math.max(total, 1)),
    })
  }
  const result = (slots: number, results: ShardResult[]): MergedParts => {
    const written = results.flatMap((r) => r.files).sort((a, b) => (a.part < b.part ? -1 : a.part > b.part ? 1 : 0))
    return { slots, written, files: written.map(({ stats: _, ...file }) => file), touched: written.length }
  }
  const common = { formatVersion: 1 as const, view, dataset: datasetOf(ctx, view.dataset), slots: job.slots }
  const bytes = job.shards.flat().reduce((n, f) => n + f.size, 0)
  const [only, ...more] = job.shards
  if (only === undefined) return { ...NO_PARTS, written: [], touched: 0 }
  if (more.length === 0) {
    const recorded = recordKey(job, 'whole', 0)
    const whole: ShardJob = { ...common, kind: 'whole', recordKey: recorded, files: only, ranges: job.ranges }
    // One shard's worth starts no child: an extend over as much runs in this process too.
    const [done] = await run(bytes <= shardBytesOf(ctx, options) ? here : there, [whole], 0, 0.85)
    return result(done!.slots ?? job.slots, [done!])
  }
  const shards = await run(
    there,
    job.shards.map((files, n) => ({
      ...common,
      kind: 'partials',
      recordKey: recordKey(job, 'shard', n),
      files,
      ranges: job.ranges,
    })),
    0,
    0.6,
  )
  // Every shard may hold the same cells: the greatest is a bound from below, and extends add slots when they are needed.
  const slots = slotsFor(view, Math.max(0, ...shards.flatMap((s) => s.files.map((f) => f.rows))), job.slots)
  const cells = shards.flatMap((s) => s.files)
  const total = cells.reduce((n, f) => n + f.rows, 0)
  const rows = new Map<string, number>()
  if (slots === job.slots) {
    for (const { part, rows: n } of shards.flatMap((s) => s.parts)) rows.set(part, (rows.get(part) ?? 0) + n)
  } else {
    for (let slot = 0; slot < slots; slot++) rows.set(`slot-${slot}`, total / slots)
  }
  const parts = [...rows].sort((a, b) => (a[0] < b[0] ? -1 : 1))
  const isSmall = total <= OWN_CELLS && cells.reduce((n, f) => n + f.size, 0) <= OWN_CELL_BYTES
  const merged = await run(
    isSmall ? here : there,
    grouped(parts, ([, n]) => n, options.mergeCells ?? 2_000_000).map((group, n) => ({
      ...common,
      kind: 'merge',
      recordKey: recordKey(job, 'merge', n),
      slots,
      parts: group.map(([part]) => part),
      cells,
    })),
    0.6,
    0.85,
  )
  return result(slots, merged)
}
