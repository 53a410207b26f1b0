/**
 * Audit: an answer against the reference query, run by plain DuckDB once over the counted events of all records below its upper.
 * Invariant: the reference shares no code with partial, merge, present; rows are compared in their JSON form, cell by cell.
 */

import { referenceSql } from '../model/compile/reference.ts'
import type { Cut } from '../model/position.ts'
import { answerColumns } from '../model/query/answer-sql.ts'
import { jsonList, jsonRows } from '../model/query/json.ts'
import type { ResolvedQuery, Scalar } from '../model/query/query.ts'
import { resolveQuery } from '../model/query/resolve.ts'
import type { View } from '../model/view.ts'
import { type BatchContext, datasetOf } from './context.ts'
import { countedRows } from './counted-rows.ts'

export type AuditCell = {
  key: Record<string, Scalar>
  /** A row that only one side has differs in every column. */
  column: string
  answer: Scalar | undefined
  reference: Scalar | undefined
}
export type Audited = {
  /** Differing cells: 0 is the promise. */
  differing: number
  /** The first of them. */
  cells: AuditCell[]
  rows: number
  /** Counted events that the reference read. */
  events: number
}

type Row = Record<string, Scalar>
const SHOWN = 20
let serial = 0

/** The query for the whole view: every measure, dimension and bucket, no limit. */
export const wholeQuery = (view: View, ctx: BatchContext): ResolvedQuery => ({
  ...resolveQuery({ view: view.name }, view, datasetOf(ctx, view.dataset), {
    nowMs: ctx.now(),
    limits: { defaultLimit: 1, maxLimit: 1 },
  }),
  limit: null,
})

/** Rows of the reference, in JSON form. */
export const referenceRows = (
  ctx: BatchContext,
  view: View,
  upper: Cut,
  query: ResolvedQuery,
): Promise<{ rows: Row[]; events: number }> =>
  ctx.engine.withSession(async (session) => {
    const table = `audit_${serial++}`
    const events = await countedRows(ctx, session, datasetOf(ctx, view.dataset), upper, table, view.columns)
    const columns = answerColumns(view, query)
    const arrays = await session.columns(
      `SELECT ${jsonList(columns, 'r')} FROM (${referenceSql(view, query, table)}) r`,
    )
    return { rows: jsonRows(columns, arrays), events }
  })

/** Compares the rows of an answer (by default: to `wholeQuery`) with the reference. Throws WEIR_BATCH_HISTORY. */
export const audit = async (
  ctx: BatchContext,
  view: View,
  upper: Cut,
  rows: Row[],
  query: ResolvedQuery = wholeQuery(view, ctx),
): Promise<Audited> => {
  const reference = await referenceRows(ctx, view, upper, query)
  const measures = answerColumns(view, query).map((c) => c.name)
  const keys = [...(query.bucket === null ? [] : [query.bucket.name]), ...query.dimensions]
  const values = measures.filter((name) => !keys.includes(name))
  const keyOf = (row: Row): Row => Object.fromEntries(keys.map((k) => [k, row[k] ?? null]))
  const index = (list: Row[]): Map<string, Row> => new Map(list.map((row) => [JSON.stringify(keyOf(row)), row]))
  const [left, right] = [index(rows), index(reference.rows)]
  const out: Audited = { differing: 0, cells: [], rows: rows.length, events: reference.events }
  const note = (cell: AuditCell): void => {
    out.differing++
    if (out.cells.length < SHOWN) out.cells.push(cell)
  }
  for (const id of new Set([...left.keys(), ...right.keys()])) {
    const [a, b] = [left.get(id), right.get(id)]
    const key = keyOf((a ?? b)!)
    if (a === undefined || b === undefined) {
      for (const column of values.length === 0 ? ['(row)'] : values)
        note({ key, column, answer: a?.[column], reference: b?.[column] })
      continue
    }
    for (const column of values)
      if (JSON.stringify(a[column]) !== JSON.stringify(b[column]))
        note({ key, column, answer: a[column], reference: b[column] })
  }
  // Repeated keys cannot be told from one row by the maps.
  if (left.size !== rows.length) out.differing += rows.length - left.size
  return out
}
