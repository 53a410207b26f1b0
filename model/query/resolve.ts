/**
 * A client's query against a view → `ResolvedQuery`, or an error that teaches.
 * Invariant: what comes out names only what the view has, its range lies on bucket boundaries of the view, and its grain nests in
 * the view's: every answer to it is a sum of whole cells.
 */
import type { Dataset } from '../dataset.ts'
import { literal } from '../ident.ts'
import type { View } from '../view.ts'
import { badQuery, distinctNames, knownName } from './errors.ts'
import { checkFilters } from './filter.ts'
import { boundaries, grainText, parseGrain, printGrain, viewGrain } from './grain.ts'
import type { Filter, Query, QueryGrain, ResolvedQuery } from './query.ts'
import { resolveHop, resolvePrevious, resolveRange, type Timing, zoneOf } from './resolve-time.ts'

export type QueryLimits = { defaultLimit: number; maxLimit: number }
export type ResolveOptions = {
  /** Clock for `last`, ms. */
  nowMs: number
  limits: QueryLimits
  /** Filters that the caller's key forces. */
  forced?: Record<string, string>
}

const grainOf = (query: Query, view: View): QueryGrain | null => {
  if (view.bucket === null) {
    if (query.grain !== undefined && query.grain !== 'all')
      throw badQuery('GRAIN', `${view.name} has no time bucket.`, {
        expected: 'no grain',
        got: query.grain,
        next: 'leave grain out, or add time_bucket(…) to the view',
      })
    return null
  }
  if (query.grain === 'all') return null
  const own = viewGrain(view.bucket.grain)
  const asked = query.grain === undefined || query.grain === view.bucket.grain.interval ? own : parseGrain(query.grain)
  if (asked === null)
    throw badQuery('GRAIN', `${query.grain ?? view.bucket.grain.interval} is no grain.`, {
      expected: '<n> second|minute|hour|day|week|month|quarter|year, or "all" for one row',
      got: query.grain ?? view.bucket.grain.interval,
      next: `the view's own is ${grainText(view)}`,
    })
  return asked
}

const forcedFilters = (forced: Record<string, string> | undefined, view: View): Filter[] =>
  Object.entries(forced ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([column, value]) => {
      if (view.dimensions.some((d) => d.name === column)) return { column, op: '=', value }
      throw badQuery(
        'FORCED',
        `This key sees only rows of its own ${column}, and ${view.name} does not tell them apart.`,
        {
          expected: `a view with the dimension ${column}`,
          got: view.name,
          next: 'ask another view, or use another key',
        },
      )
    })

const limitOf = (query: Query, limits: QueryLimits): number => {
  const limit = query.limit ?? Math.min(limits.defaultLimit, limits.maxLimit)
  if (Number.isInteger(limit) && limit >= 1 && limit <= limits.maxLimit) return limit
  throw badQuery('LIMIT', `limit ${limit} is not possible.`, {
    expected: `a whole number from 1 to ${limits.maxLimit}`,
    got: String(limit),
    next: 'ask for a coarser grain, fewer dimensions or a narrower range',
  })
}

/** Throws `WEIR_MODEL_QUERY_*` for anything that does not fit. */
export const resolveQuery = (query: Query, view: View, dataset: Dataset, options: ResolveOptions): ResolvedQuery => {
  const measureNames = view.measures.map((m) => m.name)
  const dimensionNames = view.dimensions.map((d) => d.name)
  const measures = distinctNames('measure', query.measures ?? measureNames)
  for (const name of measures) {
    if (dimensionNames.includes(name))
      throw badQuery('NAME', `${name} is a dimension.`, {
        expected: measureNames.join(', '),
        next: 'move it to dimensions',
      })
    knownName('measure', name, measureNames)
  }
  const dimensions = distinctNames('dimension', query.dimensions ?? dimensionNames)
  for (const name of dimensions) {
    if (name === view.bucket?.name)
      throw badQuery('NAME', `${name} is the view's bucket.`, {
        expected: dimensionNames.join(', ') || 'no dimension',
        next: 'leave it out: the answer has it unless grain is "all"',
      })
    if (measureNames.includes(name))
      throw badQuery('NAME', `${name} is a measure.`, {
        expected: dimensionNames.join(', '),
        next: 'move it to measures',
      })
    knownName('dimension', name, dimensionNames)
  }
  const zone = zoneOf(query.timeZone)
  const grain = grainOf(query, view)
  if (measures.length + dimensions.length === 0 && grain === null)
    throw badQuery('NAME', 'The query asks for nothing.', {
      expected: 'at least one measure, dimension or a grain',
      next: `name a measure: ${measureNames.join(', ')}`,
    })
  const timing: Timing = { query, view, dataset, grain, zone, nowMs: options.nowMs, most: options.limits.maxLimit }
  const range = resolveRange(timing)
  const hop = resolveHop(timing, range)
  const previous = resolvePrevious(timing, range, hop)
  if (query.fill === true) checkFill(timing, range)
  const filters = [
    ...checkFilters(query.filters ?? [], {
      dimensions: view.dimensions,
      measures: measureNames,
      bucket: view.bucket?.name ?? null,
      zone,
    }),
    ...checkFilters(forcedFilters(options.forced, view), {
      dimensions: view.dimensions,
      measures: measureNames,
      bucket: null,
      zone: 'UTC',
    }),
  ]
  const columns = [
    ...(grain === null ? [] : [view.bucket!.name]),
    ...dimensions,
    ...measures,
    ...(previous === null ? [] : measures.map((m) => `${m}_previous`)),
  ]
  distinctNames('column', columns)
  const orderBy = (query.orderBy ?? []).map(({ column, desc }) => ({
    column: knownName('column of the answer', column, columns),
    desc: desc ?? false,
  }))
  if (new Set(orderBy.map((o) => o.column)).size < orderBy.length)
    throw badQuery('ORDER', 'orderBy names a column twice.', { expected: 'each column once' })
  return {
    view: view.name,
    version: view.version,
    measures,
    dimensions,
    bucket: grain === null ? null : { name: view.bucket!.name, grain, timeZone: zone, hop },
    range,
    filters,
    orderBy,
    limit: limitOf(query, options.limits),
    fill: query.fill === true && grain !== null,
    previous,
  }
}

const checkFill = ({ grain, zone, most }: Timing, range: ResolvedQuery['range']): void => {
  if (grain === null)
    throw badQuery('FILL', 'fill fills buckets, and the query asks for none.', {
      expected: 'a grain other than "all"',
      next: 'leave fill out',
    })
  if (range.fromUs === null || range.toUs === null)
    throw badQuery('FILL', 'fill wants to know where to begin and to end.', {
      expected: 'timeRange: { from, to } or { last }',
      got: `from ${range.fromUs === null ? 'nothing' : 'set'}, to ${range.toUs === null ? 'nothing' : 'set'}`,
      next: 'set both ends of timeRange',
    })
  if (boundaries(grain, zone, { fromUs: range.fromUs, toUs: range.toUs }, most) === null)
    throw badQuery('FILL', 'The range has too many buckets to fill.', {
      expected: `at most ${most} buckets`,
      next: 'ask for a coarser grain or a narrower range',
    })
}

/** Stable text of a resolved query: equal ones, and only those, give equal text. */
export const resolvedText = (query: ResolvedQuery): string =>
  JSON.stringify(query, (_, value) => (typeof value === 'bigint' ? `${value}n` : value))

export const describeGrain = (query: ResolvedQuery): string =>
  query.bucket === null ? 'all' : `${printGrain(query.bucket.grain)} in ${literal(query.bucket.timeZone)}`
