/**
 * Parts: the Parquet files of a published batch view. A part holds the cells of one UTC day of buckets, or, without a bucket, of one
 * slot of the dimensions' hash. Invariants: a cell lies in exactly one part; a file is durable before its name is used, and never
 * overwritten; a merge reads and writes only the parts that its cells touch.
 */
import type { Session } from '../engine/engine.ts'
import { type WrittenFile, writeDataFile, writeDataFiles } from '../lake/data-file.ts'
import { loadList, storeList } from '../lake/delta-schema.ts'
import { localFiles } from '../lake/local-files.ts'
import { parquetSource } from '../lake/scan.ts'
import { viewRoot } from '../lake/view-table.ts'
import { cellColumns, keyColumns, mergeCellsSql } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { View } from '../model/view.ts'

/** Cells of a slot at which the number of slots grows. */
export const SLOT_CELLS = 65_536

export type Parts = { files: PartFile[]; slots: number }
export const NO_PARTS: Parts = { files: [], slots: 1 }

/** A new part with the statistics that the table of the view names it with. */
export type WrittenPart = PartFile & { stats?: string }

/** What a merge wrote: the whole new list, and which of its files are new. */
export type MergedParts = Parts & { written: WrittenPart[]; touched: number }

/** Parts lie in the folder of the view's table, which only has to name them. */
export const partsRoot = viewRoot

/** Cells that shards of a recompute leave for the merge. (An older release kept parts here too.) */
export const shardsRoot = (view: { name: string; version: string }): string => `parts/${view.name}/${view.version}`

/** Cells that one statement writes as parts: what the engine holds until it has them all. States that grow count for many. */
const CELLS_AT_A_TIME = 400_000
const HEAVY_CELLS_AT_A_TIME = 20_000

/** Number of slots for a view without a bucket: a power of two that never shrinks, so that cells move seldom. */
export const slotsFor = (view: View, cells: number, before: number): number => {
  if (view.bucket !== null || view.dimensions.length === 0) return 1
  let slots = before
  while (cells > slots * SLOT_CELLS) slots *= 2
  return slots
}

/** Name of the part that a cell lies in, over cell columns. */
export const partSql = (view: View, slots: number): string => {
  // By way of a naive timestamp: integer arithmetic, much cheaper than a zone conversion per cell.
  if (view.bucket) return `coalesce(make_timestamp(epoch_us(_bucket))::DATE::VARCHAR, 'none')`
  if (slots === 1) return `'slot-0'`
  // A written text and MD5, not the engine's hash(): that one may change with a release, and cells would lie in two slots.
  const text = view.dimensions
    .map((d) => `coalesce(length(${ident(d.name)}::VARCHAR) || ':' || ${ident(d.name)}::VARCHAR, '-')`)
    .join(` || ',' || `)
  return `'slot-' || (md5_number_lower(${text}) % ${slots})::VARCHAR`
}

/** Parenthesised SELECT of the cells in checked files, in cell column order and types. */
export const cellsOf = async (store: ObjectStore, view: View, files: PartFile[]): Promise<string> => {
  const columns = cellColumns(view)
  if (files.length === 0) {
    const nulls = columns.map((c) => `CAST(NULL AS ${c.type}) AS ${ident(c.name)}`)
    return `(SELECT ${nulls.join(', ')} WHERE false)`
  }
  return `(SELECT ${loadList(columns)} FROM ${parquetSource(await localFiles(store, files))})`
}

const names = (view: View): string =>
  cellColumns(view)
    .map((c) => ident(c.name))
    .join(', ')

/** Condition for the cells of the named parts, `days` being a run of all the days there are: a range of times skips row groups. */
export const partsFilter = (view: View, slots: number, parts: string[]): string => {
  const days = [...parts].sort()
  if (!view.bucket || !days.every((d) => /^\d{4}-\d\d-\d\d$/.test(d)))
    return `${partSql(view, slots)} IN (${parts.map(literal).join(', ')})`
  const [from, after] = [Date.parse(days[0]!), Date.parse(days.at(-1)!) + 86_400_000]
  // As numbers: the day after the calendar's last one has no text that the engine reads.
  return `_bucket >= make_timestamptz(${from}000::BIGINT) AND _bucket < make_timestamptz(${after}000::BIGINT)`
}

const orderOf = (view: View): string => {
  const keys = keyColumns(view).map((k) => ident(k.name))
  return keys.length ? ` ORDER BY ${keys.join(', ')}` : ''
}

/** Writes the cells of a table, keys that do not repeat, as one file for a merge to read. */
export const writeShard = async (
  store: ObjectStore,
  session: Session,
  view: View,
  source: string,
  nowMs: number,
): Promise<PartFile | null> => {
  const columns = cellColumns(view)
  const written = await writeDataFile(store, session, {
    root: shardsRoot(view),
    folder: '',
    name: 'shard',
    select: `SELECT ${storeList(columns)} FROM ${source}${orderOf(view)}`,
    columns,
    partitionValues: {},
    tags: {},
    dataChange: true,
    nowMs,
  })
  return written && partFile(written, 'shard')
}

