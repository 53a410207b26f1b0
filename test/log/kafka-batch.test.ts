/** Record batches without a broker: what is written is read back, and what was damaged is not. */
import { randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutRecords } from '../../log/kafka-append.ts'
import {
  type Batch,
  committed,
  DamagedBatch,
  encodeBatch,
  hasGap,
  OldMessageFormat,
  readBatches,
  readMessages,
} from '../../log/kafka-batch.ts'
import { unpack } from '../../log/kafka-codecs.ts'
import { crc32c } from '../../log/kafka-crc.ts'
import { foreignId, linesOf, messageOf, placeOf, RECORD_ID, recordsOf } from '../../log/kafka-record.ts'
import { newReader, newWriter } from '../../log/kafka-wire.ts'
import { recordOf } from './kafka-support.ts'

const TIME_MS = Date.UTC(2026, 10, 26)
const MIB = 1024 * 1024
const someRecords = [recordOf('{"a":1}'), recordOf('{"a":2}', '{"a":3}'), recordOf(`{"text":"${'ü'.repeat(9000)}"}`)]

/** A batch as a broker stores it: with an offset, an epoch, its own checksum. */
const stored = async (baseOffset: number, epoch: number, codec: 'none' | 'gzip' = 'none'): Promise<Buffer> => {
  const bytes = Buffer.from(await encodeBatch(someRecords.map(messageOf), TIME_MS, codec))
  bytes.writeBigInt64BE(BigInt(baseOffset), 0)
  bytes.writeInt32BE(epoch, 12)
  return bytes
}
const withChecksum = (bytes: Buffer): Buffer => {
  bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17)
  return bytes
}
const place = placeOf('cluster.topic', 3)

describe('record batches', () => {
  it.each(['none', 'gzip'] as const)('come back as they were written (%s)', async (codec) => {
    const bytes = Buffer.concat([await stored(10, 2, codec), await stored(13, 3, codec)])
    const batches = readBatches(bytes)
    expect(batches).toMatchObject([
      { baseOffset: 10, lastOffset: 12, leaderEpoch: 2, count: 3, appendTimeMs: null, isControl: false },
      { baseOffset: 13, lastOffset: 15, leaderEpoch: 3 },
    ])
    const messages = await readMessages(batches[0]!, [RECORD_ID], MIB)
    const records = recordsOf(batches[0]!, messages, place)
    expect(records.map((r) => r.offset)).toEqual([10, 11, 12])
    expect(records.map(({ recordId, bytes: b, events }) => ({ recordId, bytes: Buffer.from(b), events }))).toEqual(
      someRecords,
    )
    expect(records.every((r) => r.appendTimeMs === TIME_MS)).toBe(true)
    const again = recordsOf(batches[1]!, await readMessages(batches[1]!, [RECORD_ID], MIB), place)
    expect(new Set([...records, ...again].map((r) => r.fingerprint)).size).toBe(6)
  })

  it('are dropped when the fetch cuts them off', async () => {
    const bytes = Buffer.concat([await stored(0, 0), await stored(3, 0)])
    const first = (await stored(0, 0)).byteLength
    for (let length = 0; length < bytes.byteLength; length += 101) {
      expect(readBatches(bytes.subarray(0, length))).toHaveLength(length < first ? 0 : 1)
    }
  })

  it('are refused when a single bit is wrong', async () => {
    const bytes = await stored(5, 1)
    const good = readBatches(bytes)
    for (let at = 16; at < bytes.byteLength; at += at < 80 ? 1 : 997) {
      const flipped = Buffer.from(bytes)
      flipped[at]! ^= 1 << (at % 8)
      expect(() => readBatches(flipped), `byte ${at}`).toThrow(at === 16 ? OldMessageFormat : DamagedBatch)
    }
    expect(readBatches(bytes)).toEqual(good)
  })

  it('that cannot be unpacked are one dead event, not a stop', async () => {
    const bytes = await stored(5, 1, 'gzip')
    bytes.fill(0xff, 80, 120)
    const [torn] = readBatches(withChecksum(bytes))
    const bomb: Batch = { ...torn!, packed: gzipSync(Buffer.alloc(4 * MIB)) }
    const unknown: Batch = { ...torn!, codec: 7 }
    const lying: Batch = { ...torn!, codec: 0, count: 1e9, packed: Buffer.from([2, 0]) }
    for (const batch of [torn!, bomb, unknown, lying]) {
      const messages = await readMessages(batch, [], MIB)
      expect(messages).toBeNull()
      expect(recordsOf(batch, messages, place)).toMatchObject([{ offset: 7, events: 1, recordId: foreignId(place, 7) }])
    }
  })

  it('tell of compaction by the offsets that are missing', () => {
    const batch = (baseOffset: number, lastOffset: number, count = lastOffset - baseOffset + 1): Batch =>
      ({ baseOffset, lastOffset, count }) as Batch
    expect(hasGap([], 5)).toBe(false)
    expect(hasGap([batch(3, 7), batch(8, 8), batch(9, 20)], 5)).toBe(false)
    expect(hasGap([batch(6, 7)], 5)).toBe(true)
    expect(hasGap([batch(3, 7), batch(9, 9)], 5)).toBe(true)
    expect(hasGap([batch(3, 7, 4)], 5)).toBe(true)
  })

  it('of aborted transactions are holes, those of others are not', () => {
    const batch = (baseOffset: number, producerId: number, kind: 'data' | 'plain' | 'commit' | 'abort'): Batch => {
      const key = Buffer.from([0, 0, 0, kind === 'commit' ? 1 : 0])
      const w = newWriter().varint(16).int8(0).varint(0).varint(0).varint(4).raw(key).varint(6).raw(Buffer.alloc(6))
      return {
        baseOffset,
        lastOffset: baseOffset,
        leaderEpoch: 0,
        checksum: 0,
        appendTimeMs: 0,
        firstTimeMs: 0,
        producerId: BigInt(producerId),
        isTransactional: kind !== 'plain',
        isControl: kind === 'commit' || kind === 'abort',
        codec: 0,
        count: 1,
        packed: w.varint(0).done(),
      }
    }
    const batches = [
      batch(10, 1, 'data'),
      batch(11, 2, 'data'),
      batch(12, 1, 'plain'),
      batch(13, 1, 'abort'),
      batch(14, 1, 'data'),
      batch(15, 2, 'commit'),
      batch(16, 1, 'commit'),
      batch(17, 1, 'data'),
      batch(18, 1, 'abort'),
      batch(19, 1, 'data'),
    ]
    const aborted = [
      { producerId: 1n, firstOffset: 17 },
      { producerId: 1n, firstOffset: 3 },
    ]
    expect(committed(batches, aborted).map((b) => b.baseOffset)).toEqual([11, 12, 14, 19])
  })
})

