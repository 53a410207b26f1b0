/**
 * The reference query: plain one-pass SQL printed from a view and a query, by which every answer is judged.
 * Invariant: it shares no code with partial, merge, present or the answer's SQL (model/query/): buckets are the engine's own
 * time_bucket on the wall clock, measures are their published definitions, and rows are never combined in two steps.
 *
 * Slow and simple on purpose: day buckets and zones cost more here, quantiles sort all values.
 */
import { ident, literal } from '../ident.ts'
import type { Filter, ResolvedQuery, Scalar } from '../query/query.ts'
import type { View, ViewMeasure } from '../view.ts'

type Range = { fromUs: bigint | null; toUs: bigint | null }
type Bucket = NonNullable<ResolvedQuery['bucket']>

const SECOND = 1_000_000n
const WIDTHS: Record<string, bigint> = { second: SECOND, minute: 60n * SECOND, hour: 3600n * SECOND }
const DAYS: Record<string, number> = { day: 1, week: 7 }
const MONTHS: Record<string, number> = { month: 1, quarter: 3, year: 12 }

const dimension = (name: string): string => ident(`_d:${name}`)

/** The view's bucket of an event, by the engine's own function on zoneless UTC times. */
const viewBucket = (view: View, time: string): string => {
  const { us, months } = view.bucket!.grain
  const width = us === null ? `to_months(${months})` : `to_microseconds(${us})`
  return `make_timestamptz(epoch_us(time_bucket(${width}, make_timestamp(epoch_us(${time})))))`
}

const wallOf = (zone: string, instant: string): string =>
  zone === 'UTC' ? `make_timestamp(epoch_us(${instant}))` : `timezone(${literal(zone)}, ${instant})`

/** Label (TIMESTAMPTZ) of the asked bucket that an instant falls into. */
const label = ({ grain, timeZone }: Bucket, instant: string): string => {
  const wall = wallOf(timeZone, instant)
  const width = WIDTHS[grain.unit]
  if (width !== undefined) return elapsed(wall, instant, width * BigInt(grain.n))
  const interval =
    DAYS[grain.unit] === undefined
      ? `to_months(${MONTHS[grain.unit]! * grain.n})`
      : `to_days(${DAYS[grain.unit]! * grain.n})`
  const start = `time_bucket(${interval}, ${wall})`
  if (timeZone === 'UTC') return `make_timestamptz(epoch_us(${start}))`
  // The first instant at which the clock shows the start; where the clock skips it, what the engine makes of it.
  return `list_transform([${start}], lambda _ls: list_transform([timezone(${literal(timeZone)}, _ls)], lambda _li: coalesce(list_min(list_filter(list_transform(range(0, 13), lambda _ln: _li - to_minutes(15 * _ln)), lambda _lc: ${wallOf(timeZone, '_lc')} = _ls)), _li))[1])[1]`
}

/** How far the wall clock is past the start of its bucket is how far the instant is. */
const elapsed = (wall: string, instant: string, width: bigint): string =>
  `make_timestamptz(epoch_us(${instant}) - (epoch_us(${wall}) - epoch_us(time_bucket(to_microseconds(${width}), ${wall}))))`

/** All windows of a bucket start, one row each. */
const windows = ({ timeZone, hop }: Bucket, instant: string): string => {
  const { windowUs, everyUs } = hop!
  const latest = `epoch_us(${elapsed(wallOf(timeZone, instant), instant, everyUs)})`
  return `make_timestamptz(unnest(list_filter(generate_series(${latest} - ${(windowUs / everyUs) * everyUs}, ${latest}, ${everyUs}), lambda _ls: epoch_us(${instant}) < _ls + ${windowUs})))`
}

const value = (type: string, given: Scalar): string => {
  if (given === null) return `CAST(NULL AS ${type})`
  if (type === 'TIMESTAMPTZ') return `make_timestamptz(CAST(${literal(String(given))} AS BIGINT))`
  return `CAST(${literal(String(given))} AS ${type})`
}

const OPERATORS: Record<string, string> = { '=': '=', '!=': '<>', '<': '<', '<=': '<=', '>': '>', '>=': '>=' }

