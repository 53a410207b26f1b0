/**
 * The JSON form of answers, by column type only (DESIGN §11), as SQL.
 * Invariant: two rows are equal iff their JSON is equal, whatever computed them: the merged answer, the reference, an audit.
 */
import { ident } from '../ident.ts'
import type { AnswerColumn, Scalar } from './query.ts'

const PLAIN = /^(BOOLEAN|TINYINT|SMALLINT|INTEGER|UTINYINT|USMALLINT|UINTEGER|VARCHAR|DOUBLE)$/

/** Expression whose value the engine hands over as the JSON value itself (or, for doubles, a number to be looked at). */
export const jsonSql = (type: string, sql: string): string => {
  if (PLAIN.test(type)) return sql
  // Counts stay below 2^53 for as long as anybody can send events.
  if (type === 'COUNT' || type === 'FLOAT') return `CAST(${sql} AS DOUBLE)`
  if (type === 'TIMESTAMPTZ' || type === 'TIMESTAMP WITH TIME ZONE')
    return `(CASE WHEN epoch_us(${sql}) % 1000000 = 0 THEN strftime(${sql}, '%Y-%m-%dT%H:%M:%SZ') ELSE strftime(${sql}, '%Y-%m-%dT%H:%M:%S.%fZ') END)`
  return `CAST(${sql} AS VARCHAR)`
}

/** SELECT list that gives columns of `table` their JSON form under their own names. */
export const jsonList = (columns: AnswerColumn[], table: string): string =>
  columns.map((c) => `${jsonSql(c.type, `${table}.${ident(c.name)}`)} AS ${ident(c.name)}`).join(', ')

/** JSON value of what the engine handed over. */
export const jsonValue = (value: unknown): Scalar => {
  if (typeof value !== 'number') return (value ?? null) as Scalar
  if (Number.isFinite(value)) return value === 0 ? 0 : value
  return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'
}

/** Rows from column arrays. */
export const jsonRows = (columns: AnswerColumn[], arrays: unknown[][]): Record<string, Scalar>[] => {
  const names = columns.map((c) => c.name)
  const count = arrays[0]?.length ?? 0
  const rows: Record<string, Scalar>[] = new Array(count)
  for (let r = 0; r < count; r++) {
    const row: Record<string, Scalar> = {}
    for (let c = 0; c < names.length; c++) row[names[c]!] = jsonValue(arrays[c]![r])
    rows[r] = row
  }
  return rows
}
