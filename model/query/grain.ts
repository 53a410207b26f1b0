/**
 * Grains: how bucket starts of a view fall into the buckets that a query asks for.
 * Invariant: `labelOf` here and the SQL of `buckets.ts` give the same label for every bucket start.
 *
 * Units under a day are elapsed time: counted from 2000-01-03 (a Monday) on the wall clock, at the zone's offset of that very
 * instant, so that a 25-hour day has 25 hours. A day and longer are calendar intervals of the zone: days and weeks counted from
 * 2000-01-03, months, quarters and years from 2000-01: the origins of DuckDB's time_bucket.
 */
import type { Grain, View } from '../view.ts'
import type { QueryGrain } from './query.ts'
import { floorMod } from './time.ts'
import { firstInstantAt, offsetSeconds, offsetsWithin, transitionsWithin } from './zone.ts'

const SECOND = 1_000_000n
export const DAY_US = 86_400n * SECOND
/** 2000-01-03T00:00:00Z, µs. */
export const ORIGIN_US = 946_857_600n * SECOND

const FIXED: Partial<Record<QueryGrain['unit'], bigint>> = {
  second: SECOND,
  minute: 60n * SECOND,
  hour: 3_600n * SECOND,
  day: DAY_US,
  week: 7n * DAY_US,
}
const MONTHS: Partial<Record<QueryGrain['unit'], number>> = { month: 1, quarter: 3, year: 12 }

/** `<n> <unit>` or a unit alone; null when it is neither. */
export const parseGrain = (text: string): QueryGrain | null => {
  const found = /^\s*(?:(\d{1,6})\s*)?(second|minute|hour|day|week|month|quarter|year)s?\s*$/i.exec(text)
  if (!found) return null
  const n = Number(found[1] ?? '1')
  return n === 0 ? null : { unit: found[2]!.toLowerCase() as QueryGrain['unit'], n }
}

export const printGrain = ({ n, unit }: QueryGrain): string => `${n} ${unit}${n === 1 ? '' : 's'}`

/** Width as elapsed time; null for months and longer. Days and weeks count 24 hours each. */
export const widthUs = ({ n, unit }: QueryGrain): bigint | null => {
  const one = FIXED[unit]
  return one === undefined ? null : one * BigInt(n)
}
export const isCalendar = ({ unit }: QueryGrain): boolean => !['second', 'minute', 'hour'].includes(unit)
export const monthsOf = ({ n, unit }: QueryGrain): number | null => {
  const one = MONTHS[unit]
  return one === undefined ? null : one * n
}

/** A length of time in its largest whole unit. */
export const grainOfUs = (us: bigint): QueryGrain | null => {
  for (const unit of ['week', 'day', 'hour', 'minute', 'second'] as const)
    if (us > 0n && us % FIXED[unit]! === 0n) return { unit, n: Number(us / FIXED[unit]!) }
  return null
}

/** The view's own grain in the words of queries; null when it is finer than a second. */
export const viewGrain = (grain: Grain): QueryGrain | null => {
  if (grain.months === null) return grainOfUs(grain.us!)
  if (grain.months % 12 === 0) return { unit: 'year', n: grain.months / 12 }
  return grain.months % 3 === 0 ? { unit: 'quarter', n: grain.months / 3 } : { unit: 'month', n: grain.months }
}

const gcd = (a: bigint, b: bigint): bigint => (b === 0n ? (a < 0n ? -a : a) : gcd(b, a % b))
const seconds = (us: bigint): number => Number((us - floorMod(us, SECOND)) / SECOND)

type Span = { fromUs: bigint; toUs: bigint }
/** Clocks keep the rules of these years beyond them; looking further would only take longer. */
const RULES = { from: 0, to: Date.UTC(2050, 0, 1) / 1000 }
const within = ({ fromUs, toUs }: Span): [number, number] => {
  const from = seconds(fromUs)
  const to = seconds(toUs) + 1
  const long = to - from > RULES.to - RULES.from
  return long ? [Math.max(from, RULES.from), Math.min(to, RULES.to)] : [from, to]
}

const cached = <T>(make: (zone: string, from: number, to: number) => T): ((zone: string, span: Span) => T) => {
  const known = new Map<string, T>()
  return (zone, span) => {
    const [from, to] = within(span)
    const key = `${zone} ${from} ${to}`
    const found = known.get(key) ?? make(zone, from, to)
    if (known.size > 256) known.clear()
    known.set(key, found)
    return found
  }
}
const offsetsIn = cached(offsetsWithin)
const transitionsIn = cached(transitionsWithin)

export const hasConstantOffset = (zone: string, range: Span): boolean => offsetsIn(zone, range).size === 1

/**
 * Whether every boundary of the asked grain in the range is a boundary of the view's; if not, the coarsest grain of a view
 * that would do.
 */
