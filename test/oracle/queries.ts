/** Random queries over a compiled view. Invariant: each is well-formed for the view, so a refusal by the resolver is a failure. */
import type { Random } from '../../cli/random.ts'
import type { Filter, Query } from '../../model/query/query.ts'
import type { View } from '../../model/view.ts'

const some = <T>(r: Random, list: readonly T[], least: number): T[] => {
  const out = list.filter(() => r.chance(0.6))
  return out.length >= least ? out : list.slice(0, least)
}

const VALUES: Record<string, (r: Random) => string | number | boolean> = {
  VARCHAR: (r) => r.pick(['a', 'B', '', 'é😀', '～', "o'x\n", 'x', 'y', '12.5', 'none']),
  INTEGER: (r) => r.pick([0, 1, 2, -7, 2147483647, 5]),
  BOOLEAN: (r) => r.chance(0.5),
  DATE: (r) => r.pick(['2026-11-24', '1999-12-31', '2000-01-01']),
}

const leaf = (r: Random, view: View): Filter | null => {
  const dimension = view.dimensions.length ? r.pick(view.dimensions) : null
  if (dimension === null) return null
  const value = VALUES[dimension.type]
  const column = dimension.name
  if (value === undefined || r.chance(0.2)) return { column, op: r.chance(0.5) ? 'isNull' : 'isNotNull' }
  const kind = r.int(0, 4)
  if (kind === 0) return { column, op: r.chance(0.5) ? 'in' : 'notIn', value: [value(r), value(r)] }
  if (kind === 1 && dimension.type === 'VARCHAR')
    return { column, op: r.chance(0.5) ? 'contains' : 'startsWith', value: value(r) }
  const ops = dimension.type === 'BOOLEAN' ? (['=', '!='] as const) : (['=', '!=', '<', '<=', '>', '>='] as const)
  return { column, op: r.pick(ops), value: value(r) }
}

const filter = (r: Random, view: View, depth: number): Filter | null => {
  if (depth > 0 && r.chance(0.3)) {
    const [a, b] = [filter(r, view, depth - 1), filter(r, view, depth - 1)]
    if (a !== null && b !== null) return r.chance(0.5) ? { or: [a, b] } : { not: a }
  }
  return leaf(r, view)
}

const iso = (ms: number): string => new Date(ms).toISOString()

/** The range's ends lie on bucket starts of the view's grain: minutes to days divide a UTC day; months begin on the first. */
const range = (r: Random, view: View, nowMs: number): Query['timeRange'] => {
  if (view.bucket === null || r.chance(0.5)) return undefined
  if (view.bucket.grain.us === null) {
    const month = (m: number): string => iso(Date.UTC(2026, m, 1))
    return { from: month(10 - r.int(0, 3)), to: month(11 + r.int(0, 3)) }
  }
  const grainMs = Number(view.bucket.grain.us / 1_000n)
  const at = Math.floor(nowMs / grainMs) * grainMs
  if (r.chance(0.2)) return { from: iso(at - grainMs * r.int(0, 5)) }
  return { from: iso(at - grainMs * r.int(0, 50)), to: iso(at + grainMs * r.int(1, 5)) }
}

const COARSER: Record<string, string[]> = {
  minute: ['1 minute', '5 minutes', '1 hour', '1 day', '1 week', '1 month'],
  quarter: ['15 minutes', '1 hour', '1 day', '1 month'],
  hour: ['1 hour', '6 hours', '1 day', '1 week', '1 year'],
  day: ['1 day', '1 week', '1 month', '1 quarter'],
  month: ['1 month', '1 quarter', '1 year'],
}

const grain = (r: Random, view: View): Pick<Query, 'grain' | 'timeZone'> => {
  if (view.bucket === null) return {}
  if (r.chance(0.2)) return { grain: 'all' }
  if (r.chance(0.4)) return {}
  const { us } = view.bucket.grain
  const name =
    us === null
      ? 'month'
      : us === 60_000_000n
        ? 'minute'
        : us < 3_600_000_000n
          ? 'quarter'
          : us === 3_600_000_000n
            ? 'hour'
            : 'day'
  const asked = r.pick(COARSER[name]!)
  // Zones whose offsets are whole hours, so that days nest in hour buckets.
  const zoned = us !== null && us <= 3_600_000_000n && r.chance(0.4)
  return { grain: asked, ...(zoned ? { timeZone: r.pick(['Europe/Berlin', 'America/New_York', 'Asia/Tokyo']) } : {}) }
}

/** All of the view, as the strictest check: every measure, dimension and bucket. */
export const wholeQuery = (view: View): Query => ({ view: view.name, limit: 100_000 })

export const randomQuery = (r: Random, view: View, nowMs: number): Query => {
  const measures = some(
    r,
    view.measures.map((m) => m.name),
    1,
  )
  const dimensions = some(
    r,
    view.dimensions.map((d) => d.name),
    0,
  )
  const found = r.chance(0.5) ? filter(r, view, 2) : null
  const timeRange = range(r, view, nowMs)
  const orderBy = r.chance(0.3) ? [{ column: r.pick([...measures, ...dimensions]), desc: r.chance(0.5) }] : undefined
  return {
    view: view.name,
    measures,
    dimensions,
    ...(found === null ? {} : { filters: [found] }),
    ...(timeRange === undefined ? {} : { timeRange }),
    ...grain(r, view),
    ...(orderBy === undefined ? {} : { orderBy }),
    limit: r.chance(0.2) ? r.int(1, 6) : 100_000,
  }
}
