/**
 * One shard of a recompute: a function of stored files, run in this process or in a child under a memory limit.
 * Invariant: its result is recorded by put-if-absent, so that of any number of runs one stands, and a run after a crash finds it;
 * nothing here reads the log, the speed store or a pointer.
 */
import type { Engine, Session } from '../engine/engine.ts'
import { scanColumns } from '../lake/events-schema.ts'
import { localFiles } from '../lake/local-files.ts'
import { type OffsetRange, scanSql } from '../lake/scan.ts'
import { seal, unseal } from '../lake/sealed.ts'
import { cellColumns, cellTableColumns, partialSql } from '../model/cells.ts'
import type { Dataset } from '../model/dataset.ts'
import { ident } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { View } from '../model/view.ts'
import {
  cellsOf,
  countParts,
  type MergedParts,
  type MergeOptions,
  mergeIntoParts,
  NO_PARTS,
  partsFilter,
  type WrittenPart,
  writeShard,
} from './parts.ts'

/** A file of the lake's events as a shard reads it. */
export type InputFile = { key: string; size: number; sha256?: string; rows: number | null }

/**
 * 'partials': lake files → one file of cells. 'merge': cells of some parts, out of all shards' files → those parts. 'whole': the two
 * in one, for a recompute of a single shard.
 */
export type ShardJob = {
  formatVersion: 1
  /** Where the result is recorded. */
  recordKey: string
  view: View
  dataset: Dataset
  slots: number
} & (
  | { kind: 'partials' | 'whole'; files: InputFile[]; ranges: OffsetRange[] }
  | { kind: 'merge'; parts: string[]; cells: PartFile[] }
)

export type ShardResult = {
  formatVersion: 1
  files: WrittenPart[]
  /** Cells per part in the files. */
  parts: { part: string; rows: number }[]
  /** Slots of the parts: of 'whole' alone, which decides them. */
  slots?: number
}

export type ShardEnv = { store: ObjectStore; engine: Engine; now(): number; signal?: AbortSignal | undefined }

/**
 * Runs jobs, a few at a time, and resolves to their results in the same order; rejects when one fails for good. `onProgress` is told how
 * many are done. The command line gives one that starts child processes under a memory limit.
 */
export type WorkerRunner = (
  jobs: ShardJob[],
  context: { signal?: AbortSignal | undefined; onProgress?(done: number, total: number): void },
) => Promise<ShardResult[]>

/** A shard's job as one line of JSON, for a child's standard input. */
export const encodeJob = (job: ShardJob): string =>
  JSON.stringify(job, (_key, value: unknown) => (typeof value === 'bigint' ? { $bigint: String(value) } : value))

export const decodeJob = (text: string): ShardJob =>
  JSON.parse(text, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && '$bigint' in value
      ? BigInt((value as { $bigint: string }).$bigint)
      : value,
  ) as ShardJob

/** The recorded result of a shard, if it is done. */
export const recordedShard = async (store: ObjectStore, recordKey: string): Promise<ShardResult | null> => {
  const bytes = await store.get(recordKey)
  return bytes === null ? null : unseal<ShardResult>(bytes, recordKey)
}

/** Runs a shard, unless its result is recorded already; records and returns it. Throws WEIR_LAKE_CORRUPT for a damaged or missing input. */
export const runShard = async (env: ShardEnv, job: ShardJob): Promise<ShardResult> => {
  const done = await recordedShard(env.store, job.recordKey)
  if (done !== null) return done
  const result = await env.engine.withSession((session) =>
    job.kind === 'merge' ? merge(env, session, job) : partials(env, session, job),
  )
  if ((await env.store.putIfAbsent(job.recordKey, seal(result))) === 'written') return result
  const first = await recordedShard(env.store, job.recordKey)
  if (first === null || first.files.some((f) => result.files.some((own) => own.key === f.key))) return result
  for (const file of result.files) await env.store.delete(file.key)
  return first
}

const partials = async (
  env: ShardEnv,
  session: Session,
  job: Exclude<ShardJob, { kind: 'merge' }>,
): Promise<ShardResult> => {
  const { view, dataset } = job
  const files = await localFiles(env.store, job.files)
  const source = scanSql(files, scanColumns(dataset), job.ranges, 'NOT _duplicate')
  const table = tableName()
  await session.run(`CREATE TEMP TABLE ${table} (${cellTableColumns(view)})`)
  try {
    await session.run(`INSERT INTO ${table} BY NAME ${partialSql(view, source)}`, signalOf(env))
    if (job.kind === 'whole') {
      const done = await intoParts(env, session, view, table, job.slots, { unique: true })
      return { ...resultOf(done), slots: done.slots }
    }
    const parts = await countParts(session, view, job.slots, table)
    const file = await writeShard(env.store, session, view, table, env.now())
    return {
      formatVersion: 1,
      files: file === null ? [] : [file],
      parts: [...parts].map(([part, rows]) => ({ part, rows })),
    }
  } finally {
    await session.run(`DROP TABLE ${table}`)
  }
}

const merge = async (
  env: ShardEnv,
  session: Session,
  job: Extract<ShardJob, { kind: 'merge' }>,
): Promise<ShardResult> => {
  const { view } = job
  const columns = cellColumns(view)
    .map((c) => ident(c.name))
    .join(', ')
  const source = await cellsOf(env.store, view, job.cells)
  const table = tableName()
  await session.run(
    `CREATE TEMP TABLE ${table} AS SELECT ${columns} FROM ${source} WHERE ${partsFilter(view, job.slots, job.parts)}`,
    signalOf(env),
  )
  try {
    // The number of slots was decided for the whole; a group of parts must not decide anew.
    return resultOf(await intoParts(env, session, view, table, job.slots, { fixedSlots: true }))
  } finally {
    await session.run(`DROP TABLE ${table}`)
  }
}

let serial = 0
const tableName = (): string => `shard_cells_${serial++}`

const intoParts = (
  env: ShardEnv,
  session: Session,
  view: View,
  table: string,
  slots: number,
  options: MergeOptions,
): Promise<MergedParts> =>
  mergeIntoParts(
    { store: env.store, now: env.now, check: () => env.signal?.throwIfAborted() },
    session,
    view,
    { ...NO_PARTS, slots },
    table,
    options,
  )

const resultOf = ({ written }: MergedParts): ShardResult => ({
  formatVersion: 1,
  files: written,
  parts: written.map((f) => ({ part: f.part, rows: f.rows })),
})

const signalOf = (env: ShardEnv) => (env.signal === undefined ? {} : { signal: env.signal })

/** Runs shards in this process, one after the other. */
export const inProcessRunner =
  (env: ShardEnv): WorkerRunner =>
  async (jobs, { signal, onProgress }) => {
    const results: ShardResult[] = []
    for (const job of jobs) {
      signal?.throwIfAborted()
      results.push(await runShard({ ...env, signal }, job))
      onProgress?.(results.length, jobs.length)
    }
    return results
  }
