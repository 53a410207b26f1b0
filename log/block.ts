/**
 * Blocks: the stored form of consecutive records of one partition. Pure.
 * Invariant: a block that decodes is the block that was encoded under this key: the CRC covers every byte and the key.
 *
 * Layout (little endian): 0 u8 format · 1 u8 codec (1 = NDJSON) · 2 u16 zero · 4 u32 CRC-32 · 8 f64 first offset ·
 * 16 u32 records · 20 u32 1 if a record precedes · 24 f64 effective time before · 32 8 bytes fingerprint before ·
 * then per record 40 bytes: id 16, fingerprint 8, append time f64, events u32, length u32 · then the records' bytes.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { LogRecord, NewRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { badFormat, corrupt } from './log-errors.ts'

export const BLOCK_FORMAT = 1
const NDJSON = 1
const HEADER = 40
const ENTRY = 40

/** A block as a reader sees it: `before` is the position of its first record, `bytes` the whole stored value. */
export type Block = { before: Position; count: number; bytes: Buffer; dataAt: number }

/**
 * Fingerprint of an append: 16 hex digits of SHA-256 over the fingerprint before (the log id at genesis), the record's
 * id, its append time, and the number of its events and bytes. What the bytes say is the record id's business: hashing
 * them a second time took a tenth of ingest's CPU. Chained, so equal bytes appended again have another one.
 */
export const fingerprintOf = (before: Position, record: NewRecord, appendTimeMs: number): string =>
  createHash('sha256')
    .update(before.fingerprint === '' ? before.logId : before.fingerprint)
    .update(record.recordId)
    .update(`/${appendTimeMs}/${record.events}/${record.bytes.byteLength}`)
    .digest('hex')
    .slice(0, 16)

const checksum = (bytes: Buffer, key: string): number =>
  crc32(bytes.subarray(8), crc32(bytes.subarray(0, 4), crc32(key)))

/**
 * Encodes records that follow `before`; returns the stored bytes, in memory from `alloc`, and the position after the last
 * record.
 */
export const encodeBlock = (
  key: string,
  before: Position,
  records: { record: NewRecord; appendTimeMs: number }[],
  alloc: (size: number) => Buffer = Buffer.allocUnsafe,
): { bytes: Buffer; after: Position } => {
  const dataAt = HEADER + records.length * ENTRY
  const size = records.reduce((sum, r) => sum + r.record.bytes.byteLength, dataAt)
  const bytes = alloc(size)
  bytes[0] = BLOCK_FORMAT
  bytes[1] = NDJSON
  bytes.writeUInt16LE(0, 2)
  bytes.writeDoubleLE(before.offset, 8)
  bytes.writeUInt32LE(records.length, 16)
  bytes.writeUInt32LE(before.fingerprint === '' ? 0 : 1, 20)
  bytes.writeDoubleLE(before.effectiveMs, 24)
  bytes.write(before.fingerprint === '' ? '0'.repeat(16) : before.fingerprint, 32, 'hex')
  let at = before
  let entry = HEADER
  let data = dataAt
  for (const { record, appendTimeMs } of records) {
    const fingerprint = fingerprintOf(at, record, appendTimeMs)
    bytes.write(record.recordId, entry, 'hex')
    bytes.write(fingerprint, entry + 16, 'hex')
    bytes.writeDoubleLE(appendTimeMs, entry + 24)
    bytes.writeUInt32LE(record.events, entry + 32)
    bytes.writeUInt32LE(record.bytes.byteLength, entry + 36)
    bytes.set(record.bytes, data)
    entry += ENTRY
    data += record.bytes.byteLength
    at = {
      logId: at.logId,
      offset: at.offset + 1,
      fingerprint,
      effectiveMs: Math.max(at.effectiveMs, appendTimeMs),
    }
  }
  bytes.writeUInt32LE(checksum(bytes, key), 4)
  return { bytes, after: at }
}

/** Checks and opens a stored block. Throws WEIR_LOG_FORMAT for a newer format, WEIR_LOG_CORRUPT for anything else that is off. */
export const openBlock = (key: string, logId: string, firstOffset: number, bytes: Buffer): Block => {
  if (bytes.byteLength < HEADER || checksum(bytes, key) !== bytes.readUInt32LE(4)) {
    throw corrupt(`block ${key} does not match its checksum`)
  }
  if (bytes[0] !== BLOCK_FORMAT) throw badFormat(`block ${key}`, bytes[0]!, BLOCK_FORMAT)
  if (bytes[1] !== NDJSON) throw badFormat(`a codec in block ${key}`, bytes[1]!, NDJSON)
  if (bytes.readDoubleLE(8) !== firstOffset) throw corrupt(`block ${key} begins at ${bytes.readDoubleLE(8)}`)
  const count = bytes.readUInt32LE(16)
  const before: Position = {
    logId,
    offset: firstOffset,
    fingerprint: bytes.readUInt32LE(20) === 0 ? '' : bytes.toString('hex', 32, 40),
    effectiveMs: bytes.readDoubleLE(24),
  }
  return { before, count, bytes, dataAt: HEADER + count * ENTRY }
}

/** Position after `n` of the block's records (0 ≤ n ≤ count). */
export const positionIn = (block: Block, n: number): Position => {
  if (n === 0) return block.before
  const { bytes, before } = block
  let effectiveMs = before.effectiveMs
  for (let i = 0; i < n; i++) effectiveMs = Math.max(effectiveMs, bytes.readDoubleLE(HEADER + i * ENTRY + 24))
  const last = HEADER + (n - 1) * ENTRY
  const fingerprint = bytes.toString('hex', last + 16, last + 24)
  return { logId: before.logId, offset: before.offset + n, fingerprint, effectiveMs }
}

/**
 * Adds records from index `from` on to `into` until `maxRecords` or `maxBytes` is reached (always one at least when
 * `into` is empty). Their bytes are subarrays of the block's. Returns the index after the last one taken and their bytes.
 */
export const takeRecords = (
  block: Block,
  from: number,
  into: LogRecord[],
  room: { bytes: number; records: number },
): { next: number; bytes: number } => {
  const { bytes, before, count, dataAt } = block
  let data = dataAt
  for (let i = 0; i < from; i++) data += bytes.readUInt32LE(HEADER + i * ENTRY + 36)
  let taken = 0
  let i = from
  for (; i < count; i++) {
    const entry = HEADER + i * ENTRY
    const length = bytes.readUInt32LE(entry + 36)
    if (into.length > 0 && (taken + length > room.bytes || into.length >= room.records)) break
    into.push({
      offset: before.offset + i,
      recordId: bytes.toString('hex', entry, entry + 16),
      fingerprint: bytes.toString('hex', entry + 16, entry + 24),
      appendTimeMs: bytes.readDoubleLE(entry + 24),
      events: bytes.readUInt32LE(entry + 32),
      bytes: bytes.subarray(data, data + length),
    })
    data += length
    taken += length
  }
  return { next: i, bytes: taken }
}
