/**
 * Cutting JSON arrays into events, and single documents out of pretty-printed bodies, on bytes: strings, escapes and
 * nesting are followed, values are not parsed (the decoder judges them). Invariant: as in lines.ts; line breaks between
 * tokens become blanks, a line break inside a string (which JSON forbids) rejects its event.
 */
import { badBody } from './errors.ts'
import { type Framed, type FrameLimits, isBlank, newFramer } from './lines.ts'

const QUOTE = 34
const BACKSLASH = 92
const isBreak = (c: number): boolean => c === 10 || c === 13

/** What a scan saw on its way. */
type Seen = { breaks: boolean; breakInString: boolean }

/** End (exclusive) of the string whose opening quote is at `i`, or −1 when it never ends. */
const stringEnd = (bytes: Buffer, i: number, seen: Seen): number => {
  for (let at = i + 1; at < bytes.byteLength; at++) {
    const c = bytes[at]!
    if (c === QUOTE) return at + 1
    if (c === BACKSLASH) at++
    if (isBreak(bytes[at] ?? 0)) seen.breakInString = true
  }
  return -1
}

/**
 * End (exclusive) of the object or array that begins at `start`; −1 when it is not closed. Whether each bracket has its
 * kind is left to the decoder.
 */
export const documentEnd = (bytes: Buffer, start: number, seen: Seen, stopAtBreakInString = false): number => {
  let depth = 0
  for (let i = start; i < bytes.byteLength; ) {
    const c = bytes[i]!
    if (c === QUOTE) {
      i = stringEnd(bytes, i, seen)
      if (i < 0 || (stopAtBreakInString && seen.breakInString)) return -1
      continue
    }
    if ((c | 32) === 123) depth++
    else if ((c | 32) === 125) {
      if (--depth === 0) return i + 1
    } else if (isBreak(c)) seen.breaks = true
    i++
  }
  return -1
}

export const skipBlank = (bytes: Buffer, from: number): number => {
  let i = from
  while (i < bytes.byteLength && isBlank(bytes[i]!)) i++
  return i
}

/** Breaks between tokens become blanks, in place, in a copied line. */
const flatten = (out: Buffer, from: number, to: number): void => {
  for (let i = from; i < to; i++) if (isBreak(out[i]!)) out[i] = 32
}

/** One document in bytes[start, end) as a framed body of one event. */
export const frameDocument = (bytes: Buffer, start: number, end: number, limits: FrameLimits): Framed => {
  const framer = newFramer(end - start + 1, limits)
  const at = framer.add(bytes, start, end)
  if (at >= 0) flatten(framer.out, at, at + end - start)
  return framer.done()
}

/**
 * Events of an array whose '[' is at `start`. Throws WEIR_INGEST_BAD_BODY when the array itself is malformed: not
 * closed, an element missing, something behind its end; what is wrong inside an element is a matter of that event alone.
 */
export const frameArray = (bytes: Buffer, start: number, limits: FrameLimits): Framed => {
  const framer = newFramer(bytes.byteLength - start + 1, limits)
  let events = 0
  let i = skipBlank(bytes, start + 1)
  if (bytes[i] === 93) {
    atEnd(bytes, i + 1)
    return framer.done()
  }
  for (;;) {
    const from = skipBlank(bytes, i)
    const seen: Seen = { breaks: false, breakInString: false }
    const stop = elementEnd(bytes, from, seen, events)
    let to = stop
    while (to > from && isBlank(bytes[to - 1]!)) to--
    if (to === from) throw badBody(`Element ${events} of the array is missing.`, excerpt(bytes, from))
    if (seen.breakInString) {
      framer.reject('WEIR_INGEST_LINE_BREAK', 'a string holds a raw line break; expected \\n', bytes.subarray(from, to))
    } else {
      const at = framer.add(bytes, from, to)
      if (at >= 0 && seen.breaks) flatten(framer.out, at, at + to - from)
    }
    events++
    i = stop + 1
    if (bytes[stop] === 93) break
  }
  atEnd(bytes, i)
  return framer.done()
}

/** Where the element that begins at `from` stops: the index of its comma or of the array's ']'. */
const elementEnd = (bytes: Buffer, from: number, seen: Seen, events: number): number => {
  let depth = 0
  for (let i = from; i < bytes.byteLength; ) {
    const c = bytes[i]!
    if (c === QUOTE) {
      i = stringEnd(bytes, i, seen)
      if (i < 0) throw badBody(`The array ends inside a string of element ${events}.`)
      continue
    }
    if (depth === 0 && (c === 44 || c === 93)) return i
    if ((c | 32) === 123) depth++
    else if ((c | 32) === 125) {
      if (--depth < 0) throw badBody(`Element ${events} of the array closes what it did not open.`, excerpt(bytes, i))
    } else if (isBreak(c)) seen.breaks = true
    i++
  }
  throw badBody(`The array is not closed: it ends in element ${events}.`)
}

const atEnd = (bytes: Buffer, from: number): void => {
  const i = skipBlank(bytes, from)
  if (i < bytes.byteLength) throw badBody('Something follows the end of the array.', excerpt(bytes, i))
}

const excerpt = (bytes: Buffer, at: number): string => bytes.toString('utf8', at, Math.min(bytes.byteLength, at + 40))
