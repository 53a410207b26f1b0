/**
 * Cells → answer, as SQL printed from a view and a resolved query: merge → present → compare → fill → order → limit.
 * Invariant: only whole cells are merged, by the view's own merge SQL, and what is presented is a function of merged states
 * alone; so the answer does not depend on how the cells were split.
 */
import { ident } from '../ident.ts'
import type { View, ViewMeasure } from '../view.ts'
import { bucketKey, bucketLabel, hopStarts, isCostly, rangeSql, timestamptz } from './buckets.ts'
import { filterSql } from './filter.ts'
import { DAY_US, isCalendar, monthsOf, ORIGIN_US, viewGrain, wallClock, widthUs } from './grain.ts'
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

const statesOf = (view: View, query: ResolvedQuery): string[] => [
  ...new Set(neededMeasures(view, query.measures).flatMap((m) => m.states)),
]

/** Columns of cells that the answer's SQL reads, in the order of cells: a relation without the others does as well. */
export const cellsRead = (view: View, query: ResolvedQuery): string[] => {
  const states = new Set(statesOf(view, query))
  const text = JSON.stringify(query.filters).toLowerCase()
  // A name that merely occurs in the filters counts: more than necessary is harmless.
  const dimension = (name: string): boolean =>
    query.dimensions.includes(name) || text.includes(JSON.stringify(name).toLowerCase())
  return [
    ...(view.bucket === null ? [] : ['_bucket']),
    ...view.dimensions.filter((d) => dimension(d.name)).map((d) => d.name),
    ...view.states.filter((s) => states.has(s.name)).map((s) => s.name),
  ]
}

/** Whether the asked buckets are the view's own, so that a cell's bucket is its key and its label. */
const isOwnGrain = (view: View, { grain, timeZone }: NonNullable<ResolvedQuery['bucket']>): boolean => {
  const own = viewGrain(view.bucket!.grain)
  if (own === null || timeZone !== 'UTC') return false
  const months = monthsOf(own)
  return months === null ? widthUs(own) === widthUs(grain) : months === monthsOf(grain)
}

