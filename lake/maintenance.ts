/**
 * Compaction and vacuum. Invariants: compaction changes no row (`dataChange: false`, counts compared before the commit) and gives
 * way to any other change of its files; vacuum deletes only what no snapshot entry and no pin names, after a safety age.
 */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'
import { discard, removalOf, writeDataFile } from './data-file.ts'
import { type Action, decodePath } from './delta-actions.ts'
import type { TableColumn } from './delta-schema.ts'
import type { DeltaContext, DeltaTable } from './delta-table.ts'
import { APPEND_DATE, fileColumns } from './events-schema.ts'
import type { EventsTable } from './events-table.ts'
import { type LiveFile, liveFiles } from './live-files.ts'
import { localFiles } from './local-files.ts'
import { parquetSource } from './scan.ts'

export type CompactOptions = {
  /** Files are merged up to about this size. Default 256 MiB. */
  targetBytes?: number
  /** Dates (or partitions of dead letters) with fewer small files are left alone. Default 2. */
  minFiles?: number
}
export type Compacted = { files: number; into: number; bytes: number }

/** Merges one run of files, ordered by offset, into one. Null: another writer changed one of them meanwhile. */
const mergeFiles = async (
  context: DeltaContext,
  delta: DeltaTable,
  columns: TableColumn[],
  files: LiveFile[],
): Promise<Compacted | null> => {
  const { store, engine } = context
  const first = files[0]!
  const paths = await localFiles(store, files)
  const sum = (key: 'counted' | 'duplicate'): string => String(files.reduce((n, f) => n + (f[key] ?? 0), 0))
  const marks = files.flatMap((f) => (typeof f.watermarkUs === 'number' ? [f.watermarkUs] : []))
  const [from, to] = [Math.min(...files.map((f) => f.from)), Math.max(...files.map((f) => f.to))]
  const date = first.appendDate
  const written = await engine.withSession((session) =>
    writeDataFile(store, session, {
      root: delta.root,
      folder: date === null ? '' : `${APPEND_DATE}=${date}/`,
      name: `p${first.partition}-${from}-${to}-c`,
      select: `SELECT ${columns.map((c) => ident(c.name)).join(', ')} FROM ${parquetSource(paths)}`,
      columns,
      partitionValues: first.add.partitionValues,
      tags: {
        partition: String(first.partition),
        from: String(from),
        to: String(to),
        ...(first.counted === undefined ? {} : { counted: sum('counted'), duplicate: sum('duplicate') }),
        ...(marks.length === 0 ? {} : { watermarkUs: String(marks.reduce((a, b) => Math.max(a, b))) }),
      },
      dataChange: false,
      nowMs: context.now(),
    }),
  )
  const rows = files.reduce((n, f) => n + (f.rows ?? Number.NaN), 0)
  if (written === null || written.rows !== rows) {
    if (written !== null) await discard(store, [written])
    throw new WeirError({
      code: 'WEIR_LAKE_COMPACTION',
      message: `Compaction of ${delta.root} read another number of rows than its files hold.`,
      expected: `${rows} rows`,
      got: `${written?.rows ?? 0} rows`,
      next: 'nothing was changed; check the files named by the table log',
    })
  }
  const nowMs = context.now()
  const committed = await delta.commit('OPTIMIZE', (snapshot) => {
    const same = files.every((f) => snapshot?.files.get(decodePath(f.add.path))?.tags?.sha256 === f.sha256)
    if (!same) return null
    return [
      ...files.map((f): Action => ({ remove: removalOf(f.add, nowMs, false) })),
      { add: written.add } satisfies Action,
    ]
  })
  if (committed !== null) return { files: files.length, into: 1, bytes: written.add.size }
  await discard(store, [written])
  return null
}

