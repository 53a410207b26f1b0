/** Random queries about the takings view: ranges, zones, grains, filters, windows, fill, comparison, order, limits. */
import type { Random } from '../../cli/random.ts'
import type { Filter, Query } from '../../model/query/query.ts'
import { HOUR, START } from './support.ts'

const subset = <T>(r: Random, list: readonly T[], least: number): T[] => {
  const out = list.filter(() => r.chance(0.5))
  return out.length >= least ? out : list.slice(0, least)
}

const leaf = (r: Random): Filter => {
  const kind = r.int(0, 6)
  if (kind === 0) return { column: 'country', op: 'in', value: [r.pick(['DE', '東京', '', null]), "O'Hara"] }
  if (kind === 1)
    return { column: 'country', op: r.pick(['startsWith', 'contains']), value: r.pick(['D', '京', "'", '']) }
  if (kind === 2) return { column: r.pick(['country', 'shop', 'paid']), op: r.pick(['isNull', 'isNotNull']) }
  if (kind === 3) return { column: 'paid', op: r.pick(['=', '!=']), value: r.chance(0.5) }
  if (kind === 4) return { column: 'shop', op: r.pick(['<', '>=', '=']), value: r.int(1, 4) }
  return { column: 'country', op: r.pick(['=', '!=', '<', '>']), value: r.pick(['DE', 'FR', '']) }
}
const filter = (r: Random, depth: number): Filter => {
  if (depth === 0 || r.chance(0.5)) return leaf(r)
  const parts = [filter(r, depth - 1), filter(r, depth - 1)]
  return r.pick([{ or: parts }, { and: parts }, { not: parts[0]! }] as Filter[])
}

const iso = (ms: number): string => new Date(ms).toISOString()
const at = (hours: number): string => iso(Math.floor(START / HOUR) * HOUR + hours * HOUR)

export const MEASURES = ['sold', 'total', 'largest', 'mean', 'buyers', 'last_country', 'each']

export const takingsQuery = (r: Random): Query => {
  const measures = subset(r, MEASURES, 1)
  const dimensions = subset(r, ['country', 'shop', 'paid'], 0)
  const kind = r.int(0, 5)
  const timeRange =
    kind === 0
      ? undefined
      : kind === 1
        ? { from: at(-r.int(1, 60)) }
        : kind === 2
          ? { last: r.pick(['3 hours', '2 days', '1 week']) }
          : { from: at(-r.int(5, 60)), to: at(r.int(-4, 3)) }
  const bounded = timeRange !== undefined && ('last' in timeRange || 'to' in timeRange)
  const grain = r.pick([undefined, '1 hour', '5 hours', '1 day', '1 week', '1 month', 'all'])
  const windowed = (grain === undefined || grain === '1 hour') && r.chance(0.3)
  const timeZone = r.chance(0.5) ? r.pick(['Europe/Berlin', 'America/New_York', 'Asia/Tokyo']) : undefined
  const hop = windowed && (timeZone === undefined || bounded || timeZone === 'Asia/Tokyo')
  const compare = bounded && r.chance(0.3)
  return {
    view: 'takings',
    measures,
    dimensions,
    ...(timeRange === undefined ? {} : { timeRange }),
    ...(grain === undefined ? {} : { grain }),
    ...(timeZone === undefined ? {} : { timeZone }),
    ...(r.chance(0.5) ? { filters: [filter(r, 2)] } : {}),
    ...(hop ? { window: r.pick(['2 hours', '5 hours']), every: r.pick(['1 hour', '2 hours']) } : {}),
    ...(bounded && grain !== 'all' && r.chance(0.3) ? { fill: true } : {}),
    ...(compare ? { compareTo: 'previous' as const } : {}),
    ...(r.chance(0.3) ? { orderBy: [{ column: r.pick(measures), desc: r.chance(0.5) }] } : {}),
    limit: r.chance(0.2) ? r.int(1, 8) : 100_000,
  }
}
