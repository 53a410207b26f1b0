/**
 * Reading ranges of records out of a table's live files with DuckDB.
 * Invariants: files come from the log, never from a glob; each was checked (size, SHA-256) before its path enters SQL; rows are
 * cut by exact `_offset` ranges, so what a file holds beyond the range is never seen.
 */
import { WeirError } from '../model/errors.ts'
import { literal } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { Cut } from '../model/position.ts'
import { loadList, type TableColumn } from './delta-schema.ts'
import { type LiveFile, mayHold } from './live-files.ts'
import { localFiles } from './local-files.ts'

/** Records `[from, to)` of a partition. */
export type OffsetRange = { partition: number; from: number; to: number }

export type ScanFile = {
  key: string
  /** Local, checked path. */
  path: string
  size: number
  sha256: string | undefined
  rows: number | null
  partition: number | undefined
  from: number
  to: number
  appendDate: string | null
}

export type Scan = {
  files: ScanFile[]
  ranges: OffsetRange[]
  /** Parenthesised SELECT over all files: usable after FROM. */
  sql: string
  /** The same over some of the files: for shards. The union over a partition of `files` is the whole. */
  sqlOf: (files: ScanFile[]) => string
}

export const rangesOf = (below: Cut, from: Cut = {}): OffsetRange[] =>
  Object.keys(below)
    .map((p) => ({ partition: Number(p), from: from[p]?.offset ?? 0, to: below[p]!.offset }))
    .filter((r) => r.to > r.from)
    .sort((a, b) => a.partition - b.partition)

const integer = (n: number): string => {
  if (!Number.isSafeInteger(n)) throw new RangeError(`not an offset: ${n}`)
  return String(n)
}

const inRanges = (ranges: OffsetRange[]): string =>
  ranges.length === 0
    ? 'false'
    : ranges
        .map(
          (r) =>
            `_partition = ${integer(r.partition)} AND _offset >= ${integer(r.from)} AND _offset < ${integer(r.to)}`,
        )
        .map((s) => (ranges.length === 1 ? s : `(${s})`))
        .join(' OR ')

/** FROM-able text over checked paths. Foreign files may lack columns or order them differently, hence by name then. */
export const parquetSource = (files: { path: string; sha256: string | undefined }[]): string => {
  const paths = files.map((f) => literal(f.path)).join(', ')
  const foreign = files.some((f) => f.sha256 === undefined) ? ', union_by_name = true' : ''
  return `read_parquet([${paths}], hive_partitioning = false${foreign})`
}

/** Parenthesised SELECT of `columns` (cast to their declared types) of the rows in `ranges`; `where` narrows further. */
export const scanSql = (
  files: { path: string; sha256: string | undefined }[],
  columns: TableColumn[],
  ranges: OffsetRange[],
  where?: string,
): string => {
  if (files.length === 0) {
    const nulls = columns.map((c) => `CAST(NULL AS ${c.type}) AS "${c.name.replaceAll('"', '""')}"`)
    return `(SELECT ${nulls.join(', ')} WHERE false)`
  }
  const filter = `(${inRanges(ranges)})${where === undefined ? '' : ` AND ${where}`}`
  return `(SELECT ${loadList(columns)} FROM ${parquetSource(files)} WHERE ${filter})`
}

/** Live files that may hold a part of the ranges, each checked and with its local path. */
export const openFiles = async (store: ObjectStore, live: LiveFile[], ranges: OffsetRange[]): Promise<ScanFile[]> => {
  const wanted = live.filter((file) => ranges.some((r) => mayHold(file, r.partition, r.from, r.to)))
  return (await localFiles(store, wanted)).map(
    ({ key, path, size, sha256, rows, partition, from, to, appendDate }) => ({
      key,
      path,
      size,
      sha256,
      rows,
      partition,
      from,
      to,
      appendDate,
    }),
  )
}

export const notArchived = (dataset: string, partition: number, offset: number, archived: number): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_NOT_ARCHIVED',
    message: `The lake has the records of ${dataset}, partition ${partition}, only up to offset ${archived}.`,
    expected: `records below offset ${offset}`,
    got: `records below offset ${archived}`,
    next: 'wait for the archiver, or read up to an earlier offset',
    retryable: true,
  })

export const otherLog = (dataset: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_OTHER_LOG',
    message: `The lake's events of ${dataset} come from another log.`,
    expected: `log ${expected}`,
    got: `log ${got}`,
    next: 'the log was deleted and made again: give the new stream another dataset name, or bring the old log back',
  })
