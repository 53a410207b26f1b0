/**
 * Reading the LMDB log: partition states, finding blocks, ranges of records.
 * Invariant: one call = one read transaction, so the proof of record `from − 1` and the records come from one snapshot.
 */
import { crc32 } from 'node:zlib'
import type { RootDatabase, Transaction } from 'lmdb'
import type { ReadLimits, ReadResult } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { type Block, openBlock, positionIn, takeRecords } from './block.ts'
import { badFormat, corrupt } from './log-errors.ts'

export type LogDatabase = RootDatabase<Buffer, (string | number)[]>

export const STATE_FORMAT = 1

/** What is stored of a partition: where its records start and end, the bytes of its blocks, and the events ever appended (absent
 *  where the partition was made before they were counted). */
export type PartitionState = { formatVersion: 1; start: Position; end: Position; bytes: number; events?: number }

export const stateKey = (dataset: string, partition: number): (string | number)[] => ['p', dataset, partition]
export const blockKey = (dataset: string, partition: number, offset: number): (string | number)[] => [
  'b',
  dataset,
  partition,
  offset,
]
const keyText = (key: (string | number)[]): string => JSON.stringify(key)

/** One format byte, CRC-32 (4 bytes, over key and text), JSON. */
export const encodeValue = (key: (string | number)[], value: unknown): Buffer => {
  const text = Buffer.from(JSON.stringify(value))
  const head = Buffer.alloc(5)
  head[0] = STATE_FORMAT
  head.writeUInt32LE(crc32(text, crc32(keyText(key))), 1)
  return Buffer.concat([head, text])
}

export const decodeValue = <T>(key: (string | number)[], bytes: Buffer): T => {
  if (bytes[0] !== STATE_FORMAT && bytes[0] !== undefined && bytes[0] > STATE_FORMAT) {
    throw badFormat(`the entry ${keyText(key)}`, bytes[0], STATE_FORMAT)
  }
  const text = bytes.subarray(5)
  if (bytes.byteLength < 5 || bytes[0] !== STATE_FORMAT || bytes.readUInt32LE(1) !== crc32(text, crc32(keyText(key)))) {
    throw corrupt(`the entry ${keyText(key)} does not match its checksum`)
  }
  return JSON.parse(text.toString()) as T
}

export const readValue = <T>(db: LogDatabase, key: (string | number)[], transaction?: Transaction): T | undefined => {
  const bytes = db.get(key, transaction === undefined ? undefined : { transaction })
  return bytes === undefined ? undefined : decodeValue<T>(key, bytes)
}

export const readState = (
  db: LogDatabase,
  dataset: string,
  partition: number,
  transaction?: Transaction,
): PartitionState | undefined => readValue(db, stateKey(dataset, partition), transaction)

/** Runs `use` in one read transaction. */
export const snapshot = <T>(db: LogDatabase, use: (transaction: Transaction) => T): T => {
  db.resetReadTxn()
  const transaction = db.useReadTransaction()
  try {
    return use(transaction)
  } finally {
    transaction.done()
  }
}

export const blockAt = (
  db: LogDatabase,
  logId: string,
  dataset: string,
  partition: number,
  firstOffset: number,
  transaction?: Transaction,
): Block | undefined => {
  const key = blockKey(dataset, partition, firstOffset)
  const bytes = db.get(key, transaction === undefined ? undefined : { transaction })
  return bytes === undefined ? undefined : openBlock(keyText(key), logId, firstOffset, bytes)
}

/** The block that holds record `offset`; it must exist. */
export const blockOf = (
  db: LogDatabase,
  logId: string,
  dataset: string,
  partition: number,
  offset: number,
  transaction?: Transaction,
): Block => {
  const range = {
    start: blockKey(dataset, partition, offset),
    end: ['b', dataset, partition],
    reverse: true,
    limit: 1,
    ...(transaction === undefined ? {} : { transaction }),
  }
  for (const key of db.getKeys(range)) {
    const block = blockAt(db, logId, dataset, partition, Number(key[3]), transaction)
    if (block !== undefined && offset < block.before.offset + block.count) return block
  }
  throw corrupt(`record ${offset} of ${dataset}/${partition} is missing`)
}

/** Position with `offset`, start ≤ offset ≤ end of the state. */
export const positionOf = (
  db: LogDatabase,
  dataset: string,
  partition: number,
  state: PartitionState,
  offset: number,
  transaction?: Transaction,
): Position => {
  if (offset === state.start.offset) return state.start
  if (offset === state.end.offset) return state.end
  const block = blockOf(db, state.end.logId, dataset, partition, offset - 1, transaction)
  return positionIn(block, offset - block.before.offset)
}

/** One look at the log, as `EventLog.read` answers it, without waiting. */
export const readOnce = (
  db: LogDatabase,
  dataset: string,
  partition: number,
  state: PartitionState,
  from: Position,
  limits: ReadLimits,
  transaction: Transaction,
): ReadResult => {
  const { start, end } = state
  const { logId } = end
  if (from.logId !== logId) return { kind: 'replaced' }
  if (from.offset < start.offset) return { kind: 'below-start', startOffset: start.offset }
  if (from.offset > end.offset) return { kind: 'beyond-end', endOffset: end.offset }
  const own = positionOf(db, dataset, partition, state, from.offset, transaction)
  if (own.fingerprint !== from.fingerprint) return { kind: 'replaced' }
  const records: Extract<ReadResult, { kind: 'records' }>['records'] = []
  if (own.offset === end.offset) return { kind: 'records', records, to: own, logEndOffset: end.offset }
  const room = { bytes: limits.maxBytes, records: limits.maxRecords ?? Number.POSITIVE_INFINITY }
  let block = blockOf(db, logId, dataset, partition, own.offset, transaction)
  let index = own.offset - block.before.offset
  for (;;) {
    const taken = takeRecords(block, index, records, room)
    room.bytes -= taken.bytes
    index = taken.next
    const next = block.before.offset + block.count
    if (index < block.count || next >= end.offset || room.bytes <= 0 || records.length >= room.records) break
    const following = blockAt(db, logId, dataset, partition, next, transaction)
    if (following === undefined) throw corrupt(`record ${next} of ${dataset}/${partition} is missing`)
    if (following.before.fingerprint !== positionIn(block, block.count).fingerprint) {
      throw corrupt(`record ${next} of ${dataset}/${partition} does not follow the one before it`)
    }
    block = following
    index = 0
  }
  return { kind: 'records', records, to: positionIn(block, index), logEndOffset: end.offset }
}
