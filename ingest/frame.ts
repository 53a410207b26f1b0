/**
 * From a body to events: which of the three forms it has. Invariant: the form is a function of the body's bytes and of
 * whether Content-Type says NDJSON; nothing else.
 *
 * - Content-Type NDJSON (or JSON lines): one event per line, whatever the lines hold.
 * - else '[': an array, unless something other than blanks follows its end: then the first *line* is an array, no event,
 *   and the body is lines;
 * - else '{': one document, if it spans lines and nothing follows it; else lines.
 * - anything else: lines, each of which will be rejected.
 */
import { documentEnd, frameArray, frameDocument, skipBlank } from './documents.ts'
import { noEvents } from './errors.ts'
import { type Framed, type FrameLimits, frameLines } from './lines.ts'

/** Events of a whole body that ends with \n. Throws WEIR_INGEST_NO_EVENTS, _BAD_BODY, _TOO_MANY_EVENTS. */
export const frame = (body: Buffer, isNdjson: boolean, limits: FrameLimits): Framed => {
  // A byte order mark is no part of the text (editors on Windows write it).
  const bytes = body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? body.subarray(3) : body
  const framed = isNdjson ? frameLines(bytes, limits) : byContent(bytes, limits)
  if (framed.total === 0) throw noEvents()
  return framed
}

const byContent = (bytes: Buffer, limits: FrameLimits): Framed => {
  const start = skipBlank(bytes, 0)
  const first = bytes[start]
  if (first !== 91 && first !== 123) return frameLines(bytes, limits)
  if (first === 91) return isArrayLine(bytes, start) ? frameLines(bytes, limits) : frameArray(bytes, start, limits)
  const seen = { breaks: false, breakInString: false }
  const end = documentEnd(bytes, start, seen, true)
  const isOne = end > 0 && seen.breaks && skipBlank(bytes, end) === bytes.byteLength
  return isOne ? frameDocument(bytes, start, end, limits) : frameLines(bytes, limits)
}

/** Whether the body's first line is a whole array and another line that is not blank follows: a broken event among NDJSON. */
const isArrayLine = (bytes: Buffer, start: number): boolean => {
  const newline = bytes.indexOf(10, start)
  const next = skipBlank(bytes, newline + 1)
  if (next >= bytes.byteLength) return false
  const end = documentEnd(bytes, start, { breaks: false, breakInString: false }, true)
  return end > 0 && end <= newline && skipBlank(bytes, end) > newline
}