const partFile = (file: WrittenFile, part: string): PartFile => ({
  key: file.key,
  size: file.add.size,
  sha256: file.add.tags!.sha256!,
  rows: file.rows,
  part,
})

/** Number of cells of each part in a source. */
export const countParts = async (
  session: Session,
  view: View,
  slots: number,
  source: string,
): Promise<Map<string, number>> => {
  const rows = await session.rows<{ part: string; n: string }>(
    `SELECT ${partSql(view, slots)} AS part, count(*) AS n FROM ${source} GROUP BY 1 ORDER BY 1`,
  )
  return new Map(rows.map((r) => [r.part, Number(r.n)]))
}

/** Groups in order, each up to about a size. */
export const grouped = <T>(items: T[], sizeOf: (item: T) => number, most: number): T[][] => {
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

export type MergeOptions = {
  /** The base's number of slots stays. */
  fixedSlots?: boolean
  /** The keys of `cells` do not repeat. */
  unique?: boolean
}

/** Merges the cells of a table (cell columns) into the parts they touch, many parts a statement; the other parts are carried over. */
export const mergeIntoParts = async (
  env: { store: ObjectStore; now(): number; check?(): void },
  session: Session,
  view: View,
  base: Parts,
  cells: string,
  options: MergeOptions = {},
): Promise<MergedParts> => {
  const bare = names(view)
  let counts = await countParts(session, view, base.slots, cells)
  const fresh = [...counts.values()].reduce((n, rows) => n + rows, 0)
  if (fresh === 0) return { ...base, written: [], touched: 0 }
  const size = base.files.reduce((n, f) => n + f.rows, 0) + fresh
  const slots = options.fixedSlots ? base.slots : slotsFor(view, size, base.slots)
  let source = cells
  let { files: old } = base
  let unique = options.unique ?? false
  const moved = `${cells}_moved`
  const written: WrittenPart[] = []
  try {
    if (slots !== base.slots) {
      // More slots: every cell finds its new place, once.
      if (old.length > 0) {
        const both = `SELECT ${bare} FROM ${cells} UNION ALL SELECT ${bare} FROM ${await cellsOf(env.store, view, old)}`
        await session.run(`CREATE OR REPLACE TEMP TABLE ${moved} AS ${both}`)
        source = moved
        old = []
        unique = false
      }
      counts = await countParts(session, view, slots, source)
    }
    const oldOf = new Map<string, PartFile[]>()
    for (const file of old) oldOf.set(file.part, [...(oldOf.get(file.part) ?? []), file])
    const weigh = ([part, rows]: [string, number]): number =>
      rows + (oldOf.get(part) ?? []).reduce((n, f) => n + f.rows, 0)
    const most = view.states.some((s) => s.heavy) ? HEAVY_CELLS_AT_A_TIME : CELLS_AT_A_TIME
    const groups = grouped([...counts], weigh, most)
    for (const group of groups) {
      env.check?.()
      const parts = group.map(([part]) => part)
      const where = groups.length === 1 ? '' : ` WHERE ${partsFilter(view, slots, parts)}`
      const before = parts.flatMap((part) => oldOf.get(part) ?? [])
      const ours = `SELECT ${bare} FROM ${source}${where}`
      const all =
        before.length === 0 ? ours : `${ours} UNION ALL SELECT ${bare} FROM ${await cellsOf(env.store, view, before)}`
      const merged = unique && before.length === 0 ? all : mergeCellsSql(view, `(${all})`)
      const columns = cellColumns(view)
      const files = await writeDataFiles(env.store, session, {
        root: partsRoot(view),
        select: `SELECT ${storeList(columns)}, ${partSql(view, slots)} AS _part FROM (${merged})${orderOf(view)}`,
        columns,
        nowMs: env.now(),
      })
      for (const file of files) {
        const { stats } = file.add
        written.push({ ...partFile(file, file.part), ...(stats === undefined ? {} : { stats }) })
      }
    }
    const files = [...old.filter((f) => !counts.has(f.part)), ...written.map(({ stats: _, ...file }) => file)]
    files.sort((a, b) => (a.part < b.part ? -1 : a.part > b.part ? 1 : 0))
    return { files, slots, written, touched: counts.size }
  } catch (error) {
    await discardParts(env.store, written)
    throw error
  } finally {
    if (source === moved) await session.run(`DROP TABLE ${moved}`)
  }
}

/** Deletes files that certainly never came into a pointer. */
export const discardParts = async (store: ObjectStore, files: PartFile[]): Promise<void> => {
  for (const file of files) await store.delete(file.key)
}
