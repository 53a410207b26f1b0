/**
 * Partial cells of all views over one decoded batch. Invariant: each part equals `partialSql` of its view over the same rows.
 *
 * Views without heavy states share one GROUPING SETS query: each expression they group by is computed once, equal sets and
 * equal states are unified, `grouping_id` tells a rolled-up key from a NULL one. A view's WHERE becomes a key of its set, and
 * only the cells where it is true are taken. A view with a heavy state (a sketch) runs its own query.
 */
import type { Session } from '../engine/engine.ts'
import { partialSql } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import type { View } from '../model/view.ts'

/** SELECT of a view's partial cells (cell columns, in order); valid until the next batch. */
export type Part = { view: View; sql: string }

/** DuckDB's GROUPING takes at most 64 arguments. */
const MAX_KEYS = 60

type Fusion = {
  views: { view: View; keys: number[]; states: number[]; where: number | null }[]
  keys: string[]
  states: string[]
}

/** States that speak of the view's own inner columns cannot share a projection with other views. */
const fusible = (view: View): boolean =>
  view.states.every((s) => !s.heavy && !s.partial.includes('_d:') && !s.partial.includes('_bucket'))

const indexOf = (list: string[], item: string): number => {
  const at = list.indexOf(item)
  return at >= 0 ? at : list.push(item) - 1
}

/** Groups of views that share a query; alone is who cannot. */
export const fuse = (views: View[]): { fused: Fusion[]; alone: View[] } => {
  const alone = views.filter((v) => !fusible(v))
  const fused: Fusion[] = []
  for (const view of views.filter(fusible)) {
    const keys = [...(view.bucket ? [view.bucket.sql] : []), ...view.dimensions.map((d) => d.sql)]
    const wanted = keys.length + (view.where === null ? 0 : 1)
    let into = fused.find((f) => f.keys.length + wanted <= MAX_KEYS)
    if (into === undefined) {
      into = { views: [], keys: [], states: [] }
      fused.push(into)
    }
    const { keys: all, states } = into
    into.views.push({
      view,
      keys: keys.map((k) => indexOf(all, k)),
      states: view.states.map((s) => indexOf(states, `CAST(${s.partial} AS ${s.type})`)),
      where: view.where === null ? null : indexOf(all, `coalesce((${view.where}), false)`),
    })
  }
  // A query for one view alone is the plain one.
  const single = fused.filter((f) => f.views.length === 1).map((f) => f.views[0]!.view)
  return { fused: fused.filter((f) => f.views.length > 1), alone: [...alone, ...single] }
}

const setOf = (v: Fusion['views'][number]): number[] =>
  [...new Set([...v.keys, ...(v.where === null ? [] : [v.where])])].sort((a, b) => a - b)

const fusionSql = (fusion: Fusion, source: string): string => {
  const inner = fusion.keys.map((sql, i) => `, ${sql} AS _k${i}`).join('')
  const names = fusion.keys.map((_, i) => `_k${i}`)
  const sets = [
    ...new Set(
      fusion.views.map(
        (v) =>
          `(${setOf(v)
            .map((k) => `_k${k}`)
            .join(', ')})`,
      ),
    ),
  ]
  const grouping = names.length ? `GROUPING(${names.join(', ')})` : '0'
  const columns = [
    `${grouping} AS _g`,
    'count(*) AS _n',
    ...names,
    ...fusion.states.map((sql, i) => `${sql} AS _f${i}`),
  ]
  return `SELECT ${columns.join(', ')} FROM (SELECT *${inner} FROM ${source}) GROUP BY GROUPING SETS (${sets.join(', ')})`
}

const partOf = (fusion: Fusion, v: Fusion['views'][number], table: string): string => {
  const { view } = v
  const names = [...(view.bucket ? ['_bucket'] : []), ...view.dimensions.map((d) => ident(d.name))]
  const columns = [
    ...names.map((name, i) => `_k${v.keys[i]} AS ${name}`),
    ...view.states.map((s, i) => `_f${v.states[i]} AS ${s.name}`),
  ]
  // GROUPING's most significant bit is its first argument's: set where the key is rolled up.
  const own = new Set(setOf(v))
  const mask = fusion.keys.reduce((bits, _, i) => bits * 2n + (own.has(i) ? 0n : 1n), 0n)
  const where = v.where === null ? '' : ` AND _k${v.where}`
  return `SELECT ${columns.join(', ')} FROM ${table} WHERE _g = ${mask} AND _n > 0${where}`
}

/** Computes the parts of a batch; `prefix` names the temporary tables, which the next batch replaces. */
export const aggregate = async (session: Session, views: View[], source: string, prefix: string): Promise<Part[]> => {
  const { fused, alone } = fuse(views)
  const parts: Part[] = alone.map((view) => ({ view, sql: partialSql(view, source) }))
  for (const [i, fusion] of fused.entries()) {
    const table = `${prefix}_fused_${i}`
    await session.run(`CREATE OR REPLACE TEMP TABLE ${table} AS ${fusionSql(fusion, source)}`)
    for (const v of fusion.views) parts.push({ view: v.view, sql: partOf(fusion, v, table) })
  }
  return parts
}
