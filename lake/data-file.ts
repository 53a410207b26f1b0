/**
 * Data files of a table: DuckDB writes Parquet into scratch, the store makes it durable under a fresh name, and the `add`
 * action carries size, SHA-256 and statistics. Invariant: an action exists only for a file that is durable already.
 */
import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import type { Session } from '../engine/engine.ts'
import { WeirError } from '../model/errors.ts'
import { literal } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { type AddFile, encodePath, type RemoveFile } from './delta-actions.ts'
import type { TableColumn } from './delta-schema.ts'
import { type CopyStats, statsText } from './delta-stats.ts'

export type WrittenFile = { key: string; rows: number; add: AddFile }

/**
 * Copies `select` (whose columns are `columns`, already in their stored types) into a new file of the table.
 * `name` gets a unique part; null when the query has no rows.
 */
export const writeDataFile = async (
  store: ObjectStore,
  session: Session,
  options: {
    root: string
    /** Folder inside the table, '' or ending in '/'. */
    folder: string
    name: string
    select: string
    columns: TableColumn[]
    partitionValues: Record<string, string | null>
    tags: Record<string, string>
    dataChange: boolean
    nowMs: number
  },
): Promise<WrittenFile | null> => {
  const scratch = await store.scratch('.parquet')
  const path = `${options.folder}${options.name}-${randomUUID()}.parquet`
  const key = `${options.root}/${path}`
  // Parquet v1 (the default): Spark cannot read v2. No FIELD_IDS: no column mapping.
  const [copied] = await session.rows<CopyStats>(
    `COPY (${options.select}) TO ${literal(scratch)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880, RETURN_STATS)`,
  )
  const rows = Number(copied?.count ?? 0)
  if (copied === undefined || rows === 0) {
    await rm(scratch, { force: true })
    return null
  }
  const { size, sha256 } = await store.publishFile(scratch, key)
  return {
    key,
    rows,
    add: {
      path: encodePath(path),
      partitionValues: options.partitionValues,
      size,
      modificationTime: Math.trunc(options.nowMs),
      dataChange: options.dataChange,
      stats: statsText(copied, options.columns),
      tags: { ...options.tags, sha256 },
    },
  }
}

/** Files that are made durable at a time. */
const PUBLISH_AT_ONCE = 8

/**
 * Like `writeDataFile`, for many files in one statement: `select` also has a column `_part` (VARCHAR, a plain word: letters, digits,
 * `-`), and each of its values becomes a file, or more where the engine had too much open at once. The order of `select` holds within
 * a file. What was made durable before an error is deleted.
 */
export const writeDataFiles = async (
  store: ObjectStore,
  session: Session,
  options: { root: string; select: string; columns: TableColumn[]; nowMs: number },
): Promise<(WrittenFile & { part: string })[]> => {
  const scratch = await store.scratch('')
  const written: (WrittenFile & { part: string })[] = []
  try {
    const copied = await session.rows<CopyStats>(
      `COPY (${options.select}) TO ${literal(scratch)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880, PARTITION_BY (_part), FILENAME_PATTERN 'f_{uuid}', RETURN_STATS)`,
    )
    const left = copied.filter((c) => Number(c.count) > 0)
    const publish = async (): Promise<void> => {
      for (let file = left.shift(); file !== undefined; file = left.shift()) {
        const part = decodeURIComponent(/\/_part=([^/]+)\/[^/]+$/.exec(file.filename)?.[1] ?? '')
        if (!/^[\w-]+$/.test(part)) throw new Error(`not a part: ${file.filename}`)
        const path = `${part}-${randomUUID()}.parquet`
        const key = `${options.root}/${path}`
        const { size, sha256 } = await store.publishFile(file.filename, key)
        written.push({
          key,
          rows: Number(file.count),
          part,
          add: {
            path: encodePath(path),
            partitionValues: {},
            size,
            modificationTime: Math.trunc(options.nowMs),
            dataChange: true,
            stats: statsText(file, options.columns),
            tags: { sha256 },
          },
        })
      }
    }
    const lanes = await Promise.allSettled(Array.from({ length: PUBLISH_AT_ONCE }, publish))
    const failed = lanes.find((l) => l.status === 'rejected')
    if (failed) throw failed.reason
    return written.sort((a, b) => (a.key < b.key ? -1 : 1))
  } catch (error) {
    await discard(store, written)
    throw error
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** The removal of a live file. */
export const removalOf = (add: AddFile, nowMs: number, dataChange: boolean): RemoveFile => ({
  path: add.path,
  deletionTimestamp: Math.trunc(nowMs),
  dataChange,
  extendedFileMetadata: true,
  partitionValues: add.partitionValues,
  size: add.size,
  ...(add.tags ? { tags: add.tags } : {}),
})

/** Deletes files that certainly never came into a commit. */
export const discard = async (store: ObjectStore, files: WrittenFile[]): Promise<void> => {
  for (const file of files) await store.delete(file.key)
}

export const otherSchema = (table: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_SCHEMA',
    message: `The table ${table} was written with other columns.`,
    expected,
    got,
    next: 'a changed dataset definition needs a new dataset: give it another name',
  })
