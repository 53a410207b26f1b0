/**
 * Parts: the Parquet files of a published batch view. A part holds the cells of one UTC day of buckets, or, without a bucket, of one
 * slot of the dimensions' hash. Invariants: a cell lies in exactly one part; a file is durable before its name is used, and never
 * overwritten; a merge reads and writes only the parts that its cells touch.
 */
import type { Session } from '../engine/engine.ts'
import { type WrittenFile, writeDataFile } from '../lake/data-file.ts'
import { loadList, storeList } from '../lake/delta-schema.ts'
import { parquetSource } from '../lake/scan.ts'
import { cellColumns, keyColumns, mergeCellsSql } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { View } from '../model/view.ts'

/** Cells of a slot at which the number of slots grows. */
export const SLOT_CELLS = 65_536

export type Parts = { files: PartFile[]; slots: number }
export const NO_PARTS: Parts = { files: [], slots: 1 }

/** What a merge wrote: the whole new list, and which of its files are new. */
export type MergedParts = Parts & { written: PartFile[]; touched: number }

export const partsRoot = (view: { name: string; version: string }): string => `parts/${view.name}/${view.version}`

/** Number of slots for a view without a bucket: a power of two that never shrinks, so that cells move seldom. */
export const slotsFor = (view: View, cells: number, before: number): number => {
  if (view.bucket !== null || view.dimensions.length === 0) return 1
  let slots = before
  while (cells > slots * SLOT_CELLS) slots *= 2
  return slots
}

/** Name of the part that a cell lies in, over cell columns. */
export const partSql = (view: View, slots: number): string => {
  if (view.bucket) return `coalesce(strftime(_bucket AT TIME ZONE 'UTC', '%Y-%m-%d'), 'none')`
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
  const opened: { path: string; sha256: string }[] = []
  for (const file of files) opened.push({ path: await store.localFile(file.key, file), sha256: file.sha256 })
  return `(SELECT ${loadList(columns)} FROM ${parquetSource(opened)})`
}

const names = (view: View): string =>
  cellColumns(view)
    .map((c) => ident(c.name))
    .join(', ')

/** Writes merged cells as one file of a part. */
export const writePart = async (
  store: ObjectStore,
  session: Session,
  view: View,
  part: string,
  source: string,
  nowMs: number,
  /** The keys of `source` do not repeat. */
  options: { merged?: boolean } = {},
): Promise<PartFile | null> => {
  const columns = cellColumns(view)
  const keys = keyColumns(view).map((k) => ident(k.name))
  const order = keys.length ? ` ORDER BY ${keys.join(', ')}` : ''
  const written = await writeDataFile(store, session, {
    root: partsRoot(view),
    folder: '',
    name: part,
    select: `SELECT ${storeList(columns)} FROM ${options.merged ? source : `(${mergeCellsSql(view, source)})`}${order}`,
    columns,
    partitionValues: {},
    tags: {},
    dataChange: true,
    nowMs,
  })
  return written && partFile(written, part)
}

const partFile = (file: WrittenFile, part: string): PartFile => ({
  key: file.key,
  size: file.add.size,
  sha256: file.add.tags!.sha256!,
  rows: file.rows,
  part,
})

/** Merges the cells of a table (cell columns; keys may repeat) into the parts they touch; the other parts are carried over. */
export const mergeIntoParts = async (
  env: { store: ObjectStore; now(): number; check?(): void },
  session: Session,
  view: View,
  base: Parts,
  cells: string,
  options: { fixedSlots?: boolean } = {},
): Promise<MergedParts> => {
  const [counted] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${cells}`)
  const fresh = Number(counted!.n)
  if (fresh === 0) return { ...base, written: [], touched: 0 }
  const size = base.files.reduce((n, f) => n + f.rows, 0) + fresh
  const slots = options.fixedSlots ? base.slots : slotsFor(view, size, base.slots)
  const sorted = `${cells}_parts`
  let source = cells
  // More slots: every cell finds its new place, once.
  if (slots !== base.slots)
    source = `(SELECT ${names(view)} FROM ${cells} UNION ALL SELECT ${names(view)} FROM ${await cellsOf(env.store, view, base.files)})`
  await session.run(
    `CREATE TEMP TABLE ${sorted} AS SELECT ${names(view)}, ${partSql(view, slots)} AS _part FROM ${source} ORDER BY _part`,
  )
  const old = slots === base.slots ? base.files : []
  const written: PartFile[] = []
  try {
    const parts = await session.rows<{ part: string }>(`SELECT DISTINCT _part AS part FROM ${sorted} ORDER BY 1`)
    const touched = new Set(parts.map((p) => p.part))
    for (const part of touched) {
      env.check?.()
      const before = await cellsOf(
        env.store,
        view,
        old.filter((f) => f.part === part),
      )
      const all = `(SELECT ${names(view)} FROM ${sorted} WHERE _part = ${literal(part)} UNION ALL SELECT ${names(view)} FROM ${before})`
      const file = await writePart(env.store, session, view, part, all, env.now())
      if (file !== null) written.push(file)
    }
    const files = [...old.filter((f) => !touched.has(f.part)), ...written].sort((a, b) => (a.part < b.part ? -1 : 1))
    return { files, slots, written, touched: touched.size }
  } catch (error) {
    await discardParts(env.store, written)
    throw error
  } finally {
    await session.run(`DROP TABLE IF EXISTS ${sorted}`)
  }
}

/** Deletes files that certainly never came into a pointer. */
export const discardParts = async (store: ObjectStore, files: PartFile[]): Promise<void> => {
  for (const file of files) await store.delete(file.key)
}
