/**
 * Kafka's record batches (message format 2): what a fetch brings, and what an append sends.
 * Invariant: a batch is used only whole and with a matching checksum; control records and records of aborted transactions
 * never leave this file, they are holes.
 *
 * Layout (big endian): 0 i64 base offset · 8 i32 length of the rest · 12 i32 leader epoch · 16 i8 magic · 17 u32 CRC-32C of
 * all that follows · 21 i16 attributes · 23 i32 last offset delta · 27 i64 first time · 35 i64 greatest time ·
 * 43 i64 producer id · 51 i16 producer epoch · 53 i32 sequence · 57 i32 records · 61 the records, packed or not.
 */
import { GZIP, packGzip, unpack } from './kafka-codecs.ts'
import { crc32c } from './kafka-crc.ts'
import { newReader, newWriter } from './kafka-wire.ts'

export type Batch = {
  baseOffset: number
  lastOffset: number
  leaderEpoch: number
  checksum: number
  /** Set when the records of the batch have the broker's time, all the same. */
  appendTimeMs: number | null
  firstTimeMs: number
  producerId: bigint
  isTransactional: boolean
  isControl: boolean
  codec: number
  count: number
  packed: Buffer
}

export type Message = {
  offset: number
  timeMs: number
  value: Buffer | null
  /** Values of the headers asked for, in their order; undefined: absent. */
  headers: (Buffer | undefined)[]
}

export const BATCH_HEADER = 61
const MAGIC = 2

/** A batch that does not match its checksum, or ends too early. */
export class DamagedBatch extends Error {}
export class OldMessageFormat extends Error {
  readonly magic: number
  constructor(magic: number) {
    super(`message format ${magic}`)
    this.magic = magic
  }
}

/** Batches of a fetch, without a last one that is cut off. Throws DamagedBatch, OldMessageFormat. */
export const readBatches = (records: Buffer): Batch[] => {
  const batches: Batch[] = []
  for (let at = 0; at + BATCH_HEADER <= records.byteLength; ) {
    const end = at + 12 + records.readInt32BE(at + 8)
    if (end > records.byteLength) break
    const magic = records.readInt8(at + 16)
    if (magic !== MAGIC) throw new OldMessageFormat(magic)
    const bytes = records.subarray(at, end)
    const checksum = bytes.readUInt32BE(17)
    const r = newReader(bytes)
    const baseOffset = r.int64()
    if (crc32c(bytes.subarray(21)) !== checksum) throw new DamagedBatch(`the batch at offset ${baseOffset}`)
    r.int32()
    const leaderEpoch = r.int32()
    r.int8()
    r.int32()
    const attributes = r.int16()
    const lastOffset = baseOffset + r.int32()
    const [firstTimeMs, greatestTimeMs] = [r.int64(), r.int64()]
    const producerId = r.bigint64()
    r.int16()
    r.int32()
    batches.push({
      baseOffset,
      lastOffset,
      leaderEpoch,
      checksum,
      appendTimeMs: attributes & 8 ? greatestTimeMs : null,
      firstTimeMs,
      producerId,
      isTransactional: (attributes & 16) !== 0,
      isControl: (attributes & 32) !== 0,
      codec: attributes & 7,
      count: r.int32(),
      packed: bytes.subarray(BATCH_HEADER),
    })
    at = end
  }
  return batches
}

/**
 * Whether an offset from `offset` on is in no batch. Transactions leave batches of their own, so only compaction, at work now
 * or in the past, makes such a gap; it also takes records out of a batch.
 */
export const hasGap = (batches: Batch[], offset: number): boolean => {
  let next = offset
  for (const [i, { baseOffset, lastOffset, count }] of batches.entries()) {
    if (i === 0 ? baseOffset > next : baseOffset !== next) return true
    if (count !== lastOffset - baseOffset + 1) return true
    next = lastOffset + 1
  }
  return false
}

/** Whether a control batch ends its transaction by aborting it: its one record's key is (version, type). */
const isAbort = (batch: Batch): boolean => {
  const r = newReader(batch.packed)
  r.varint() // length
  r.int8()
  r.varint() // time
  r.varint() // offset
  return r.varint() >= 4 && r.int16() >= 0 && r.int16() === 0
}

