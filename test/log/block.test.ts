/** Blocks: round trip, chained fingerprints, and every single flipped bit or cut found. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeBlock, fingerprintOf, openBlock, positionIn, takeRecords } from '../../log/block.ts'
import type { LogRecord } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { record } from './support.ts'

const KEY = '["b","d",0,7]'
const before: Position = { logId: 'log', offset: 7, fingerprint: '0123456789abcdef', effectiveMs: 1_000 }
const ALL = { bytes: Number.POSITIVE_INFINITY, records: Number.POSITIVE_INFINITY }

describe('a block', () => {
  test('gives back what went in, from any record on, with any room', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ size: fc.nat(50), time: fc.nat(5_000) }), { minLength: 1, maxLength: 20 }),
        fc.nat(19),
        fc.integer({ min: 1, max: 300 }),
        (made, skip, bytesRoom) => {
          const records = made.map(({ size, time }, n) => ({ record: record(n, size), appendTimeMs: time }))
          const { bytes, after } = encodeBlock(KEY, before, records)
          const block = openBlock(KEY, 'log', 7, bytes)
          const all: LogRecord[] = []
          expect(takeRecords(block, 0, all, { ...ALL }).next).toBe(records.length)
          expect(
            all.map((r) => [r.offset, r.recordId, r.events, r.appendTimeMs, Buffer.from(r.bytes).toString()]),
          ).toEqual(records.map((r, n) => [7 + n, r.record.recordId, 1, r.appendTimeMs, r.record.bytes.toString()]))
          expect(positionIn(block, records.length)).toEqual(after)
          expect(after.effectiveMs).toBe(Math.max(1_000, ...made.map((m) => m.time)))
          for (let n = 1; n <= records.length; n++) {
            const previous = positionIn(block, n - 1)
            const { record: own, appendTimeMs } = records[n - 1]!
            expect(positionIn(block, n).fingerprint).toBe(fingerprintOf(previous, own, appendTimeMs))
          }
          const from = Math.min(skip, records.length - 1)
          const some: LogRecord[] = []
          const taken = takeRecords(block, from, some, { bytes: bytesRoom, records: 3 })
          expect(some).toEqual(all.slice(from, taken.next))
          expect(some.length).toBeGreaterThan(0)
          expect(some.length).toBeLessThanOrEqual(3)
          if (some.length > 1) expect(taken.bytes).toBeLessThanOrEqual(bytesRoom)
        },
      ),
      { numRuns: 200 },
    )
  })

  test('equal bytes appended again, or after something else, have another fingerprint', () => {
    const one = fingerprintOf(before, record(1), 5)
    expect(fingerprintOf({ ...before, fingerprint: one }, record(1), 5)).not.toBe(one)
    expect(fingerprintOf(genesis('a'), record(1), 5)).not.toBe(fingerprintOf(genesis('b'), record(1), 5))
    expect(fingerprintOf(before, record(1), 6)).not.toBe(one)
  })

  test('every flipped bit, every cut, another key or offset is WEIR_LOG_CORRUPT (or _FORMAT)', () => {
    const { bytes } = encodeBlock(KEY, before, [
      { record: record(1, 20), appendTimeMs: 5 },
      { record: record(2, 3), appendTimeMs: 6 },
    ])
    openBlock(KEY, 'log', 7, bytes)
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const bad = Buffer.from(bytes)
      bad[bit >> 3]! ^= 1 << (bit & 7)
      expect(() => openBlock(KEY, 'log', 7, bad), `bit ${bit}`).toThrow(/damaged/)
    }
    for (let length = 0; length < bytes.byteLength; length++) {
      expect(() => openBlock(KEY, 'log', 7, bytes.subarray(0, length)), `length ${length}`).toThrow(/damaged/)
    }
    expect(() => openBlock('["b","d",1,7]', 'log', 7, bytes)).toThrow(/damaged/)
    expect(() => openBlock(KEY, 'log', 8, bytes)).toThrow(/damaged/)
  })
})
