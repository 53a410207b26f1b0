/**
 * Data files of a table: DuckDB writes Parquet into scratch, the store makes it durable under a fresh name, and the `add`
 * action carries size, SHA-256 and statistics. Invariant: an action exists only for a file that is durable already.
 */
import { randomUUID } from 'node:crypto'
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
    const { rm } = await import('node:fs/promises')
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