/** Compacts each group of a table; files of other engines (untagged) are left as they are. */
const compactGroups = async (
  context: DeltaContext,
  delta: DeltaTable,
  columns: TableColumn[],
  groups: Map<string, LiveFile[]>,
  options: CompactOptions,
): Promise<Compacted> => {
  const target = options.targetBytes ?? 256 * 1024 * 1024
  const total: Compacted = { files: 0, into: 0, bytes: 0 }
  for (const group of groups.values()) {
    const small = group.filter((f) => f.size < target)
    if (small.length < (options.minFiles ?? 2)) continue
    let run: LiveFile[] = []
    const runs: LiveFile[][] = []
    for (const file of small) {
      if (run.length > 0 && run.reduce((n, f) => n + f.size, 0) + file.size > target) {
        runs.push(run)
        run = []
      }
      run.push(file)
    }
    runs.push(run)
    for (const files of runs) {
      const done = files.length < 2 ? null : await mergeFiles(context, delta, columns, files)
      if (done === null) continue
      total.files += done.files
      total.into += done.into
      total.bytes += done.bytes
    }
  }
  return total
}

const grouped = (files: LiveFile[], keyOf: (file: LiveFile) => string | null): Map<string, LiveFile[]> => {
  const groups = new Map<string, LiveFile[]>()
  for (const file of files) {
    const key = file.partition === undefined || file.sha256 === undefined ? null : keyOf(file)
    if (key === null) continue
    const group = groups.get(key)
    if (group) group.push(file)
    else groups.set(key, [file])
  }
  return groups
}

/**
 * Compacts the small files of closed append dates. A date is closed for a partition when the lake's end has a later date: effective
 * append times never step back, so no row can still come to it.
 */
export const compactEvents = async (
  context: DeltaContext,
  events: EventsTable,
  dataset: Dataset,
  options: CompactOptions = {},
): Promise<Compacted> => {
  const cut = await events.archivedCut()
  const groups = grouped(await events.files(), (file) => {
    const end = cut[String(file.partition)]
    const open = end === undefined ? '' : new Date(end.effectiveMs).toISOString().slice(0, 10)
    return file.appendDate !== null && file.appendDate < open ? `${file.appendDate}/${file.partition}` : null
  })
  return compactGroups(context, events.delta, fileColumns(dataset), groups, options)
}

/** Compacts the files of dead letters per partition: they are few and read rarely, so no date is waited for. */
export const compactDead = async (
  context: DeltaContext,
  delta: DeltaTable,
  columns: TableColumn[],
  options: CompactOptions = {},
): Promise<Compacted> => {
  const snapshot = await delta.snapshot()
  const live = snapshot === null ? [] : liveFiles(delta.root, snapshot)
  return compactGroups(
    context,
    delta,
    columns,
    grouped(live, (f) => String(f.partition)),
    { minFiles: 8, ...options },
  )
}

export type VacuumOptions = {
  /** Nothing younger is deleted, neither by the file's own age nor by its removal's. Default 24 hours. */
  safetyAgeMs?: number
  /** Keys that pointers, job records or running readers still need. */
  pinned?: ReadonlySet<string>
}
export type Vacuumed = { deleted: string[]; bytes: number }

/** Deletes a table's unreferenced data files. Its log and digests are never touched. */
export const vacuumTable = async (
  context: DeltaContext,
  delta: DeltaTable,
  options: VacuumOptions = {},
): Promise<Vacuumed> => {
  const before = context.now() - (options.safetyAgeMs ?? 86_400_000)
  // Listed first: what is committed meanwhile is then in the later snapshot.
  const listed = await context.store.list(`${delta.root}/`)
  const snapshot = await delta.snapshot()
  const out: Vacuumed = { deleted: [], bytes: 0 }
  if (snapshot === null) return out
  for (const { key, size, modifiedMs } of listed) {
    const path = key.slice(delta.root.length + 1)
    if (path.startsWith('_delta_log/') || path.startsWith('_weir/') || !path.endsWith('.parquet')) continue
    const removed = snapshot.tombstones.get(path)
    if (snapshot.files.has(path) || options.pinned?.has(key)) continue
    if (modifiedMs >= before || (removed !== undefined && removed.deletionTimestamp >= before)) continue
    await context.store.delete(key)
    out.deleted.push(key)
    out.bytes += size
  }
  return out
}
