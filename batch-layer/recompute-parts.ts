/**
 * All parts of a view up to a cut, from the lake's files alone: planned as shards, run by a `WorkerRunner`, merged into parts.
 * Invariant: a plan is a plain value kept in the lake's store; whoever continues it comes to the same files.
 */
import type { ScanFile } from '../lake/scan.ts'
import type { Cut } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { type BatchContext, checkSignal, datasetOf } from './context.ts'
import { endJob, findJobs, type JobRecord, meaningOf, recordKey, recordsAreWhole, writeJob } from './job-record.ts'
import { NO_PARTS, type Parts, slotsFor } from './parts.ts'
import { type InputFile, inProcessRunner, recordedShard, type ShardJob } from './shard.ts'

export type RecomputeOptions = {
  signal?: AbortSignal
  progress?(fraction: number): void
  /** Begin a new job even if a killed one could be continued. */
  restart?: boolean
  /** Compressed bytes of lake files in a shard; default 64 MiB. */
  shardBytes?: number
  /** Cells (counted before merging) of the parts that one merge makes; default 2 million. */
  mergeCells?: number
}

/** Groups files in order, each up to about a size. */
const grouped = <T>(items: T[], sizeOf: (item: T) => number, most: number): T[][] => {
  const groups: T[][] = []
  let size = 0
  for (const item of items) {
    if (groups.length === 0 || size + sizeOf(item) > most) {
      groups.push([])
      size = 0
    }
    groups.at(-1)!.push(item)
    size += sizeOf(item)
  }
  return groups
}

const inputOf = ({ key, size, sha256, rows }: ScanFile): InputFile => ({
  key,
  size,
  rows,
  ...(sha256 === undefined ? {} : { sha256 }),
})

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
    shards: grouped(inputs, (f) => f.size, options.shardBytes ?? 64 * 1024 * 1024),
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
  for (const prefix of [`events/${view.dataset}/`, `parts/${view.name}/${view.version}/`])
    for (const { key } of await store.list(prefix)) present.add(key)
  if (!(await recordsAreWhole(store, job))) return false
  for (const [n, inputs] of job.shards.entries()) {
    const done = await recordedShard(store, recordKey(job, 'shard', n))
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
): Promise<Parts> => {
  const runner = ctx.runWorker ?? inProcessRunner({ store: ctx.lake.store, engine: ctx.engine, now: () => ctx.now() })
  const run = async (jobs: ShardJob[], from: number, to: number) => {
    checkSignal(options.signal)
    return runner(jobs, {
      signal: options.signal,
      onProgress: (done, total) => options.progress?.(from + ((to - from) * done) / Math.max(total, 1)),
    })
  }
  const common = { formatVersion: 1 as const, view, dataset: datasetOf(ctx, view.dataset) }
  const shards = await run(
    job.shards.map((files, n) => ({
      ...common,
      kind: 'partials',
      recordKey: recordKey(job, 'shard', n),
      slots: job.slots,
      files,
      ranges: job.ranges,
    })),
    0,
    0.6,
  )
  // Every shard may hold the same cells: the greatest is a bound from below, and extends add slots when they are needed.
  const slots = slotsFor(view, Math.max(0, ...shards.flatMap((s) => s.files.map((f) => f.rows))), job.slots)
  const cells = shards.flatMap((s) => s.files)
  const rows = new Map<string, number>()
  if (slots === job.slots) {
    for (const { part, rows: n } of shards.flatMap((s) => s.parts)) rows.set(part, (rows.get(part) ?? 0) + n)
  } else {
    const even = cells.reduce((n, f) => n + f.rows, 0) / slots
    for (let slot = 0; slot < slots; slot++) rows.set(`slot-${slot}`, even)
  }
  const parts = [...rows].sort((a, b) => (a[0] < b[0] ? -1 : 1))
  const merged = await run(
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
  return { ...NO_PARTS, slots, files: merged.flatMap((m) => m.files).sort((a, b) => (a.part < b.part ? -1 : 1)) }
}
