/**
 * Cutting NDJSON into events, on bytes: nothing is parsed here. Invariant: `bytes` of the result hold exactly one
 * non-blank line per event, each beginning with its first non-blank byte and ended by \n; an event is either one of these
 * lines or one of the rejects, and `total` counts both.
 */
import { tooManyEvents } from './errors.ts'

export type FrameLimits = { lineBytes: number; depth: number; eventsPerRequest: number }

/** An event that the door refuses by its form alone. `index` counts the request's events from 0, blank lines apart. */
export type FrameReject = { index: number; code: string; reason: string; raw: Uint8Array }

export type Framed = {
  bytes: Buffer
  /** End of each line in `bytes`, exclusive, after its \n. */
  ends: Uint32Array
  /** Index of each line's event in the request; null: line n is event n. */
  index: Uint32Array | null
  rejects: FrameReject[]
  total: number
}

const NEWLINE = 10
const OPEN = 123
const CLOSE = 125

const grown = (list: Uint32Array): Uint32Array<ArrayBuffer> => {
  const longer = new Uint32Array(list.length * 2)
  longer.set(list)
  return longer
}

/** A growing list of line ends. */
export const newEnds = (guess: number): { push(end: number): void; done(): Uint32Array; length(): number } => {
  let list = new Uint32Array(Math.max(16, guess))
  let n = 0
  return {
    push: (end) => {
      if (n === list.length) list = grown(list)
      list[n++] = end
    },
    done: () => list.subarray(0, n),
    length: () => n,
  }
}

export const isBlank = (byte: number): boolean => byte === 32 || byte === 10 || byte === 13 || byte === 9

/** Events of an NDJSON body that ends with \n. Throws WEIR_INGEST_TOO_MANY_EVENTS. */
export const frameLines = (bytes: Buffer, limits: FrameLimits): Framed => fast(bytes, limits) ?? careful(bytes, limits)

/**
 * The body as it stands, if every line is `{…}` without blanks around it and obviously within the limits; null: look closer.
 * Native searches hop from line to line and from brace to brace: a tenth of the time of a loop over the bytes.
 */
const fast = (bytes: Buffer, limits: FrameLimits): Framed | null => {
  const size = bytes.byteLength
  // Where there is none: the end. (Not infinity: that would make floating-point numbers of all offsets here.)
  const next = (byte: number, from: number): number => {
    const at = bytes.indexOf(byte, from)
    return at < 0 ? size : at
  }
  let n = 0
  let brace = 0
  let bracket = next(91, 0)
  for (let start = 0; start < size; ) {
    const end = bytes.indexOf(NEWLINE, start)
    if (bytes[start] !== OPEN || bytes[end - 1] !== CLOSE || end - start > limits.lineBytes) return null
    if (brace <= start) brace = next(OPEN, start + 1)
    if (brace < end || bracket < end) {
      if (openers(bytes, start, end) > limits.depth) return null
      brace = next(OPEN, end + 1)
      if (bracket < end) bracket = next(91, end + 1)
      // `brace` may be the first byte of the next line, which is no nesting: look behind it when its turn comes.
    }
    if (n >= limits.eventsPerRequest) throw tooManyEvents(limits.eventsPerRequest)
    if (n === found.length) found = grown(found)
    found[n++] = end + 1
    start = end + 1
  }
  return { bytes, ends: found.slice(0, n), index: null, rejects: [], total: n }
}

/** Line ends of the body that is being cut: framing is synchronous, and one such list serves all bodies. */
let found = new Uint32Array(16 * 1024)

/** How many braces and brackets open in a range: never less than its depth. ('[' is 91, '{' is 123 = 91 | 32.) */
const openers = (bytes: Buffer, start: number, end: number): number => {
  let n = 0
  for (let i = start; i < end; i++) if ((bytes[i]! | 32) === OPEN) n++
  return n
}

/** Deepest nesting of JSON text; brackets inside strings do not count. */
export const depthOf = (bytes: Uint8Array, start: number, end: number): number => {
  let depth = 0
  let deepest = 0
  for (let i = start; i < end; i++) {
    const c = bytes[i]!
    if (c === 34) {
      i++
      while (i < end && bytes[i] !== 34) i += bytes[i] === 92 ? 2 : 1
    } else if ((c | 32) === OPEN) {
      depth++
      if (depth > deepest) deepest = depth
    } else if ((c | 32) === CLOSE) depth--
  }
  return deepest
}

/** Why the form of an event is refused, or null. */
export const formReject = (
  bytes: Uint8Array,
  start: number,
  end: number,
  limits: FrameLimits,
): { code: string; reason: string } | null => {
  if (end - start > limits.lineBytes)
    return {
      code: 'WEIR_INGEST_EVENT_TOO_LONG',
      reason: `the event has ${end - start} bytes; expected at most ${limits.lineBytes} (ingest.lineBytes)`,
    }
  if (openers(bytes as Buffer, start, end) <= limits.depth) return null
  const depth = depthOf(bytes, start, end)
  return depth <= limits.depth
    ? null
    : {
        code: 'WEIR_INGEST_EVENT_TOO_DEEP',
        reason: `the event is nested ${depth} deep; expected at most ${limits.depth} (ingest.depth)`,
      }
}

/** Collects events one by one into a body of lines. `capacity`: at least all bytes that will be added, with a \n each. */
export const newFramer = (capacity: number, limits: FrameLimits) => {
  const out = Buffer.allocUnsafe(capacity)
  const ends = newEnds(capacity >> 6)
  const index = newEnds(capacity >> 6)
  const rejects: FrameReject[] = []
  let at = 0
  let total = 0
  const count = (): number => {
    if (total >= limits.eventsPerRequest) throw tooManyEvents(limits.eventsPerRequest)
    return total++
  }
  return {
    /** Adds bytes[start, end) as one line; the caller vouches that it has no \n inside. Returns where it begins in the output, or −1. */
    add: (bytes: Buffer, start: number, end: number): number => {
      const n = count()
      const refused = formReject(bytes, start, end, limits)
      if (refused) {
        rejects.push({ index: n, ...refused, raw: bytes.subarray(start, end) })
        return -1
      }
      const from = at
      at += bytes.copy(out, at, start, end)
      out[at++] = NEWLINE
      ends.push(at)
      index.push(n)
      return from
    },
    reject: (code: string, reason: string, raw: Uint8Array): void => {
      rejects.push({ index: count(), code, reason, raw })
    },
    out,
    done: (): Framed => ({
      bytes: out.subarray(0, at),
      ends: ends.done(),
      index: rejects.length === 0 ? null : index.done(),
      rejects,
      total,
    }),
  }
}

const careful = (bytes: Buffer, limits: FrameLimits): Framed => {
  const framer = newFramer(bytes.byteLength, limits)
  for (let start = 0; start < bytes.byteLength; ) {
    const newline = bytes.indexOf(NEWLINE, start)
    let from = start
    let to = newline
    while (from < to && isBlank(bytes[from]!)) from++
    while (to > from && isBlank(bytes[to - 1]!)) to--
    if (to > from) framer.add(bytes, from, to)
    start = newline + 1
  }
  return framer.done()
}
