/**
 * What decides an event's partition: the text of its key column, else of its id (model/partitioner.ts hashes it); else the request's own
 * turn. The decoded value counts: `1.5` and `1.50` of a DECIMAL(18,2) are one key.
 */
import type { Dataset } from '../model/dataset.ts'
import { ident } from '../model/ident.ts'

/** SQL over a decoded table: `_row` and the deciding text of each good row, NULL when it has neither key nor id; null: no such columns. */
export const keySql = (dataset: Dataset, table: string): string | null => {
  const columns = keyColumns(dataset)
  if (columns.length === 0) return null
  const text = `coalesce(${columns.map((c) => `${ident(c)}::VARCHAR`).join(', ')})`
  return `SELECT _row::INTEGER, ${text} FROM ${ident(table)} ORDER BY _row`
}

/** Columns that decide, most important first. */
export const keyColumns = (dataset: Dataset): string[] => [
  ...new Set([dataset.key, dataset.id].filter((c) => c !== undefined)),
]