/** Batches without control batches and those of aborted transactions, of which a fetch names the ones that reach into it. */
export const committed = (batches: Batch[], aborted: { producerId: bigint; firstOffset: number }[]): Batch[] => {
  const starting = [...aborted].sort((a, b) => a.firstOffset - b.firstOffset)
  const open = new Set<bigint>()
  return batches.filter((batch) => {
    while (starting.length > 0 && starting[0]!.firstOffset <= batch.lastOffset) open.add(starting.shift()!.producerId)
    if (!batch.isControl) return !(batch.isTransactional && open.has(batch.producerId))
    if (isAbort(batch)) open.delete(batch.producerId)
    return false
  })
}

/** Unpacks a batch; null when that cannot be done within `maxBytes`: the log keeps such bytes, so reading must go on past them. */
export const readMessages = async (batch: Batch, headers: string[], maxBytes: number): Promise<Message[] | null> => {
  try {
    const names = headers.map((name) => Buffer.from(name))
    const bytes = await unpack(batch.codec, batch.packed, maxBytes)
    const r = newReader(bytes)
    const messages: Message[] = []
    for (let n = 0; n < batch.count; n++) {
      r.varint() // length
      r.int8() // attributes: none are defined
      const timeDelta = r.varint()
      const offset = batch.baseOffset + r.varint()
      r.take(Math.max(0, r.varint())) // key
      const valueLength = r.varint()
      const value = valueLength < 0 ? null : r.take(valueLength)
      const found: (Buffer | undefined)[] = new Array(names.length).fill(undefined)
      for (let h = r.varint(); h > 0; h--) {
        const name = r.take(r.varint())
        const size = r.varint()
        const content = size < 0 ? undefined : r.take(size)
        const wanted = names.findIndex((known) => known.equals(name))
        if (wanted >= 0) found[wanted] ??= content
      }
      messages.push({ offset, timeMs: batch.appendTimeMs ?? batch.firstTimeMs + timeDelta, value, headers: found })
    }
    return messages
  } catch {
    return null
  }
}

/** Names and texts of headers are ASCII. */
export type NewMessage = { value: Uint8Array; headers: [string, string][] }

/** Bytes of a length or count as a zigzag varint. */
const sizeOf = (n: number): number => {
  let size = 1
  for (let rest = n * 2; rest > 0x7f; rest = Math.floor(rest / 0x80)) size++
  return size
}

/** One batch of messages without keys, all of the time `timeMs`. The broker sets offsets, epoch and, where it is to, the time. */
export const encodeBatch = async (messages: NewMessage[], timeMs: number, codec: 'none' | 'gzip'): Promise<Buffer> => {
  const records = newWriter(messages.reduce((sum, m) => sum + m.value.byteLength + 128, 0))
  messages.forEach(({ value, headers }, delta) => {
    const headerBytes = headers.reduce(
      (sum, [name, text]) => sum + sizeOf(name.length) + name.length + sizeOf(text.length) + text.length,
      sizeOf(headers.length),
    )
    // Attributes, time and the absent key take one byte each.
    records.varint(3 + sizeOf(delta) + sizeOf(value.byteLength) + value.byteLength + headerBytes)
    records.int8(0).varint(0).varint(delta).varint(-1)
    records.varint(value.byteLength).raw(value).varint(headers.length)
    for (const [name, text] of headers) records.varint(name.length).ascii(name).varint(text.length).ascii(text)
  })
  const plain = records.done()
  const packed = codec === 'gzip' ? await packGzip(plain) : plain
  const batch = newWriter(packed.byteLength + BATCH_HEADER)
  batch
    .int64(0)
    .int32(packed.byteLength + BATCH_HEADER - 12)
    .int32(-1)
    .int8(MAGIC)
    .uint32(0)
  batch
    .int16(codec === 'gzip' ? GZIP : 0)
    .int32(messages.length - 1)
    .int64(timeMs)
    .int64(timeMs)
  batch.int64(-1).int16(-1).int32(-1).int32(messages.length).raw(packed)
  const bytes = batch.done()
  bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17)
  return bytes
}
