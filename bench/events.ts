/**
 * The events of the benchmark: nine fields, 181 bytes each on average with their line break. Invariant: the same options
 * give the same bytes, and every even number of events from the start has exactly 181 bytes each on average.
 */
export const EVENT_BYTES = 181

export type EventOptions = {
  events: number
  startMs: number
  /** Event time from one event to the next, in ms; may be a fraction. */
  stepMs: number
  /** Number of the first event: ids of different ranges differ. */
  first?: number
  /** Share of events that are up to ten minutes late. */
  late?: number
}

export type Chunk = { bytes: Buffer; events: number }

export const TYPES = ['view', 'click', 'search', 'cart', 'order', 'login', 'share', 'rate', 'wish', 'logout']
export const COUNTRIES = 'DE FR GB US JP CN IN BR IT ES NL SE NO DK FI PL CZ AT CH BE PT IE GR TR ZA'.split(' ')
const PAGES = 500
const USERS = 1_000_000
const LATE_MS = 600_000
const TEXT = 'qK7vX2mB9tR4wL8cJ3nF6hD1sG5pZ0yE'.repeat(8)

/** A 32-bit mix of a number (murmur3's finaliser): events are functions of their number alone. */
const mix = (n: number): number => {
  let h = n | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

const two = (n: number): string => (n < 10 ? `0${n}` : String(n))
let lastMinute = -1
let minuteText = ''
/** RFC 3339 with milliseconds; the minute's text is kept from one call to the next. */
const isoOf = (ms: number): string => {
  const minute = Math.floor(ms / 60_000)
  if (minute !== lastMinute) {
    lastMinute = minute
    minuteText = new Date(minute * 60_000).toISOString().slice(0, 17)
  }
  const rest = ms - minute * 60_000
  const second = Math.floor(rest / 1_000)
  const milli = Math.floor(rest - second * 1_000)
  return `${minuteText}${two(second)}.${milli < 10 ? `00${milli}` : milli < 100 ? `0${milli}` : milli}Z`
}

/** One event's line. Lengths come in pairs, one longer by as much as the other is shorter. */
export const eventLine = (n: number, ms: number): string => {
  const a = mix(n * 2 + 1)
  const b = mix(n * 2 + 0x9e3779b9)
  const id = a.toString(16).padStart(8, '0') + (n >>> 0).toString(16).padStart(8, '0')
  const country = COUNTRIES[Math.floor(((a & 0xffff) / 65_536) ** 2 * COUNTRIES.length)]!
  const type = TYPES[(a >>> 16) % TYPES.length]!
  const cents = b % 20_000
  const amount = `${Math.floor(cents / 100)}.${two(cents % 100)}`
  const page = Math.floor(((b >>> 8) / 16_777_216) ** 3 * PAGES)
  const head = `{"id":"${id}","ts":"${isoOf(ms)}","type":"${type}","user":"u${((a ^ b) % USERS) >>> 0}","country":"${country}","page":"/p/${page}","amount":${amount},"items":${1 + (b & 7)},"ref":"`
  const spread = (mix(n >>> 1) % 13) * (n & 1 ? 1 : -1)
  const fill = EVENT_BYTES + spread - head.length - 3
  const from = a & 31
  return `${head}${TEXT.slice(from, from + fill)}"}\n`
}

/** Events as NDJSON in pieces of `chunk` events. */
export function* eventChunks(options: EventOptions, chunk: number): Generator<Chunk> {
  const { events, startMs, stepMs, first = 0, late = 0.02 } = options
  for (let from = 0; from < events; from += chunk) {
    const count = Math.min(chunk, events - from)
    const lines: string[] = []
    for (let i = from; i < from + count; i++) {
      const n = first + i
      const odds = mix(n ^ 0x5bd1e995) / 4_294_967_296
      const lag = odds < late ? (odds / late) * LATE_MS : 0
      lines.push(eventLine(n, startMs + i * stepMs - lag))
    }
    yield { bytes: Buffer.from(lines.join(''), 'latin1'), events: count }
  }
}

/** Throws unless bytes and events are of the stated average size; odd numbers of events may be off by one spread. */
export const checkSize = (bytes: number, events: number): void => {
  const off = Math.abs(bytes - events * EVENT_BYTES)
  if (off > (events % 2 === 0 ? 0 : 12))
    throw new Error(`${events} events have ${bytes} bytes: ${bytes / events} each, not ${EVENT_BYTES}`)
}
