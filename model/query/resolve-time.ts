/**
 * The times of a query: zone, range, windows, comparison. Part of resolve.ts.
 * Invariant: every range that comes out lies on bucket boundaries of the view, so it chooses whole cells.
 */
import type { Dataset } from '../dataset.ts'
import type { View } from '../view.ts'
import { badQuery } from './errors.ts'
import {
  boundaries,
  boundaryAt,
  grainText,
  hasConstantOffset,
  isCalendar,
  nests,
  nextBoundary,
  parseGrain,
  possibleRange,
  printGrain,
  stepBack,
  viewGrain,
  widthUs,
} from './grain.ts'
import type { Query, QueryGrain, ResolvedQuery } from './query.ts'
import { formatTime, parseTime } from './time.ts'
import { knownZone } from './zone.ts'

export type Timing = {
  query: Query
  view: View
  dataset: Dataset
  /** Null: no bucket in the answer. */
  grain: QueryGrain | null
  zone: string
  nowMs: number
  /** Most buckets that may be listed one by one. */
  most: number
}
type Range = ResolvedQuery['range']
type Hop = { windowUs: bigint; everyUs: bigint }

const MAX_WINDOW_STEPS = 1_000n

export const zoneOf = (zone: string | undefined): string => {
  if (zone === undefined) return 'UTC'
  if (knownZone(zone)) return zone
  throw badQuery('ZONE', `The time zone ${JSON.stringify(zone)} is not known.`, {
    expected: 'an IANA name such as Europe/Berlin, or UTC',
    got: zone,
    next: 'see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones',
  })
}

const checkNesting = ({ view, dataset, zone }: Timing, grain: QueryGrain, range: Range): void => {
  const possible = possibleRange(dataset)
  const within = { fromUs: range.fromUs ?? possible.fromUs, toUs: range.toUs ?? possible.toUs }
  const result = nests(view.bucket!.grain, grain, zone, within)
  if (result.fits) return
  throw badQuery(
    'GRAIN',
    `Buckets of ${printGrain(grain)} in ${zone} cannot be made of the view's ${grainText(view)}.`,
    {
      expected: `a view with a grain of ${result.needed} (or a part of it)`,
      got: `${view.name} with a grain of ${grainText(view)}`,
      next: 'ask for a grain and zone whose boundaries are boundaries of the view, or add a view with the finer grain',
    },
  )
}

/** Ranges choose whole buckets of the view: its boundaries are counted in UTC, whatever zone the answer's buckets are in. */
const aligned = (text: string, which: 'from' | 'to', timing: Timing, own: QueryGrain): bigint => {
  const us = parseTime(text, timing.zone)
  if (us === null)
    throw badQuery('TIME', `timeRange.${which} is no time.`, {
      expected: 'an RFC 3339 time such as 2026-11-24T10:00:00Z, or a date',
      got: text,
    })
  const before = boundaryAt(own, 'UTC', us)
  if (before === us) return us
  const after = nextBoundary(own, 'UTC', us)
  throw badQuery('TIME', `timeRange.${which} lies inside a bucket of ${timing.view.name}.`, {
    expected: `${formatTime(before)} or ${formatTime(after)}`,
    got: formatTime(us),
    next: `move it to one of the two: the grain of the view is ${printGrain(own)}`,
  })
}

/** Range on the view's bucket starts, aligned; and whether the asked grain nests in the view's within it. */
export const resolveRange = (timing: Timing): Range => {
  const { query, view, grain } = timing
  const asked = query.timeRange
  if (view.bucket === null) {
    if (asked !== undefined)
      throw badQuery('TIME', `${view.name} has no time bucket, so no range can be chosen.`, {
        expected: 'no timeRange',
        next: 'leave timeRange out, or add time_bucket(…) to the view',
      })
    return { fromUs: null, toUs: null }
  }
  const own = viewGrain(view.bucket.grain)
  if (own === null)
    throw badQuery('GRAIN', `The grain of ${view.name} is finer than a second.`, {
      expected: 'a view grain of whole seconds',
      got: view.bucket.grain.interval,
      next: 'ask another view',
    })
  const range: Range = { fromUs: null, toUs: null }
  if (asked !== undefined && 'last' in asked) Object.assign(range, lastRange(asked.last, timing, own))
  else if (asked !== undefined) {
    if (asked.from !== undefined) range.fromUs = aligned(asked.from, 'from', timing, own)
    if (asked.to !== undefined) range.toUs = aligned(asked.to, 'to', timing, own)
  }
  if (range.fromUs !== null && range.toUs !== null && range.fromUs >= range.toUs)
    throw badQuery('TIME', 'timeRange is empty.', {
      expected: 'from before to',
      got: `${formatTime(range.fromUs)} – ${formatTime(range.toUs)}`,
    })
  if (grain !== null) checkNesting(timing, grain, range)
  return range
}

