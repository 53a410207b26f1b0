/**
 * Which partition an event goes to: the text of its key column, else of its id, hashed; else the request's own turn.
 * Invariant: the same text goes to the same partition for ever (docs/decisions/partitioning.md): the low 64 bits of its
 * MD5 modulo the number of partitions, which DuckDB and `partitionOfText` compute alike.
 */
import { createHash } from 'node:crypto'
import type { Dataset } from '../model/dataset.ts'
import { ident } from '../model/ident.ts'

/** SQL over a decoded table: `_row` and the partition of each good row, NULL when it has neither key nor id; null: no such columns. */
export const partitionSql = (dataset: Dataset, table: string, partitions: number): string | null => {
  const columns = partitionColumns(dataset)
  if (columns.length === 0) return null
  const text = `coalesce(${columns.map((c) => `${ident(c)}::VARCHAR`).join(', ')})`
  return `SELECT _row::INTEGER, (md5_number_lower(${text}) % ${partitions})::INTEGER FROM ${ident(table)} ORDER BY _row`
}

/** Columns that decide, most important first. */
export const partitionColumns = (dataset: Dataset): string[] => [
  ...new Set([dataset.key, dataset.id].filter((c) => c !== undefined)),
]

/** The same hash in TypeScript. DuckDB takes the second half of the digest as "lower", its bytes little-endian. */
export const partitionOfText = (text: string, partitions: number): number =>
  Number(createHash('md5').update(text).digest().readBigUInt64LE(8) % BigInt(partitions))