describe('codecs', () => {
  it('refuse what grows beyond the limit', async () => {
    const zeros = Buffer.alloc(2 * MIB)
    await expect(unpack(1, gzipSync(zeros), MIB)).rejects.toThrow()
    expect((await unpack(1, gzipSync(zeros), 3 * MIB)).byteLength).toBe(2 * MIB)
    for (const codec of [2, 3, 4, 5]) await expect(unpack(codec, randomBytes(100), MIB)).rejects.toThrow()
  })
})

describe('the wire', () => {
  it('keeps numbers', () => {
    const numbers = [0, 1, -1, 63, -64, 64, 300, -300, 2 ** 31, -(2 ** 31), 2 ** 45 + 7, -(2 ** 52)]
    for (const n of numbers) {
      const bytes = newWriter(1).varint(n).int64(n).done()
      const r = newReader(bytes)
      expect([r.varint(), r.int64(), r.left()]).toEqual([n, n, 0])
    }
    const r = newReader(newWriter(1).uvarint(300).string('ü').compactString(null).tags().done())
    expect([r.uvarint(), r.string(), r.compactString()]).toEqual([300, 'ü', null])
    r.tags()
    expect(() => r.int8()).toThrow(RangeError)
  })
  it('has the checksum of the standard', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
    expect(crc32c(Buffer.alloc(0))).toBe(0)
  })
})

describe('values as lines', () => {
  it('are as many non-blank ended lines as events, for any bytes', () => {
    const part = fc.constantFrom('{"a":1}', '{', '}', '[', ']', '"', '\n', '\r', '\r\n', ' ', '\t', 'x', '1', ',', 'ü')
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), fc.boolean(), (parts, isOwn) => {
        const { bytes, events } = linesOf(Buffer.from(parts.join('')), isOwn)
        const text = bytes.toString('latin1')
        expect(text.endsWith('\n')).toBe(true)
        const lines = text.slice(0, -1).split('\n')
        expect(lines).toHaveLength(events)
        for (const line of lines) expect(line).toMatch(/^[^ \t\r\n][^\r\n]*$/)
      }),
      { numRuns: 3000 },
    )
  })
  it('leave nothing out', () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue(), { minLength: 1, maxLength: 5 }), fc.boolean(), (values, pretty) => {
        const texts = values.map((v) => JSON.stringify(v, null, pretty && values.length === 1 ? 2 : 0))
        const { bytes, events } = linesOf(Buffer.from(texts.join('\r\n')), false)
        const lines = bytes.toString().trimEnd().split('\n')
        expect(events).toBe(values.length)
        expect(lines.map((line) => JSON.parse(line))).toEqual(JSON.parse(JSON.stringify(values)))
      }),
    )
  })
})

describe('sends', () => {
  it('are cut below the limit, in order, with larger records alone', () => {
    const record = (size: number) => ({ recordId: '0'.repeat(32), bytes: Buffer.alloc(size, 'x'), events: 1 })
    const sizes = [100, 200, 5000, 100, 400, 300]
    const parts = cutRecords(sizes.map(record), 1000)
    expect(parts.flat().map((r) => r.bytes.byteLength)).toEqual(sizes)
    expect(parts.map((p) => p.length)).toEqual([2, 1, 2, 1])
    expect(cutRecords([], 1000)).toEqual([])
  })
})
