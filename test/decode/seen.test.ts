/** The map of ids: against a plain Map, with growth, purges and a full map. */
import { expect, test } from 'vitest'
import { createSeen, idWords, recordWords } from '../../model/decode/seen.ts'
import { createTable, find, purge, put, resize, roomOf, timeAt } from '../../model/decode/seen-table.ts'
import type { Position } from '../../model/position.ts'
import { randomOf } from './odd-values.ts'

const at = (offset: number, effectiveMs: number): Position => ({
  logId: 'l',
  offset,
  fingerprint: `${offset}`,
  effectiveMs,
})

test('the table is a Map, through growth and purges, with hashes that crowd', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const r = randomOf(seed)
    // Few first words, many of them at the end of the range: long runs that wrap around.
    const words = (n: number): Uint32Array =>
      Uint32Array.of(n % 3 === 0 ? 0xffffffff - (n % 5) : (n % 40) * 100_000_000, n % 7, 0, n)
    const table = createTable()
    const map = new Map<number, number>()
    for (let step = 0; step < 4_000; step++) {
      const n = Math.floor(r() * 300)
      if (r() < 0.01) {
        const before = Math.floor(r() * step)
        purge(table, before)
        for (const [k, t] of map) if (t <= before) map.delete(k)
      } else {
        if (table.size >= roomOf(table)) resize(table, table.slots + 1 + Math.floor(r() * 64))
        put(table, words(n), 0, step)
        map.set(n, step)
      }
      if (step % 50 === 0 || r() < 0.01) {
        const differing = Array.from({ length: 300 }, (_, k) => k).filter((k) => {
          const slot = find(table, words(k), 0)
          return (slot < 0 ? undefined : timeAt(table, slot)) !== map.get(k)
        })
        expect([table.size, differing]).toEqual([map.size, []])
      }
    }
  }
})

test('a hash of zeros is kept apart from a free slot', () => {
  const seen = createSeen(at(0, 0), { capacity: 10, windowMs: 10 })
  const zeros = recordWords('0'.repeat(32))
  const first = seen.overlay()
  expect([first.record(zeros, 0, 5), first.event(zeros, 0, 5), first.event(zeros, 0, 6)]).toEqual([false, false, true])
})

test('the window is half open, and refreshed by duplicates', () => {
  const seen = createSeen(at(0, 0), { capacity: 10, windowMs: 100 })
  const a = idWords('a')
  const o = seen.overlay()
  expect([0, 99, 198, 298, 397, 500].map((t) => o.event(a, 0, t))).toEqual([false, true, true, false, true, false])
})

test('nothing is evicted within its window; a full map says so, and takes more once windows are over', () => {
  const seen = createSeen(at(0, 0), { capacity: 1_000, windowMs: 100 })
  const take = (from: number, to: number, ms: number): boolean[] => {
    const o = seen.overlay()
    const verdicts: boolean[] = []
    for (let i = from; i < to; i++) verdicts.push(o.event(idWords(String(i)), 0, ms))
    seen.accept(o.change(), at(seen.position.offset + 1, ms))
    return verdicts
  }
  take(0, 600, 1_000)
  take(600, 1_000, 1_050)
  expect(() => take(1_000, 1_001, 1_099)).toThrowError(/more event ids/)
  expect(take(0, 1_000, 1_099).every((d) => d)).toBe(true)
  // At 1,199 the window of all of them is over; their room is free before they are gone.
  expect(take(2_000, 3_000, 1_199).some((d) => d)).toBe(false)
  expect(seen.size).toBeLessThanOrEqual(2_000)
  try {
    take(5_000, 6_000, 1_200)
    expect.unreachable()
  } catch (error) {
    expect(error).toMatchObject({ code: 'WEIR_DECODE_SEEN_FULL', retryable: true, got: '2000' })
  }
  expect(seen.position.effectiveMs).toBe(1_199)
})

test('a change belongs to the state that it was made on', () => {
  const seen = createSeen(at(0, 0), { capacity: 10, windowMs: 10 })
  const [one, two] = [seen.overlay().change(), seen.overlay().change()]
  seen.accept(one, at(1, 1))
  expect(() => seen.accept(two, at(2, 2))).toThrowError(/another state/)
})