export const nests = (
  view: Grain,
  grain: QueryGrain,
  zone: string,
  range: { fromUs: bigint; toUs: bigint },
): { fits: true } | { fits: false; needed: string } => {
  const offsets = offsetsIn(zone, range)
  const months = monthsOf(grain)
  const inUtc = offsets.size === 1 && offsets.has(0)
  // Month boundaries are midnights, and any midnight of the calendar may be one.
  let need = months === null ? widthUs(grain)! : DAY_US
  for (const offset of offsets) need = gcd(need, BigInt(offset) * SECOND)
  if (!isCalendar(grain) && offsets.size > 1)
    for (const at of transitionsIn(zone, range)) need = gcd(need, BigInt(at) * SECOND - ORIGIN_US)
  const fits = view.months === null ? need % view.us! === 0n : months !== null && inUtc && months % view.months === 0
  if (fits) return { fits }
  const needed = months !== null && inUtc ? '1 day' : printGrain(grainOfUs(need) ?? { unit: 'second', n: 1 })
  return { fits, needed }
}

/** Wall-clock start (µs, read as if UTC) of the calendar bucket around a wall-clock time. */
const calendarStart = (grain: QueryGrain, wallUs: bigint): bigint => {
  const months = monthsOf(grain)
  if (months === null) return wallUs - floorMod(wallUs - ORIGIN_US, widthUs(grain)!)
  const date = new Date(seconds(wallUs) * 1000)
  const index = (date.getUTCFullYear() - 2000) * 12 + date.getUTCMonth()
  return monthStart(index - (((index % months) + months) % months))
}
/** µs of the first of a month, counted from 2000-01. */
const monthStart = (index: number): bigint => BigInt(Date.UTC(2000, index, 1)) * 1000n

/** What the zone's clock shows, read as if UTC. */
export const wallClock = (zone: string, us: bigint): bigint => us + BigInt(offsetSeconds(zone, seconds(us))) * SECOND
const instantOf = (zone: string, wallUs: bigint): bigint => BigInt(firstInstantAt(zone, seconds(wallUs))) * SECOND

/** Label (start) of the bucket that holds an instant. */
export const labelOf = (grain: QueryGrain, zone: string, us: bigint): bigint => {
  const wall = wallClock(zone, us)
  if (isCalendar(grain)) return instantOf(zone, calendarStart(grain, wall))
  return us - floorMod(wall - ORIGIN_US, widthUs(grain)!)
}

/** The first instant after `us` that falls into another bucket. */
export const nextBoundary = (grain: QueryGrain, zone: string, us: bigint): bigint => {
  const wall = wallClock(zone, us)
  if (isCalendar(grain)) {
    const months = monthsOf(grain)
    const start = calendarStart(grain, wall)
    if (months === null) return instantOf(zone, start + widthUs(grain)!)
    const date = new Date(seconds(start) * 1000)
    return instantOf(zone, monthStart((date.getUTCFullYear() - 2000) * 12 + date.getUTCMonth() + months))
  }
  const width = widthUs(grain)!
  const next = us - floorMod(wall - ORIGIN_US, width) + width
  for (const at of transitionsWithin(zone, seconds(us), seconds(next) + 1)) {
    const jump = BigInt(at) * SECOND
    if (jump > us && jump < next && labelOf(grain, zone, jump) !== next - width) return jump
  }
  return next
}

/** The boundary at or before `us`. */
export const boundaryAt = (grain: QueryGrain, zone: string, us: bigint): bigint => {
  const label = labelOf(grain, zone, us)
  if (isCalendar(grain) || zone === 'UTC') return label
  // After a jump of the clock the label may lie before the bucket's first instant.
  let start = label
  for (const at of transitionsWithin(zone, seconds(label) - 86_400, seconds(us) + 1)) {
    const jump = BigInt(at) * SECOND
    if (jump > start && jump <= us && labelOf(grain, zone, jump - 1n) !== label) start = jump
  }
  return start
}

/** Moves a boundary back by a length: calendar units on the wall clock (the last day of a month at most), others elapsed. */
export const stepBack = (length: QueryGrain, zone: string, us: bigint, times = 1): bigint => {
  if (!isCalendar(length)) return us - widthUs(length)! * BigInt(times)
  const wall = wallClock(zone, us)
  const months = monthsOf(length)
  if (months === null) return instantOf(zone, wall - widthUs(length)! * BigInt(times)) + floorMod(us, SECOND)
  const date = new Date(seconds(wall) * 1000)
  const index = (date.getUTCFullYear() - 2000) * 12 + date.getUTCMonth() - months * times
  const within = wall - monthStart(index + months * times)
  const room = monthStart(index + 1) - monthStart(index)
  const moved = monthStart(index) + (within < room ? within : room - DAY_US + floorMod(within, DAY_US))
  return instantOf(zone, moved) + floorMod(us, SECOND)
}

/** First instants of all buckets in `[from, to)`, or null when there are more than `most`. */
export const boundaries = (
  grain: QueryGrain,
  zone: string,
  range: { fromUs: bigint; toUs: bigint },
  most: number,
): bigint[] | null => {
  const out: bigint[] = []
  for (let at = range.fromUs; at < range.toUs; at = nextBoundary(grain, zone, at)) {
    if (out.length >= most) return null
    out.push(at)
  }
  return out
}

/** Bucket starts of the view that an answer covers when the query sets no range. */
export const possibleRange = (dataset: { eventTimeRangeUs: { from: bigint; to: bigint } }) => ({
  fromUs: dataset.eventTimeRangeUs.from,
  toUs: dataset.eventTimeRangeUs.to,
})

export const grainText = (view: View): string => {
  const own = view.bucket === null ? null : viewGrain(view.bucket.grain)
  return own === null ? 'none' : printGrain(own)
}
