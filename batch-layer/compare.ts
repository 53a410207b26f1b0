/**
 * Comparing two sets of cells of a view. Invariant: equal means equal in every key and every state, NULLs and NaNs included; the count
 * is exact, the list of explained cells is bounded.
 */
import type { Json, Session } from '../engine/engine.ts'
import { cellColumns, keyColumns } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import type { View } from '../model/view.ts'

/** A cell that is not the same on both sides; null: the side has no such cell. */
export type DifferingCell = {
  key: Record<string, Json>
  left: Record<string, Json> | null
  right: Record<string, Json> | null
}
export type Comparison = { differing: number; cells: DifferingCell[] }

export const SAME: Comparison = { differing: 0, cells: [] }
const EXPLAINED = 20

/** Compares two sources (usable after FROM) that have the view's cell columns and one row per key. */
export const compareCells = async (session: Session, view: View, left: string, right: string): Promise<Comparison> => {
  const all = cellColumns(view)
    .map((c) => ident(c.name))
    .join(', ')
  const keys = keyColumns(view).map((k) => k.name)
  const keyList = keys.map(ident).join(', ')
  // Grouped by every column: EXCEPT ALL, both ways, would plan a window over all of them, five times the cost for a few cells.
  const found = `(SELECT ${all}, sum(_side) > 0 AS _left
    FROM (SELECT 1 AS _side, ${all} FROM ${left} UNION ALL SELECT -1, ${all} FROM ${right})
    GROUP BY ${all} HAVING sum(_side) <> 0)`
  const [any] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${found}`)
  if (Number(any!.n) === 0) return SAME
  const table = `differing_${serial++}`
  await session.run(`CREATE TEMP TABLE ${table} AS FROM ${found}`)
  try {
    const [counted] = await session.rows<{ n: string }>(
      `SELECT count(*) AS n FROM (SELECT ${keyList || '1'} FROM ${table} GROUP BY ${keyList || '1'})`,
    )
    const differing = Number(counted!.n)
    const rows = await session.rows(
      `SELECT * FROM ${table} ORDER BY ${keyList ? `${keyList}, ` : ''}_left LIMIT ${2 * EXPLAINED}`,
    )
    const cells = new Map<string, DifferingCell>()
    for (const row of rows) {
      const key = Object.fromEntries(keys.map((k) => [k, row[k] ?? null]))
      const states = Object.fromEntries(view.states.map((s) => [s.name, row[s.name] ?? null]))
      const id = JSON.stringify(key)
      const cell = cells.get(id) ?? { key, left: null, right: null }
      cell[row._left ? 'left' : 'right'] = states
      cells.set(id, cell)
    }
    return { differing, cells: [...cells.values()].slice(0, EXPLAINED) }
  } finally {
    await session.run(`DROP TABLE IF EXISTS ${table}`)
  }
}

let serial = 0
