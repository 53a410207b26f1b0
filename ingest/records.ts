/**
 * Log records of one request. Invariant: records are a function of the request alone (its accepted lines, its key, the
 * dataset, the settings), never of the requests it was decoded with; so a retry under one Idempotency-Key makes the very
 * same record ids.
 */
import { createHash } from 'node:crypto'
import type { NewRecord } from '../model/ports/event-log.ts'

export type RecordLimits = { recordBytes: number; recordEvents: number }

/** Consecutive lines that travel together: `events` of them, the first being number `first` of the request; `ends` inside `bytes`. */
export type Chunk = { bytes: Buffer; events: number; first: number; ends: Uint32Array }

/** Cuts lines (given by their ends) into chunks: one is closed as soon as it has `recordBytes` or `recordEvents`. */
export const cutChunks = (bytes: Buffer, ends: Uint32Array, limits: RecordLimits): Chunk[] => {
  const chunks: Chunk[] = []
  let first = 0
  let from = 0
  for (let line = 0; line < ends.length; line++) {
    const end = ends[line]!
    const events = line + 1 - first
    if (end - from < limits.recordBytes && events < limits.recordEvents && line + 1 < ends.length) continue
    const own = from === 0 ? ends.subarray(first, line + 1) : ends.slice(first, line + 1)
    if (from > 0) for (let i = 0; i < own.length; i++) own[i]! -= from
    chunks.push({ bytes: bytes.subarray(from, end), events, first, ends: own })
    first = line + 1
    from = end
  }
  return chunks
}

/**
 * What names a request: the client's Idempotency-Key, or one that was never used before. `unique`: no other request has it,
 * so the bytes need not be hashed to tell two records apart.
 */
export type RequestKey = { text: string; unique: boolean }

/** 32 hex digits of SHA-256 over dataset, partition, key, chunk number and, unless the key is unique, bytes; NUL between them. */
export const recordIdOf = (
  dataset: string,
  partition: number,
  key: RequestKey,
  chunk: number,
  bytes: Uint8Array,
): string => {
  const hash = createHash('sha256').update(`${dataset}\0${partition}\0${key.text}\0${chunk}\0`)
  if (!key.unique) hash.update(bytes)
  return hash.digest('hex').slice(0, 32)
}

/** A chunk without some of its lines (their numbers inside the chunk, ascending, without repeats). */
export const withoutLines = (chunk: Chunk, dead: number[]): { bytes: Buffer; events: number } => {
  const parts: Buffer[] = []
  let from = 0
  for (const line of dead) {
    const start = line === 0 ? 0 : chunk.ends[line - 1]!
    if (start > from) parts.push(chunk.bytes.subarray(from, start))
    from = chunk.ends[line]!
  }
  if (from < chunk.bytes.byteLength) parts.push(chunk.bytes.subarray(from))
  return { bytes: Buffer.concat(parts), events: chunk.events - dead.length }
}

/** Records of the request's only partition: its chunks without their dead lines, empty ones left out, numbers kept. */
export const recordsOfChunks = (
  dataset: string,
  partition: number,
  key: RequestKey,
  chunks: Chunk[],
  dead: ReadonlyMap<number, number[]>,
): NewRecord[] =>
  chunks.flatMap((chunk, number) => {
    const lines = dead.get(number)
    const { bytes, events } = lines === undefined ? chunk : withoutLines(chunk, lines)
    return events === 0 ? [] : [{ recordId: recordIdOf(dataset, partition, key, number, bytes), bytes, events }]
  })

/**
 * Records of a request whose lines go to several partitions: `partitionOf[line]`, negative for lines that are dropped.
 * Lines keep their order inside a partition.
 */
export const recordsByPartition = (
  dataset: string,
  key: RequestKey,
  bytes: Buffer,
  ends: Uint32Array,
  partitionOf: Int32Array,
  limits: RecordLimits,
): Map<number, NewRecord[]> => {
  const lengths = new Map<number, { bytes: number; lines: number }>()
  const startOf = (line: number): number => (line === 0 ? 0 : ends[line - 1]!)
  for (let line = 0; line < ends.length; line++) {
    const p = partitionOf[line]!
    if (p < 0) continue
    const sum = lengths.get(p)
    if (sum === undefined) lengths.set(p, { bytes: ends[line]! - startOf(line), lines: 1 })
    else {
      sum.bytes += ends[line]! - startOf(line)
      sum.lines++
    }
  }
  const found = new Map<number, NewRecord[]>()
  for (const [p, sum] of [...lengths].sort(([a], [b]) => a - b)) {
    const own = Buffer.allocUnsafe(sum.bytes)
    const ownEnds = new Uint32Array(sum.lines)
    let at = 0
    let n = 0
    for (let line = 0; line < ends.length; line++) {
      if (partitionOf[line] !== p) continue
      at += bytes.copy(own, at, startOf(line), ends[line]!)
      ownEnds[n++] = at
    }
    found.set(p, recordsOfChunks(dataset, p, key, cutChunks(own, ownEnds, limits), new Map()))
  }
  return found
}