const condition = (view: View, filter: Filter): string => {
  if ('or' in filter) return `(${filter.or.map((f) => condition(view, f)).join(' OR ')})`
  if ('and' in filter) return `(${filter.and.map((f) => condition(view, f)).join(' AND ')})`
  if ('not' in filter) return `(NOT ${condition(view, filter.not)})`
  const { type } = view.dimensions.find((d) => d.name === filter.column)!
  const column = dimension(filter.column)
  const given = filter.value ?? null
  const one = (): string => value(type, given as Scalar)
  switch (filter.op) {
    case 'isNull':
      return `(${column} IS NULL)`
    case 'isNotNull':
      return `(${column} IS NOT NULL)`
    case 'in':
      return `(${(given as Scalar[]).map((v) => `${column} = ${value(type, v)}`).join(' OR ')})`
    case 'notIn':
      return `(${(given as Scalar[]).map((v) => `${column} <> ${value(type, v)}`).join(' AND ')})`
    case 'contains':
      return `(strpos(${column}, ${one()}) > 0)`
    case 'startsWith':
      return `(left(${column}, length(${one()})) = ${one()})`
    default:
      return `(${column} ${OPERATORS[filter.op]} ${one()})`
  }
}

const within = (start: string, range: Range): string[] => [
  ...(range.fromUs === null ? [] : [`epoch_us(${start}) >= ${range.fromUs}`]),
  ...(range.toUs === null ? [] : [`epoch_us(${start}) < ${range.toUs}`]),
]

const sqlType = (measure: ViewMeasure): string => (measure.type === 'COUNT' ? 'BIGINT' : measure.type)

/** Every label of a range, in order, with its ordinal: what `fill` and `compareTo` count by. */
const labels = (view: View, bucket: Bucket, range: { fromUs: bigint; toUs: bigint }): string => {
  const { us } = view.bucket!.grain
  const step = us ?? 86_400n * SECOND
  const starts = `SELECT ${viewBucket(view, 'make_timestamptz(_u)')} AS _b FROM (SELECT unnest(range(${range.fromUs}, ${range.toUs}, ${step})) AS _u)`
  const found =
    bucket.hop === null
      ? `SELECT DISTINCT ${label(bucket, '_b')} AS _k FROM (${starts})`
      : `SELECT DISTINCT _k FROM (SELECT ${windows(bucket, '_b')} AS _k FROM (${starts})) WHERE epoch_us(_k) >= ${range.fromUs} AND epoch_us(_k) + ${bucket.hop.windowUs} <= ${range.toUs}`
  return `SELECT _k, row_number() OVER (ORDER BY _k) AS _n FROM (${found})`
}

/**
 * SQL over decoded, counted rows. Its columns are the answer's: bucket, dimensions, measures, `<measure>_previous`, in that
 * order and with the view's types (COUNT as BIGINT); its rows are in the answer's order, at most `limit` of them.
 */
