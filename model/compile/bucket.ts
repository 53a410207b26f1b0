/**
 * The bucket of a view: `time_bucket(INTERVAL '…', <event time>)` or `date_trunc('…', <event time>)`.
 * Invariant: the printed SQL is integer arithmetic (or the engine's calendar on zoneless UTC times), because time_bucket by
 * days or months on a TIMESTAMPTZ costs 9–13 µs a row; it equals the written function for every time from year 1 to 9999.
 */
import type { Grain } from '../view.ts'
import { castNode, digits, type Node, refuse, type Source, textNode } from './tree.ts'

const SECOND = 1_000_000n
const UNITS: Record<string, { us: bigint } | { months: number }> = {
  second: { us: SECOND },
  minute: { us: 60n * SECOND },
  hour: { us: 3_600n * SECOND },
  day: { us: 86_400n * SECOND },
  week: { us: 604_800n * SECOND },
  month: { months: 1 },
  quarter: { months: 3 },
  year: { months: 12 },
}
/** Monday 2000-01-03, where time_bucket's fixed widths are anchored; months at 2000-01-01. */
const ORIGIN_US = 946_857_600n * SECOND
const YEAR_ONE_US = -62_135_596_800n * SECOND

const grainOf = (n: number, unit: string): Grain | null => {
  const found = UNITS[unit]
  if (!found || !Number.isSafeInteger(n) || n < 1 || n > 1_000_000) return null
  if ('months' in found) return { interval: intervalText(0n, n * found.months), us: null, months: n * found.months }
  const us = found.us * BigInt(n)
  return { interval: intervalText(us, 0, unit), us, months: null }
}

/** As the engine prints an interval: `00:01:00`, `7 days`, `1 year 3 months`. */
const intervalText = (us: bigint, months: number, unit = ''): string => {
  const many = (n: number | bigint, word: string): string => `${n} ${word}${BigInt(n) === 1n ? '' : 's'}`
  if (months > 0) {
    const years = Math.floor(months / 12)
    const rest = months % 12
    return [...(years ? [many(years, 'year')] : []), ...(rest ? [many(rest, 'month')] : [])].join(' ')
  }
  if (unit === 'day' || unit === 'week') return many(us / (86_400n * SECOND), 'day')
  const two = (n: bigint): string => n.toString().padStart(2, '0')
  const s = us / SECOND
  return `${two(s / 3600n)}:${two((s / 60n) % 60n)}:${two(s % 60n)}`
}

/** `<n> <unit>` of an interval constant, however it was written; null: not one number and one unit. */
export const intervalOf = (node: Node): { n: number; unit: string } | null => {
  if (node.class === 'CAST' && (node.cast_type as { id: string }).id === 'INTERVAL') {
    const text = constantText(node.child as Node)
    const [count, word, ...rest] = (text ?? '').trim().toLowerCase().split(/\s+/)
    if (!count || !word || rest.length || !/^\d+$/.test(count)) return null
    return { n: Number(count), unit: singular(word) }
  }
  const name = String(node.function_name ?? '')
  if (node.class !== 'FUNCTION' || !name.startsWith('to_')) return null
  // INTERVAL 5 MINUTE is to_minutes(CAST(trunc(CAST(5 AS DOUBLE)) AS BIGINT)).
  let inner = (node.children as Node[])[0]
  while (inner && (inner.class === 'CAST' || inner.class === 'FUNCTION'))
    inner = inner.class === 'CAST' ? (inner.child as Node) : (inner.children as Node[])[0]
  const text = inner && constantText(inner)
  return text !== undefined && /^\d+$/.test(text) ? { n: Number(text), unit: singular(name.slice(3)) } : null
}

const singular = (word: string): string => (word.endsWith('s') ? word.slice(0, -1) : word)

const constantText = (node: Node): string | undefined => {
  if (node.class !== 'CONSTANT') return undefined
  const { value, is_null } = node.value as { value: unknown; is_null: boolean }
  return is_null || (typeof value === 'object' && value !== null && 'upper' in value) ? undefined : digits(value)
}

/** The interval in one spelling; null: not one. */
export const intervalNode = (node: Node): Node | null => {
  const found = intervalOf(node)
  return found ? castNode(textNode(`${found.n} ${found.unit}${found.n === 1 ? '' : 's'}`), 'INTERVAL') : null
}

const isBucketCall = (node: Node): boolean =>
  node.class === 'FUNCTION' &&
  ['time_bucket', 'date_trunc', 'datetrunc'].includes(String(node.function_name).toLowerCase())

/** The grain of a select item; null when it is no bucket of the event time. `isEventTime`: is this node that column? */
export const bucketOf = (source: Source, node: Node, isEventTime: (node: Node) => boolean): Grain | null => {
  if (!isBucketCall(node)) return null
  const name = String(node.function_name).toLowerCase()
  const children = node.children as Node[]
  if (children.length < 2 || !isEventTime(children[1]!)) return null
  const expected =
    "time_bucket(INTERVAL '<n> <unit>', <event time>) or date_trunc('<unit>', <event time>), from seconds to years"
  if (children.length > 2)
    return refuse(source, children[2], {
      code: 'WEIR_MODEL_BUCKET',
      message: 'A bucket has no offset, origin or zone of its own.',
      expected,
      next: 'leave it out; queries ask for days in a time zone, from buckets of an hour or less',
    })
  const written =
    name === 'time_bucket' ? intervalOf(children[0]!) : { n: 1, unit: (constantText(children[0]!) ?? '').toLowerCase() }
  const grain = written && grainOf(written.n, singular(written.unit))
  return (
    grain ??
    refuse(source, node, {
      code: 'WEIR_MODEL_BUCKET',
      message: 'The width of the bucket is not one number and one unit.',
      expected,
      next: "for example time_bucket(INTERVAL '1 minute', …)",
    })
  )
}

/** SQL of the bucket's start for a quoted TIMESTAMPTZ column. */
export const bucketSql = (grain: Grain, column: string): string => {
  if (grain.us === null) {
    const local = `make_timestamp(epoch_us(${column}))`
    return `make_timestamptz(epoch_us(time_bucket(CAST('${grain.months} months' AS INTERVAL), ${local})))`
  }
  // An anchor before every event time, so that // (which truncates) rounds down.
  const anchor = ORIGIN_US - ((ORIGIN_US - YEAR_ONE_US) / grain.us + 1n) * grain.us
  const moved = anchor === 0n ? `epoch_us(${column})` : `(epoch_us(${column}) - (${anchor}))`
  return `make_timestamptz(${moved} // ${grain.us} * ${grain.us} + (${anchor}))`
}
