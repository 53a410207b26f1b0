/**
 * Cells → answer, as SQL printed from a view and a resolved query: merge → present → compare → fill → order → limit.
 * Invariant: only whole cells are merged, by the view's own merge SQL, and what is presented is a function of merged states
 * alone; so the answer does not depend on how the cells were split.
 */
import { ident } from '../ident.ts'
import type { View, ViewMeasure } from '../view.ts'
import { bucketKey, bucketLabel, hopStarts, rangeSql, timestamptz } from './buckets.ts'
import { filterSql } from './filter.ts'
import { DAY_US, isCalendar, monthsOf, ORIGIN_US, wallClock, widthUs } from './grain.ts'
import { jsonList } from './json.ts'
import type { AnswerColumn, ResolvedQuery } from './query.ts'
import { floorMod } from './time.ts'

type Range = { fromUs: bigint | null; toUs: bigint | null }

export type AnswerSql = { sql: string; columns: AnswerColumn[] }

export const answerColumns = (view: View, query: ResolvedQuery): AnswerColumn[] => {
  const measure = (name: string, suffix: string): AnswerColumn => {
    const { type, approximate } = view.measures.find((m) => m.name === name)!
    return { name: `${name}${suffix}`, type, ...(approximate ? { approximate } : {}) }
  }
  return [
    ...(query.bucket === null ? [] : [{ name: query.bucket.name, type: 'TIMESTAMPTZ' }]),
    ...query.dimensions.map((name) => ({ name, type: view.dimensions.find((d) => d.name === name)!.type })),
    ...query.measures.map((m) => measure(m, '')),
    ...(query.previous === null ? [] : query.measures.map((m) => measure(m, '_previous'))),
  ]
}

/**
 * Measures to be computed: the asked ones and those that arithmetic needs. A name that merely occurs in the text of an
 * expression counts as needed: more than necessary is harmless.
 */
const neededMeasures = (view: View, asked: string[]): ViewMeasure[] => {
  const needed = new Set<ViewMeasure>()
  const visit = (measure: ViewMeasure): void => {
    if (needed.has(measure)) return
    needed.add(measure)
    if (measure.states.length > 0) return
    const text = measure.present.toLowerCase()
    for (const other of view.measures)
      if (other !== measure && text.includes(other.name.replaceAll('"', '""').toLowerCase())) visit(other)
  }
  for (const name of asked) visit(view.measures.find((m) => m.name === name)!)
  return view.measures.filter((m) => needed.has(m))
}

