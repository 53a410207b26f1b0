/**
 * Bucket labels as SQL, the twin of grain.ts. Invariant: for every bucket start of the view, `bucketLabel` of `bucketKey`
 * is `labelOf` of grain.ts, and equal keys are equal labels.
 */
import { ident, literal } from '../ident.ts'
import { isCalendar, monthsOf, ORIGIN_US, widthUs } from './grain.ts'
import type { QueryGrain, ResolvedQuery } from './query.ts'

type Bucket = NonNullable<ResolvedQuery['bucket']>

const wall = (sql: string, zone: string): string => `(${sql} AT TIME ZONE ${literal(zone)})`

/** Whether keys ask the zone's rules or the calendar for every value: a hundred times what plain arithmetic costs. */
export const isCostly = (grain: QueryGrain, zone: string): boolean => zone !== 'UTC' || monthsOf(grain) !== null

/** Event times lie in the years 0001 to 9999: more than this many µs before the origin there is none. */
const BEFORE_US = 1n << 57n
/** To be added to a time to get a positive number of µs since a start of a bucket. */
const shiftOf = (width: bigint): bigint => (BEFORE_US / width + 1n) * width - ORIGIN_US

/** `time − ((wall − origin) mod width)`, as µs; the engine's division rounds towards zero, so it gets no negative number. */
const floored = (sql: string, zone: string, width: bigint): string => {
  const us = `epoch_us(${sql})`
  const shift = shiftOf(width)
  if (zone === 'UTC') return `((${us} + ${shift}) // ${width} * ${width} - ${shift})`
  return `(${us} - (epoch_us(${wall(sql, zone)}) + ${shift}) % ${width})`
}

/** What rows are grouped by: the label itself, or for calendar buckets of a zone its wall-clock start (cheaper). */
export const bucketKey = (grain: QueryGrain, zone: string, sql: string): string => {
  const months = monthsOf(grain)
  const width = widthUs(grain)
  if (width !== null && (!isCalendar(grain) || zone === 'UTC')) return `make_timestamptz(${floored(sql, zone, width)})`
  const interval = months === null ? `to_days(${grain.n * (grain.unit === 'week' ? 7 : 1)})` : `to_months(${months})`
  return `time_bucket(${interval}, ${wall(sql, zone)})`
}

/** TIMESTAMPTZ label of a key. Midnight may strike twice when clocks go back: the first one counts. */
export const bucketLabel = (grain: QueryGrain, zone: string, key: string): string => {
  if (widthUs(grain) !== null && (!isCalendar(grain) || zone === 'UTC')) return key
  const instant = wall(key, zone)
  if (zone === 'UTC') return instant
  const earlier = `(${instant} - INTERVAL '1 hour')`
  return `(CASE WHEN ${wall(earlier, zone)} = ${key} THEN ${earlier} ELSE ${instant} END)`
}

/**
 * Starts (µs, one row each) of the hopping windows that hold a bucket start. The zone's offset is constant in the range
 * (resolve.ts sees to it), so starts are counted on the wall clock like all others.
 */
export const hopStarts = (bucket: Bucket, sql: string): string => {
  const { windowUs, everyUs } = bucket.hop!
  const last = floored(sql, bucket.timeZone, everyUs)
  const steps = (windowUs + everyUs - 1n) / everyUs
  return `unnest(list_filter(list_transform(range(${steps}), lambda i: ${last} - i * ${everyUs}), lambda s: s + ${windowUs} > epoch_us(${sql})))`
}

export const timestamptz = (us: bigint): string => `make_timestamptz(${us}::BIGINT)`

/** Condition on the view's bucket starts. */
export const rangeSql = (column: string, range: { fromUs: bigint | null; toUs: bigint | null }): string[] => [
  ...(range.fromUs === null ? [] : [`${column} >= ${timestamptz(range.fromUs)}`]),
  ...(range.toUs === null ? [] : [`${column} < ${timestamptz(range.toUs)}`]),
]

export const dimensionList = (names: string[]): string[] => names.map(ident)