export const referenceSql = (view: View, query: ResolvedQuery, source: string): string => {
  const { bucket, previous } = query
  const measures = query.measures.map((name) => view.measures.find((m) => m.name === name)!)
  const dims = query.dimensions.map(dimension)
  const keys = [...(bucket === null ? [] : ['_k']), ...dims]
  const inner = [
    ...(view.bucket === null
      ? []
      : [`${view.bucket.column === undefined ? view.bucket.sql : viewBucket(view, ident(view.bucket.column))} AS _b`]),
    ...view.dimensions.map((d) => `${d.sql} AS ${dimension(d.name)}`),
  ]
  const rows = `SELECT *${inner.length === 0 ? '' : `, ${inner.join(', ')}`} FROM ${source}${view.where === null ? '' : ` WHERE ${view.where}`}`
  const values = measures.map((m) => `CAST(${m.reference} AS ${sqlType(m)}) AS ${ident(`_m:${m.name}`)}`)

  const aggregate = (range: Range): string => {
    const conditions = [
      ...(view.bucket === null ? [] : within('_b', range)),
      ...query.filters.map((f) => condition(view, f)),
    ]
    const chosen = `SELECT * FROM (${rows})${conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`}`
    let keyed = chosen
    if (bucket !== null)
      keyed = `SELECT *, ${bucket.hop === null ? label(bucket, '_b') : windows(bucket, '_b')} AS _k FROM (${chosen})`
    if (bucket?.hop) {
      const whole = [
        ...(range.fromUs === null ? [] : [`epoch_us(_k) >= ${range.fromUs}`]),
        ...(range.toUs === null ? [] : [`epoch_us(_k) + ${bucket.hop.windowUs} <= ${range.toUs}`]),
      ]
      keyed = `SELECT * FROM (${keyed})${whole.length === 0 ? '' : ` WHERE ${whole.join(' AND ')}`}`
    }
    const list = [...keys, ...values].join(', ') || '1'
    return `SELECT ${list} FROM (${keyed})${keys.length === 0 ? '' : ` GROUP BY ${keys.join(', ')}`}`
  }
  const nothing = (): string => `SELECT ${values.join(', ') || '1 AS _one'} FROM (${rows}) WHERE false`
  const same = (a: string, b: string, names: string[]): string =>
    names.map((k) => `${a}.${k} IS NOT DISTINCT FROM ${b}.${k}`).join(' AND ') || 'true'
  const names = measures.map((m) => ident(`_m:${m.name}`))
  const range = { fromUs: query.range.fromUs!, toUs: query.range.toUs! }

  let current = aggregate(query.range)
  if (query.fill && bucket !== null) {
    const groups = dims.length === 0 ? 'SELECT 1 AS _one' : `SELECT DISTINCT ${dims.join(', ')} FROM (${current})`
    const picked = names.map((n) => `CASE WHEN c._hit THEN c.${n} ELSE z.${n} END AS ${n}`)
    current = `SELECT ${[...keys.map((k) => `g.${k}`), ...picked].join(', ')} FROM (SELECT * FROM (${labels(view, bucket, range)}), (${groups})) g LEFT JOIN (SELECT *, true AS _hit FROM (${current})) c ON ${same('c', 'g', keys)} CROSS JOIN (${nothing()}) z`
  }
  if (previous !== null) {
    const before = `SELECT *, true AS _hit FROM (${aggregate(previous)})`
    const picked = names.map(
      (n) => `${query.fill ? `CASE WHEN p._hit THEN p.${n} ELSE z.${n} END` : `p.${n}`} AS ${n.replace('_m:', '_p:')}`,
    )
    const pairing =
      bucket === null
        ? `LEFT JOIN (${before}) p ON ${same('p', 'c', dims)}`
        : `LEFT JOIN (${labels(view, bucket, range)}) lc ON lc._k = c._k LEFT JOIN (${labels(view, bucket, previous)}) lp ON lp._n = lc._n LEFT JOIN (${before}) p ON p._k = lp._k AND ${same('p', 'c', dims)}`
    current = `SELECT ${['c.*', ...picked].join(', ')} FROM (${current}) c ${pairing} CROSS JOIN (${nothing()}) z`
  }
  const output: { from: string; to: string }[] = [
    ...(bucket === null ? [] : [{ from: '_k', to: bucket.name }]),
    ...query.dimensions.map((d) => ({ from: dimension(d), to: d })),
    ...measures.map((m) => ({ from: ident(`_m:${m.name}`), to: m.name })),
    ...(previous === null ? [] : measures.map((m) => ({ from: ident(`_p:${m.name}`), to: `${m.name}_previous` }))),
  ]
  const asked = query.orderBy.map((o) => `${ident(o.column)} ${o.desc ? 'DESC' : 'ASC'} NULLS LAST`)
  const rest = [...(bucket === null ? [] : [bucket.name]), ...query.dimensions]
    .filter((name) => !query.orderBy.some((o) => o.column === name))
    .map((name) => `${ident(name)} ASC NULLS LAST`)
  const order = [...asked, ...rest]
  const list = output.map(({ from, to }) => `${from} AS ${ident(to)}`).join(', ')
  return `SELECT * FROM (SELECT ${list} FROM (${current}))${order.length === 0 ? '' : ` ORDER BY ${order.join(', ')}`}${query.limit === null ? '' : ` LIMIT ${query.limit}`}`
}
