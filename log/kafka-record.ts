/**
 * What a Kafka message is as a record of the log, whoever wrote it. Pure, a function of the stored bytes and their place.
 * Invariant: `bytes` hold exactly `events` non-blank lines, each ended by \n, whatever the producer sent.
 */
import { createHash } from 'node:crypto'
import type { LogRecord, NewRecord } from '../model/ports/event-log.ts'
import type { Batch, Message, NewMessage } from './kafka-batch.ts'

/** 32 hex digits; a message without it is a foreign one. */
export const RECORD_ID = 'weir-record-id'
/** Number of events, decimal: for people and other readers, since lines are counted anyway. */
export const EVENTS = 'weir-events'

const NEWLINE = 10
const RETURN = 13

/** A log's place as record ids of foreign messages name it: 16 hex digits. */
export const placeOf = (logId: string, partition: number): string =>
  createHash('sha256').update(`${logId}/${partition}`).digest('hex').slice(0, 16)

/** Id of a message that has none: its place and its offset, so that one message is one record and never two. */
export const foreignId = (place: string, offset: number): string => place + offset.toString(16).padStart(16, '0')

/** Fingerprint of an append by Weir: leader epoch, place in the log and record id. */
export const ownFingerprint = (leaderEpoch: number, offset: number, recordId: string): string =>
  createHash('sha256').update(`${leaderEpoch}/${offset}/${recordId}`).digest('hex').slice(0, 16)

/**
 * Fingerprints of foreign messages: 16 hex digits from the leader epoch and the batch's offset and checksum, which covers
 * the bytes of all its messages, then the message's own place in it.
 */
const foreignFingerprints = (batch: Batch): ((offset: number) => string) => {
  const hash = createHash('sha256').update(`${batch.leaderEpoch}/${batch.baseOffset}/${batch.checksum}`).digest()
  const [head, tail] = [hash.toString('hex', 0, 4), hash.readUInt32BE(4)]
  return (offset) => head + ((tail ^ (offset - batch.baseOffset)) >>> 0).toString(16).padStart(8, '0')
}

const isBlank = (byte: number | undefined): boolean => byte === 32 || byte === 9 || byte === NEWLINE || byte === RETURN

/**
 * `value` as lines, one event each. Several lines of a foreign message are tried as one JSON document first; a tombstone or
 * a blank value becomes the line `null`: an event that is none is counted as dead, not passed over in silence.
 */
export const linesOf = (value: Buffer | null, isOwn: boolean): { bytes: Buffer; events: number } => {
  const whole = value ?? Buffer.alloc(0)
  const lines = countLines(whole)
  if (lines === 1 || (lines > 1 && (isOwn || !isOneDocument(whole)))) return { bytes: whole, events: lines }
  let [from, to] = [0, whole.byteLength]
  while (from < to && isBlank(whole[from])) from++
  while (to > from && isBlank(whole[to - 1])) to--
  if (from === to) return { bytes: Buffer.from('null\n'), events: 1 }
  const text = whole.subarray(from, to)
  if (!text.includes(NEWLINE) && !text.includes(RETURN)) return { bytes: ended(text), events: 1 }
  if (isOneDocument(text)) {
    const line = ended(text)
    // Inside a JSON text a line break is a blank between tokens; strings cannot hold one.
    for (let i = 0; i < line.byteLength - 1; i++) if (line[i] === NEWLINE || line[i] === RETURN) line[i] = 32
    return { bytes: line, events: 1 }
  }
  const parts = text
    .toString('latin1')
    .split(/[\r\n]+/)
    .map((line) => line.replace(/^[ \t]+|[ \t]+$/g, ''))
    .filter((line) => line !== '')
  return { bytes: Buffer.from(`${parts.join('\n')}\n`, 'latin1'), events: parts.length }
}

const ended = (text: Buffer): Buffer => {
  const line = Buffer.allocUnsafe(text.byteLength + 1)
  text.copy(line)
  line[text.byteLength] = NEWLINE
  return line
}

/** Lines of a value that is NDJSON as it stands: each begins with no blank, the last one is ended; 0: it is not. */
const countLines = (value: Buffer): number => {
  if (value.byteLength === 0 || value[value.byteLength - 1] !== NEWLINE || value.includes(RETURN)) return 0
  let lines = 0
  for (let start = 0; start < value.byteLength; lines++) {
    if (isBlank(value[start])) return 0
    start = value.indexOf(NEWLINE, start) + 1
  }
  return lines
}

const isJson = (text: Buffer): boolean => {
  try {
    JSON.parse(text.toString())
    return true
  } catch {
    return false
  }
}

/** A text of several lines whose first is a document of its own is no single document. */
const isOneDocument = (text: Buffer): boolean => {
  const first = text.indexOf(NEWLINE)
  return !(first >= 0 && isJson(text.subarray(0, first))) && isJson(text)
}

const LATEST_TIME_MS = Date.UTC(9999, 11, 31)

/** The messages of a committed batch as records of the log. */
export const recordsOf = (batch: Batch, messages: Message[] | null, place: string): LogRecord[] => {
  const fingerprintOf = foreignFingerprints(batch)
  // Bytes that cannot be unpacked are one dead event, at the end of their batch.
  const unreadable = { offset: batch.lastOffset, timeMs: batch.appendTimeMs ?? batch.firstTimeMs, headers: [] }
  const found = messages ?? [
    { ...unreadable, value: Buffer.from(`a batch of ${batch.count} records that cannot be unpacked`) },
  ]
  return found.map(({ offset, timeMs, value, headers }) => {
    const id = headers[0]?.toString('latin1')
    const isOwn = id !== undefined && /^[0-9a-f]{32}$/.test(id)
    return {
      offset,
      recordId: isOwn ? id : foreignId(place, offset),
      fingerprint: isOwn ? ownFingerprint(batch.leaderEpoch, offset, id) : fingerprintOf(offset),
      // Producers' times can be anything, or missing (−1); the broker's are within these bounds anyway.
      appendTimeMs: Math.min(Math.max(0, timeMs), LATEST_TIME_MS),
      ...linesOf(value, isOwn),
    }
  })
}

export const messageOf = ({ recordId, bytes, events }: NewRecord): NewMessage => ({
  value: bytes,
  headers: [
    [RECORD_ID, recordId],
    [EVENTS, String(events)],
  ],
})