/** A length up to now, outward to whole buckets of the answer (of the view, when the answer has none). */
const lastRange = (text: string, timing: Timing, own: QueryGrain): Range => {
  const unit = timing.grain ?? own
  const zone = timing.grain === null ? 'UTC' : timing.zone
  const length = parseGrain(text)
  if (length === null)
    throw badQuery('TIME', `timeRange.last is no length of time.`, {
      expected: '<n> second|minute|hour|day|week|month|quarter|year',
      got: text,
      next: 'for example "24 hours"',
    })
  const nowUs = BigInt(Math.trunc(timing.nowMs)) * 1000n
  // A grain that does not nest is refused before its boundaries are used.
  if (timing.grain !== null) checkNesting(timing, unit, { fromUs: stepBack(length, timing.zone, nowUs), toUs: nowUs })
  const floor = boundaryAt(unit, zone, nowUs)
  const toUs = floor === nowUs ? nowUs : nextBoundary(unit, zone, nowUs)
  return { fromUs: boundaryAt(unit, zone, stepBack(length, timing.zone, nowUs)), toUs }
}

const fixedLength = (which: 'window' | 'every', text: string, grain: QueryGrain): bigint => {
  const length = parseGrain(text)
  const us = length === null ? null : widthUs(length)
  const unit = widthUs(grain)
  if (us !== null && unit !== null && us % unit === 0n) return us
  throw badQuery('WINDOW', `${which} ${JSON.stringify(text)} is no multiple of the grain.`, {
    expected: `a multiple of ${printGrain(grain)} in seconds, minutes, hours, days or weeks`,
    got: text,
    next: 'months and longer have no fixed width: use them as grain',
  })
}

/** Hopping windows: labelled by their start, only those wholly inside the range. */
export const resolveHop = (timing: Timing, range: Range): Hop | null => {
  const { query, grain, zone, dataset } = timing
  if (query.window === undefined && query.every === undefined) return null
  if (query.window === undefined || grain === null)
    throw badQuery('WINDOW', grain === null ? 'Windows need a grain.' : 'every without window.', {
      expected: 'window, and a grain other than "all"',
      next: query.window === undefined ? 'say how long each window is' : 'name a grain',
    })
  const windowUs = fixedLength('window', query.window, grain)
  const everyUs = fixedLength('every', query.every ?? printGrain(grain), grain)
  if (windowUs / everyUs > MAX_WINDOW_STEPS)
    throw badQuery('WINDOW', 'Each event would count in too many windows.', {
      expected: `window at most ${MAX_WINDOW_STEPS} times every`,
      got: String(windowUs / everyUs),
      next: 'make every longer',
    })
  const possible = possibleRange(dataset)
  checkClock(zone, { fromUs: range.fromUs ?? possible.fromUs, toUs: range.toUs ?? possible.toUs })
  return { windowUs, everyUs }
}

const checkClock = (zone: string, range: { fromUs: bigint; toUs: bigint }): void => {
  if (!hasConstantOffset(zone, range))
    throw badQuery('WINDOW', `Clocks change in ${zone} within the range, so its windows have no fixed width.`, {
      expected: 'a range without a change of clocks, or the time zone UTC',
      got: zone,
      next: 'leave timeZone out, or ask for the parts before and after the change',
    })
}

/** The range of as many buckets (or of the same length, without buckets) right before. */
export const resolvePrevious = (timing: Timing, range: Range, hop: Hop | null): ResolvedQuery['previous'] => {
  const { query, grain, zone, most } = timing
  if (query.compareTo === undefined) return null
  if (range.fromUs === null || range.toUs === null)
    throw badQuery('COMPARE', 'compareTo needs a range with both ends.', {
      expected: 'timeRange: { from, to } or { last }',
      next: 'set timeRange',
    })
  const { fromUs, toUs } = { fromUs: range.fromUs, toUs: range.toUs }
  const before = (from: bigint): { fromUs: bigint; toUs: bigint } => {
    const previous = { fromUs: from, toUs: fromUs }
    if (grain !== null) checkNesting(timing, grain, previous)
    if (hop !== null) checkClock(zone, previous)
    return previous
  }
  if (grain === null) {
    const own = viewGrain(timing.view.bucket!.grain)!
    const buckets = own && widthUs(own) === null ? countOf(own, 'UTC', fromUs, toUs, most) : 0
    return before(buckets > 0 ? stepBack(own, 'UTC', fromUs, buckets) : fromUs - (toUs - fromUs))
  }
  const buckets = countOf(grain, zone, fromUs, toUs, most)
  if (hop !== null || !isCalendar(grain)) return before(fromUs - (toUs - fromUs))
  // As many buckets before, but never off the view's own boundaries.
  return before(boundaryAt(viewGrain(timing.view.bucket!.grain)!, 'UTC', stepBack(grain, zone, fromUs, buckets)))
}

const countOf = (grain: QueryGrain, zone: string, fromUs: bigint, toUs: bigint, most: number): number => {
  const list = boundaries(grain, zone, { fromUs, toUs }, most)
  if (list !== null) return list.length
  throw badQuery('COMPARE', 'The range has too many buckets to compare.', {
    expected: `at most ${most} buckets`,
    next: 'ask for a coarser grain or a narrower range',
  })
}
