/**
 * Partial cells of all views over one decoded batch. Invariant: each part equals `partialSql` of its view over the same rows.
 *
 * Views without heavy states share one GROUPING SETS query: each expression they group by is computed once, equal sets and
 * equal states are unified, `GROUPING` tells a rolled-up key from a NULL one. A view's WHERE becomes a key of its set, and
 * only the cells where it is true are taken. A set within another one is merged from the other's cells. A view with a heavy
 * state (a sketch) runs its own query.
 */
import type { Session } from '../engine/engine.ts'
import { mergeCellsSql, partialSql } from '../model/cells.ts'
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

/** Groups of at least `least` views that share a query; alone is who cannot. */
export const fuse = (views: View[], least = 2): { fused: Fusion[]; alone: View[] } => {
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
  const few = fused.filter((f) => f.views.length < least).flatMap((f) => f.views.map((v) => v.view))
  return { fused: fused.filter((f) => f.views.length >= least), alone: [...alone, ...few] }
}

const sameSet = (a: number[], b: number[]): boolean => a.length === b.length && a.every((k) => b.includes(k))

const setOf = (v: Fusion['views'][number]): number[] =>
  [...new Set([...v.keys, ...(v.where === null ? [] : [v.where])])].sort((a, b) => a - b)

/** The sets that are computed: those that no other one contains. The cells of a contained one are merged from them. */
const basesOf = (fusion: Fusion): number[][] => {
  const sets = fusion.views.map(setOf)
  return sets.filter(
    (set, i) =>
      sets.findIndex((other) => sameSet(other, set)) === i &&
      !sets.some((other) => other.length > set.length && set.every((k) => other.includes(k))),
  )
}

/** The smallest base that contains a set. */
const baseOf = (fusion: Fusion, set: number[]): number[] =>
  basesOf(fusion)
    .filter((base) => set.every((k) => base.includes(k)))
    .reduce((least, base) => (base.length < least.length ? base : least))

/** GROUPING of a set's rows: its most significant bit is its first argument's, set where the key is rolled up. */
const maskOf = (fusion: Fusion, set: number[]): bigint =>
  fusion.keys.reduce((bits, _, i) => bits * 2n + (set.includes(i) ? 0n : 1n), 0n)

/** Extra key of every set, extra aggregates; the caller's names for them. */
type Extra = { key: { name: string; sql: string }; columns: string[] }

const fusionSql = (fusion: Fusion, source: string, extra?: Extra): string => {
  const names = fusion.keys.map((_, i) => `_k${i}`)
  const inner = [
    ...fusion.keys.map((sql, i) => `, ${sql} AS _k${i}`),
    ...(extra ? [`, ${extra.key.sql} AS ${extra.key.name}`] : []),
  ].join('')
  const also = extra ? [extra.key.name] : []
  const sets = basesOf(fusion).map((set) => `(${[...set.map((k) => `_k${k}`), ...also].join(', ')})`)
  const columns = [
    `${names.length ? `GROUPING(${names.join(', ')})` : '0'} AS _g`,
    'count(*) AS _n',
    ...also,
    ...(extra?.columns ?? []),
    ...names,
    ...fusion.states.map((sql, i) => `${sql} AS _f${i}`),
  ]
  return `SELECT ${columns.join(', ')} FROM (SELECT *${inner} FROM ${source}) GROUP BY GROUPING SETS (${sets.join(', ')})`
}

const partOf = (fusion: Fusion, v: Fusion['views'][number], table: string, test = ''): string => {
  const { view } = v
  const names = [...(view.bucket ? ['_bucket'] : []), ...view.dimensions.map((d) => ident(d.name))]
  const columns = [
    ...names.map((name, i) => `_k${v.keys[i]} AS ${name}`),
    ...view.states.map((s, i) => `_f${v.states[i]} AS ${s.name}`),
  ]
  const own = setOf(v)
  const base = baseOf(fusion, own)
  const where = v.where === null ? '' : ` AND _k${v.where}`
  const cells = `SELECT ${columns.join(', ')} FROM ${table} WHERE _g = ${maskOf(fusion, base)} AND _n > 0${where}${test}`
  return sameSet(own, base) ? cells : mergeCellsSql(view, `(${cells})`)
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

/** Rows with `_verdict` 0, all rows, and the greatest event time (µs) among the first that passes `timely`. */
export type Summary = { rows: number; good: number; greatestUs: string | null }

/** Whether `aggregateDecoded` can serve these views: no sketch, and few enough keys. */
export const canFuse = (views: View[]): boolean => {
  const { fused, alone } = fuse(views, 1)
  return fused.length === 1 && alone.length === 0
}

/**
 * Like `aggregate`, in one pass over decoded rows that are not all good: the verdict is a key of each set, and parts are of
 * the good rows alone. `time`: the event time column; `timely`: a test over a row, or null.
 */
export const aggregateDecoded = async (
  session: Session,
  views: View[],
  source: string,
  prefix: string,
  time: string,
  timely: string | null,
): Promise<{ parts: Part[]; summary: Summary }> => {
  const fusion = fuse(views, 1).fused[0]!
  const table = `${prefix}_fused_0`
  const greatest = `max(${ident(time)})${timely === null ? '' : ` FILTER (WHERE ${timely})`} AS _greatest`
  const sql = fusionSql(fusion, source, { key: { name: '_good', sql: '_verdict = 0' }, columns: [greatest] })
  await session.run(`CREATE OR REPLACE TEMP TABLE ${table} AS ${sql}`)
  const base = basesOf(fusion).reduce((least, b) => (b.length < least.length ? b : least))
  const groups = await session.rows<{ _good: boolean | null; n: string; us: string | null }>(
    `SELECT _good, sum(_n)::BIGINT AS n, epoch_us(max(_greatest)) AS us FROM ${table} WHERE _g = ${maskOf(fusion, base)} GROUP BY _good`,
  )
  const good = groups.find((g) => g._good === true)
  return {
    parts: fusion.views.map((v) => ({ view: v.view, sql: partOf(fusion, v, table, ' AND _good') })),
    summary: {
      rows: groups.reduce((sum, g) => sum + (g._good === null ? 0 : Number(g.n)), 0),
      good: Number(good?.n ?? 0),
      greatestUs: good?.us ?? null,
    },
  }
}
