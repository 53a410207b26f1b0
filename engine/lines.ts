/**
 * Lines of a batch: which bytes of which record are which event, and which lines are dead before the engine reads them.
 * Invariant: events are numbered from 0 in the order of the records' lines, dead ones counted, blank lines not; what is
 * alive begins with `{`, is UTF-8 and is at most MAX_EVENT_BYTES long.
 */
import { isUtf8 } from 'node:buffer'
import { MAX_EVENT_BYTES } from '../model/decode/decode-sql.ts'

export type BatchRecord = {
  bytes: Uint8Array
  events: number
  /** Where its lines end, behind their \n, for whoever knows: each line begins where the one before ends, with a byte that is not blank. */
  ends?: Uint32Array
}

export type DeadReason = { code: string; expected: string; got: string }

export type Lines = {
  count: number
  /** Per event: record, index in the record, byte range in the record's `texts`. */
  record: Int32Array
  index: Int32Array
  start: Int32Array
  end: Int32Array
  /** The records' bytes as they are read: as given, or with the line breaks inside one document made blanks. */
  texts: Buffer[]
  /** The records' bytes as given. */
  raw: Uint8Array[]
  dead: Map<number, DeadReason>
  /** Bytes of the longest event. */
  longest: number
}

const NEWLINE = 10
const OPEN = 123
const isBlank = (byte: number): boolean => byte === 32 || byte === 9 || byte === 13

export const scanLines = (records: BatchRecord[]): Lines => {
  let capacity = 16
  for (const r of records) capacity += r.events + 1
  const lines: Lines = {
    count: 0,
    record: new Int32Array(capacity),
    index: new Int32Array(capacity),
    start: new Int32Array(capacity),
    end: new Int32Array(capacity),
    texts: [],
    raw: records.map((r) => r.bytes),
    dead: new Map(),
    longest: 0,
  }
  for (const [r, record] of records.entries())
    if (record.ends === undefined) scanRecord(lines, record, r)
    else takeLines(lines, record.bytes, record.ends, r)
  return lines
}

const bufferOf = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const scanRecord = (lines: Lines, record: BatchRecord, r: number): void => {
  let text = bufferOf(record.bytes)
  let next = text.indexOf(NEWLINE)
  if (record.events === 1 && next >= 0 && next < text.length - 1) {
    text = asOneDocument(text, next)
    next = text.indexOf(NEWLINE)
  }
  lines.texts.push(text)
  const clean = isUtf8(text)
  let index = 0
  for (let from = 0; from < text.length; ) {
    const to = next < 0 ? text.length : next
    let first = from
    while (first < to && isBlank(text[first]!)) first++
    if (first < to) {
      addLine(lines, text, clean, r, index++, first, to)
    }
    from = to + 1
    next = from < text.length ? text.indexOf(NEWLINE, from) : -1
  }
}

const takeLines = (lines: Lines, bytes: Uint8Array, ends: Uint32Array, r: number): void => {
  const text = bufferOf(bytes)
  lines.texts.push(text)
  const clean = isUtf8(text)
  let from = 0
  for (let index = 0; index < ends.length; index++) {
    const end = ends[index]!
    addLine(lines, text, clean, r, index, from, end - 1)
    from = end
  }
}

/** `clean`: the whole text is UTF-8, so its lines are. */
const addLine = (
  lines: Lines,
  text: Buffer,
  clean: boolean,
  record: number,
  index: number,
  start: number,
  end: number,
): void => {
  if (lines.count === lines.record.length) grow(lines)
  const n = lines.count++
  lines.record[n] = record
  lines.index[n] = index
  lines.start[n] = start
  lines.end[n] = end
  if (end - start > lines.longest) lines.longest = end - start
  if (text[start] === OPEN && clean && end - start <= MAX_EVENT_BYTES) return
  const reason = deadOnSight(text.subarray(start, end))
  if (reason) lines.dead.set(n, reason)
}

const grow = (lines: Lines): void => {
  for (const key of ['record', 'index', 'start', 'end'] as const) {
    const wider = new Int32Array(lines[key].length * 2)
    wider.set(lines[key])
    lines[key] = wider
  }
}

/**
 * A record of one event may come from a foreign producer, with line breaks inside its document: tried as one document
 * first. Between the tokens of JSON a line break is a blank; inside a string it is an error either way.
 */
const asOneDocument = (text: Buffer, first: number): Buffer => {
  let last = text.length - 1
  while (last >= 0 && (text[last] === NEWLINE || isBlank(text[last]!))) last--
  if (first > last) return text
  try {
    JSON.parse(text.toString('utf8'))
  } catch {
    return text
  }
  const joined = Buffer.from(text)
  for (let i = first; i <= last; i++) if (joined[i] === NEWLINE) joined[i] = 32
  return joined
}

const deadOnSight = (line: Buffer): DeadReason | null => {
  if (line.length > MAX_EVENT_BYTES)
    return {
      code: 'WEIR_DECODE_TOO_LONG',
      expected: `an event of at most ${MAX_EVENT_BYTES} bytes`,
      got: `${line.length} bytes`,
    }
  if (line[0] !== OPEN)
    return { code: 'WEIR_DECODE_NOT_OBJECT', expected: 'a JSON object', got: shorten(line.toString('utf8', 0, 200)) }
  if (!isUtf8(line)) return { code: 'WEIR_DECODE_UTF8', expected: 'UTF-8', got: shorten(line.toString('utf8', 0, 200)) }
  return null
}

/** Text of at most 100 characters for a dead letter. */
export const shorten = (text: string): string => {
  const points = [...text.slice(0, 200)]
  return points.length <= 100 && text.length <= 200 ? text : `${points.slice(0, 99).join('')}…`
}
