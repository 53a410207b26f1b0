/**
 * Synthetic events from a dataset's columns. Invariant: a function of (dataset, options): the n-th event of a seed is
 * always the same, late, duplicate and broken ones included. What was made is counted by kind.
 */
import type { Column, Dataset } from '../model/dataset.ts'
import { type Random, random } from './random.ts'

export type GenerateOptions = {
  seed: number
  /** Event time of event 0, ms since 1970. */
  startMs: number
  /** Event time between two events, ms. */
  stepMs: number
  /** Share of events whose event time is up to two hours late. */
  disorder?: number
  /** Share of events sent twice. */
  duplicates?: number
  /** Share of events that no decoder accepts. */
  bad?: number
}

export type Kind = 'fresh' | 'late' | 'duplicate' | 'bad'
export type GeneratedEvent = { line: string; kind: Kind }

const POOLS: [RegExp, readonly string[]][] = [
  [/^site$/, ['blog', 'shop', 'docs', 'forum']],
  [/country/, ['DE', 'FR', 'US', 'GB', 'IT', 'ES', 'PL', 'NL', 'SE', 'JP', 'BR', 'Österreich']],
  [/status/, ['paid', 'placed', 'shipped', 'cancelled']],
  [/action/, ['shown', 'clicked', 'redeemed']],
  [
    /page|path|url/,
    ['/', '/search', '/cart', '/checkout', '/product/1', '/product/2', '/product/3', '/account', '/über-uns'],
  ],
  [/device/, ['phone', 'desktop', 'tablet']],
  [/referrer|source/, ['search', 'mail', 'social', 'direct']],
  [/campaign/, ['spring', 'summer', 'autumn', 'winter', 'black friday']],
  [/warehouse/, ['berlin', 'lyon', 'ohio']],
  [/coupon/, ['WELCOME10', 'SUMMER5', 'VIP']],
  [/origin|destination|airport/, ['ATL', 'ORD', 'DFW', 'LAX', 'JFK', 'DEN', 'SFO', 'SEA', 'MIA', 'BOS']],
]

const hex = (r: Random, digits: number): string => {
  let text = ''
  while (text.length < digits) text += r.int(0, 16).toString(16)
  return text
}

const INTEGER_LIMIT: Record<string, number> = { TINYINT: 127, UTINYINT: 255, SMALLINT: 1_000, USMALLINT: 1_000 }

const stringOf = (column: Column, r: Random): string => {
  const pool = POOLS.find(([name]) => name.test(column.name.toLowerCase()))?.[1]
  return pool ? r.skewed(pool) : `${column.name}-${Math.floor(r.next() ** 2 * 5_000)}`
}

/** JSON text of a value that the column accepts. */
const jsonOf = (column: Column, r: Random, timeMs: number): string => {
  const decimal = /^DECIMAL\((\d+),(\d+)\)$/.exec(column.type)
  if (decimal) {
    const scale = Number(decimal[2])
    const digits = String(r.int(1, 10 ** Math.min(5, Number(decimal[1])))).padStart(scale + 1, '0')
    return `"${scale ? `${digits.slice(0, -scale)}.${digits.slice(-scale)}` : digits}"`
  }
  switch (column.type) {
    case 'BOOLEAN':
      return String(r.chance(0.5))
    case 'DOUBLE':
      return String(Math.round(-Math.log(1 - r.next()) * 120_000) / 1_000)
    case 'DATE':
      return `"${new Date(timeMs).toISOString().slice(0, 10)}"`
    case 'TIMESTAMPTZ':
      if (column.unit)
        return String(column.unit === 's' ? Math.floor(timeMs / 1_000) : column.unit === 'ms' ? timeMs : timeMs * 1_000)
      return `"${new Date(timeMs).toISOString()}"`
    case 'UUID':
      return `"${hex(r, 8)}-${hex(r, 4)}-4${hex(r, 3)}-8${hex(r, 3)}-${hex(r, 12)}"`
    case 'JSON':
      return `{"n":${r.int(0, 100)}}`
    case 'VARCHAR':
      return JSON.stringify(stringOf(column, r))
    default: {
      const unsigned = column.type.startsWith('U')
      const limit = Math.min(INTEGER_LIMIT[column.type] ?? 1_000, 1_000)
      return String(unsigned || !/quantity|delta|change|delay/.test(column.name) ? r.int(0, limit) : r.int(-50, 100))
    }
  }
}

const identity = (column: Column, seed: number, n: number, r: Random): string => {
  if (column.type === 'VARCHAR') return JSON.stringify(`${seed.toString(36)}-${n}`)
  // Random digits alone would meet again after some 100,000 events: the number and the seed make it unique.
  if (column.type === 'UUID') {
    const tail = seed.toString(16).padStart(12, '0').slice(-12)
    return `"${(n >>> 0).toString(16).padStart(8, '0')}-${hex(r, 4)}-4${hex(r, 3)}-8${hex(r, 3)}-${tail}"`
  }
  return String(seed * 1_000_000_000 + n)
}

/** Breaks an event in one of the ways clients do. */
const broken = (dataset: Dataset, line: string, r: Random): string => {
  switch (r.int(0, 4)) {
    case 0:
      return line.slice(0, -Math.floor(line.length / 3))
    case 1:
      return line.replace(/^\{/, `{"${dataset.eventTime}":"yesterday",`).replace(/,"[^"]*":[^,}]*\}$/, '}')
    case 2:
      return `["not","an","object",${r.int(0, 100)}]`
    default:
      return `{"${dataset.columns.find((c) => c.name !== dataset.eventTime)?.name ?? 'x'}":"no event time"}`
  }
}

/** An endless stream of events, starting with number `first`. Duplicates follow within the next 50 events. */
export function* generate(dataset: Dataset, options: GenerateOptions, first = 0): Generator<GeneratedEvent, never> {
  let waiting: { at: number; line: string }[] = []
  for (let n = first; ; n++) {
    const r = random((options.seed * 2_654_435_761 + n * 40_503) >>> 0)
    r.next()
    const due = waiting.filter((w) => w.at <= n)
    if (due.length) waiting = waiting.filter((w) => w.at > n)
    for (const { line } of due) yield { line, kind: 'duplicate' }
    const late = r.chance(options.disorder ?? 0)
    const timeMs = Math.round(options.startMs + n * options.stepMs) - (late ? r.int(60_000, 7_200_000) : 0)
    const fields = dataset.columns.map((column) => {
      if (column.name === dataset.eventTime) return `"${column.name}":${jsonOf(column, r, timeMs)}`
      if (column.name === dataset.id) return `"${column.name}":${identity(column, options.seed, n, r)}`
      if (!column.required && r.chance(0.02)) return `"${column.name}":null`
      return `"${column.name}":${jsonOf(column, r, timeMs)}`
    })
    const line = `{${fields.join(',')}}`
    if (r.chance(options.bad ?? 0)) {
      yield { line: broken(dataset, line, r), kind: 'bad' }
      continue
    }
    if (dataset.id !== undefined && r.chance(options.duplicates ?? 0)) waiting.push({ at: n + r.int(1, 50), line })
    yield { line, kind: late ? 'late' : 'fresh' }
  }
}