/** Merged states per key: `_k` (when there is a bucket), dimensions, states, and `_hit` (always true). */
const mergedSql = (view: View, query: ResolvedQuery, source: string, range: Range, states: string[]): string => {
  const { bucket, dimensions } = query
  const dims = dimensions.map(ident)
  const conditions = [...rangeSql('_bucket', range), ...query.filters.map((f) => filterSql(f, view.dimensions))]
  const where = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`
  const merges = view.states
    .filter((s) => states.includes(s.name))
    .map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)
  const grouped = (from: string, condition: string, key: string | null): string => {
    const keys = [...(key === null ? [] : [`${key} AS _k`]), ...dims]
    const by = keys.length === 0 ? '' : ` GROUP BY ${keys.map((_, i) => i + 1).join(', ')}`
    return `SELECT ${[...keys, ...merges, 'true AS _hit'].join(', ')} FROM ${from}${condition}${by}`
  }
  if (bucket === null) return grouped(source, where, null)
  const ownKey = bucketKey(bucket.grain, bucket.timeZone, '_bucket')
  if (bucket.hop === null) return grouped(source, where, ownKey)
  // Each slice of the asked grain is merged once, then counted in every window that holds it.
  const { windowUs } = bucket.hop
  const slice = bucketLabel(bucket.grain, bucket.timeZone, '_k')
  const slices = `(SELECT * REPLACE (${slice} AS _k) FROM (${grouped(source, where, ownKey)}))`
  const inside = [
    ...(range.fromUs === null ? [] : [`_w >= ${range.fromUs}`]),
    ...(range.toUs === null ? [] : [`_w + ${windowUs} <= ${range.toUs}`]),
  ]
  const windows = `(SELECT * EXCLUDE (_k, _hit), ${hopStarts(bucket, '_k')} AS _w FROM ${slices})`
  return grouped(windows, inside.length === 0 ? '' : ` WHERE ${inside.join(' AND ')}`, 'make_timestamptz(_w)')
}

/** Presents measures over a relation of states; keeps all `keep` columns. */
const presentSql = (measures: ViewMeasure[], keep: string[], source: string): string => {
  const base = measures.filter((m) => m.states.length > 0)
  let sql = `SELECT ${[...keep, ...base.map((m) => `(${m.present}) AS ${ident(m.name)}`)].join(', ') || 'true AS _hit'} FROM ${source}`
  // Arithmetic may build on arithmetic that stands before it in the view.
  for (const m of measures)
    if (m.states.length === 0) sql = `SELECT *, (${m.present}) AS ${ident(m.name)} FROM (${sql})`
  return sql
}

/** No change of a zone's clocks leaves a bucket shorter than this. */
const STEP_US = 900_000_000n

/**
 * Keys of all buckets of a range, in order, as rows (_n, _k): what fill and comparison count by. Counted by the engine alone,
 * so that they are the very keys of the merged rows.
 */
const bucketTable = (query: ResolvedQuery, range: { fromUs: bigint; toUs: bigint }): string => {
  const { grain, timeZone, hop } = query.bucket!
  const numbered = (key: string, from: string): string =>
    `(SELECT row_number() OVER (ORDER BY _k) AS _n, _k FROM (SELECT DISTINCT ${key} AS _k FROM ${from}))`
  if (hop !== null) {
    const { windowUs, everyUs } = hop
    const first = range.fromUs + floorMod(-(wallClock(timeZone, range.fromUs) - ORIGIN_US), everyUs)
    return numbered(
      'make_timestamptz(u)',
      `(SELECT unnest(range(${first}, ${range.toUs - windowUs + 1n}, ${everyUs})) AS u)`,
    )
  }
  const width = widthUs(grain)
  if (isCalendar(grain) && (width === null || timeZone !== 'UTC')) {
    const [first, last] = [range.fromUs, range.toUs - 1n].map((us) => bucketKey(grain, timeZone, timestamptz(us)))
    const step = width === null ? `to_months(${monthsOf(grain)})` : `to_days(${width / DAY_US})`
    return numbered('u', `(SELECT unnest(generate_series(${first}, ${last}, ${step})) AS u)`)
  }
  const step = timeZone === 'UTC' || width! < STEP_US ? width! : STEP_US
  const steps = `(SELECT unnest(range(${range.fromUs}, ${range.toUs}, ${step})) AS u UNION ALL SELECT ${range.toUs - 1n})`
  return numbered(bucketKey(grain, timeZone, 'make_timestamptz(u)'), steps)
}

/**
 * The answer's SQL over `source` (a relation with the view's cell columns; several cells may have equal keys). Rows come in
 * order, at most limit + 1 of them, in JSON form.
 */
export const answerSql = (view: View, query: ResolvedQuery, source: string): AnswerSql => {
  const columns = answerColumns(view, query)
  const measures = neededMeasures(view, query.measures)
  const states = [...new Set(measures.flatMap((m) => m.states))]
  const { bucket, previous } = query
  const dims = query.dimensions.map(ident)
  const keys = [...(bucket === null ? [] : ['_k']), ...dims]
  const asked = query.measures.map(ident)
  const ctes: string[] = [`_m AS (${mergedSql(view, query, source, query.range, states)})`]
  let current = '_m'
  const neutral = (): string => {
    if (!ctes.some((c) => c.startsWith('_z AS')))
      ctes.push(
        `_z AS (SELECT ${['false AS _hit', ...view.states.filter((s) => states.includes(s.name)).map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)].join(', ')} FROM ${source} WHERE false)`,
      )
    return '_z'
  }
  if (query.fill && bucket !== null) {
    const range = { fromUs: query.range.fromUs!, toUs: query.range.toUs! }
    const groups = dims.length === 0 ? '(SELECT 1 AS _one)' : `(SELECT DISTINCT ${dims.join(', ')} FROM _m)`
    const same = keys.map((k) => `m.${k} IS NOT DISTINCT FROM g.${k}`).join(' AND ')
    const filled = states.map((s) => `CASE WHEN m._hit THEN m.${s} ELSE z.${s} END AS ${s}`)
    const z = neutral()
    ctes.push(
      `_f AS (SELECT ${[...keys.map((k) => `g.${k}`), ...filled, 'true AS _hit'].join(', ')} FROM (SELECT * FROM ${bucketTable(query, range)} CROSS JOIN ${groups}) g LEFT JOIN _m m ON ${same} CROSS JOIN ${z} z)`,
    )
    current = '_f'
  }
  ctes.push(`_p AS (${presentSql(measures, [...keys, '_hit'], current)})`)
  let last = '_p'
  if (previous !== null) {
    ctes.push(`_pm AS (${mergedSql(view, query, source, previous, states)})`)
    ctes.push(`_pp AS (${presentSql(measures, [...keys, '_hit'], '_pm')})`)
    const range = { fromUs: query.range.fromUs!, toUs: query.range.toUs! }
    const pairs: string[] = dims.map((d) => `p.${d} IS NOT DISTINCT FROM c.${d}`)
    let pairing = ''
    if (bucket !== null) {
      ctes.push(`_bc AS ${bucketTable(query, range)}`, `_bp AS ${bucketTable(query, previous)}`)
      pairing = ' LEFT JOIN _bc ON _bc._k = c._k LEFT JOIN _bp ON _bp._n = _bc._n'
      pairs.push('p._k = _bp._k')
    }
    let extra = ''
    if (query.fill) {
      const z = neutral()
      ctes.push(`_zp AS (${presentSql(measures, ['_hit'], z)})`)
      extra = ' CROSS JOIN _zp'
    }
    const own = query.measures.map((m) => {
      const value = query.fill ? `CASE WHEN p._hit THEN p.${ident(m)} ELSE _zp.${ident(m)} END` : `p.${ident(m)}`
      return `${value} AS ${ident(`${m}_previous`)}`
    })
    ctes.push(
      `_q AS (SELECT ${[...keys.map((k) => `c.${k}`), ...asked.map((m) => `c.${m}`), ...own].join(', ')} FROM _p c${pairing} LEFT JOIN _pp p ON ${pairs.join(' AND ') || 'true'}${extra})`,
    )
    last = '_q'
  }
  const label =
    bucket === null
      ? []
      : [`${bucket.hop === null ? bucketLabel(bucket.grain, bucket.timeZone, '_k') : '_k'} AS ${ident(bucket.name)}`]
  const out = columns.filter((c) => c.name !== bucket?.name).map((c) => ident(c.name))
  ctes.push(`_a AS (SELECT ${[...label, ...out].join(', ')} FROM ${last})`)
  const ordered = new Set(query.orderBy.map((o) => o.column))
  const order = [
    ...query.orderBy.map((o) => `_a.${ident(o.column)} ${o.desc ? 'DESC' : 'ASC'} NULLS LAST`),
    ...[...(bucket === null ? [] : [bucket.name]), ...query.dimensions]
      .filter((c) => !ordered.has(c))
      .map((c) => `_a.${ident(c)} ASC NULLS LAST`),
  ]
  const tail = `${order.length === 0 ? '' : ` ORDER BY ${order.join(', ')}`}${query.limit === null ? '' : ` LIMIT ${query.limit + 1}`}`
  return { sql: `WITH ${ctes.join(',\n')}\nSELECT ${jsonList(columns, '_a')} FROM _a${tail}`, columns }
}