/** SQL of the key that rows with a cell's `_bucket` are grouped by, and of a key's label. */
const keyOf = (
  view: View,
  bucket: NonNullable<ResolvedQuery['bucket']>,
): { key: string; label(key: string): string } => {
  const { grain, timeZone } = bucket
  return isOwnGrain(view, bucket)
    ? { key: '_bucket', label: (key) => key }
    : { key: bucketKey(grain, timeZone, '_bucket'), label: (key) => bucketLabel(grain, timeZone, key) }
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
  const own = keyOf(view, bucket)
  // Cells of one bucket share its key: where that is dear, it is made once for each bucket and joined.
  const joined = own.key !== '_bucket' && view.dimensions.length > 0 && isCostly(bucket.grain, bucket.timeZone)
  const inRange = rangeSql('_bucket', range)
  const buckets = `SELECT DISTINCT _bucket FROM ${source}${inRange.length === 0 ? '' : ` WHERE ${inRange.join(' AND ')}`}`
  const from = joined
    ? `${source} _c LEFT JOIN (SELECT _bucket AS _b, ${own.key} AS _key FROM (${buckets})) _ks ON _c._bucket = _ks._b`
    : source
  const ownKey = joined ? '_key' : own.key
  if (bucket.hop === null) return grouped(from, where, ownKey)
  // Each slice of the asked grain is merged once, then counted in every window that holds it.
  const { windowUs } = bucket.hop
  const slice = own.label('_k')
  const slices = `(SELECT * REPLACE (${slice} AS _k) FROM (${grouped(from, where, ownKey)}))`
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
const bucketTable = (view: View, query: ResolvedQuery, range: { fromUs: bigint; toUs: bigint }): string => {
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
    const key = isOwnGrain(view, query.bucket!) ? bucketLabel(grain, timeZone, 'u') : 'u'
    return numbered(key, `(SELECT unnest(generate_series(${first}, ${last}, ${step})) AS u)`)
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
  const states = statesOf(view, query)
  const { bucket, previous } = query
  const dims = query.dimensions.map(ident)
  const keys = [...(bucket === null ? [] : ['_k']), ...dims]
  const asked = query.measures.map(ident)
  const ctes: string[] = []
  /** What is read once stands where it is read: planning a WITH takes longer. */
  const relation = (name: string, sql: string, once: boolean): string => {
    if (once) return `(${sql})`
    ctes.push(`${name} AS (${sql})`)
    return name
  }
  const filling = query.fill && bucket !== null
  const merged = relation('_m', mergedSql(view, query, source, query.range, states), !(filling && dims.length > 0))
  let current = merged
  const neutral = (): string => {
    if (!ctes.some((c) => c.startsWith('_z AS')))
      ctes.push(
        `_z AS (SELECT ${['false AS _hit', ...view.states.filter((s) => states.includes(s.name)).map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)].join(', ')} FROM ${source} WHERE false)`,
      )
    return '_z'
  }
  if (filling) {
    const range = { fromUs: query.range.fromUs!, toUs: query.range.toUs! }
    const groups = dims.length === 0 ? '(SELECT 1 AS _one)' : `(SELECT DISTINCT ${dims.join(', ')} FROM ${merged})`
    const same = keys.map((k) => `m.${k} IS NOT DISTINCT FROM g.${k}`).join(' AND ')
    const filled = states.map((s) => `CASE WHEN m._hit THEN m.${s} ELSE z.${s} END AS ${s}`)
    const z = neutral()
    current = `(SELECT ${[...keys.map((k) => `g.${k}`), ...filled, 'true AS _hit'].join(', ')} FROM (SELECT * FROM ${bucketTable(view, query, range)} CROSS JOIN ${groups}) g LEFT JOIN ${merged} m ON ${same} CROSS JOIN ${z} z)`
  }
  let last = `(${presentSql(measures, [...keys, '_hit'], current)})`
  if (previous !== null) {
    ctes.push(`_pm AS (${mergedSql(view, query, source, previous, states)})`)
    ctes.push(`_pp AS (${presentSql(measures, [...keys, '_hit'], '_pm')})`)
    const range = { fromUs: query.range.fromUs!, toUs: query.range.toUs! }
    const pairs: string[] = dims.map((d) => `p.${d} IS NOT DISTINCT FROM c.${d}`)
    let pairing = ''
    if (bucket !== null) {
      ctes.push(`_bc AS ${bucketTable(view, query, range)}`, `_bp AS ${bucketTable(view, query, previous)}`)
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
    last = `(SELECT ${[...keys.map((k) => `c.${k}`), ...asked.map((m) => `c.${m}`), ...own].join(', ')} FROM ${last} c${pairing} LEFT JOIN _pp p ON ${pairs.join(' AND ') || 'true'}${extra})`
  }
  const label =
    bucket === null ? [] : [`${bucket.hop === null ? keyOf(view, bucket).label('_k') : '_k'} AS ${ident(bucket.name)}`]
  const out = columns.filter((c) => c.name !== bucket?.name).map((c) => ident(c.name))
  const answer = `(SELECT ${[...label, ...out].join(', ')} FROM ${last})`
  const ordered = new Set(query.orderBy.map((o) => o.column))
  const order = [
    ...query.orderBy.map((o) => `_a.${ident(o.column)} ${o.desc ? 'DESC' : 'ASC'} NULLS LAST`),
    ...[...(bucket === null ? [] : [bucket.name]), ...query.dimensions]
      .filter((c) => !ordered.has(c))
      .map((c) => `_a.${ident(c)} ASC NULLS LAST`),
  ]
  const tail = `${order.length === 0 ? '' : ` ORDER BY ${order.join(', ')}`}${query.limit === null ? '' : ` LIMIT ${query.limit + 1}`}`
  const lead = ctes.length === 0 ? '' : `WITH ${ctes.join(',\n')}\n`
  return { sql: `${lead}SELECT ${jsonList(columns, '_a')} FROM ${answer} _a${tail}`, columns }
}
