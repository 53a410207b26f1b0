/** What plain DuckDB says: the reference query over the events that were appended below an upper. */

import { referenceSql } from '../../model/compile/reference.ts'
import { ident, literal } from '../../model/ident.ts'
import { answerColumns } from '../../model/query/answer-sql.ts'
import { jsonList, jsonRows } from '../../model/query/json.ts'
import type { ResolvedQuery, Scalar } from '../../model/query/query.ts'
import type { View } from '../../model/view.ts'
import { type Lab, type Sale, START, sales } from './support.ts'

const value = (sale: Sale, name: string, type: string): string => {
  const own = sale[name as keyof Sale]
  return own === undefined ? 'NULL' : `CAST(${literal(String(own))} AS ${type})`
}

export const referenceRows = async (
  lab: Lab,
  view: View,
  query: ResolvedQuery,
  upper: Record<string, string>,
): Promise<Record<string, Scalar>[]> => {
  const indexes = new Map<string, number>()
  const rows = lab.known.flatMap(({ partition, offset, sale }) => {
    const record = `${partition}/${offset}`
    const index = indexes.get(record) ?? 0
    indexes.set(record, index + 1)
    if (offset >= Number(upper[String(partition)])) return []
    const own = sales.columns.map((c) => value(sale, c.name, c.type))
    return [
      `(${own.join(', ')}, ${partition}::BIGINT, ${offset}::BIGINT, ${index}::BIGINT, make_timestamptz(${START}000))`,
    ]
  })
  return lab.engine.withSession(async (session) => {
    const names = [...sales.columns.map((c) => ident(c.name)), '_partition', '_offset', '_index', '_append_time']
    await session.run(
      `CREATE TEMP TABLE events (${sales.columns.map((c) => `${ident(c.name)} ${c.type}`).join(', ')}, _partition BIGINT, _offset BIGINT, _index BIGINT, _append_time TIMESTAMPTZ)`,
    )
    if (rows.length > 0) await session.run(`INSERT INTO events (${names.join(', ')}) VALUES ${rows.join(', ')}`)
    const columns = answerColumns(view, query)
    const sql = referenceSql(view, query, 'events')
    return jsonRows(columns, await session.columns(`SELECT ${jsonList(columns, 'r')} FROM (${sql}) r`))
  })
}
