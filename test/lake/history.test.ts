/** The History port over the lake: positions, counters, watermark and look-back windows at every offset; dead letters. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DeadLetter } from '../../lake/dead-table.ts'
import { openHistory } from '../../lake/lake.ts'
import { idWords, recordWords } from '../../model/decode/seen.ts'
import type { SeenIds } from '../../model/ports/history.ts'
import { archive, at, type Fixture, LOG, openFixture, position, recordIdOf } from './support.ts'

let f: Fixture
beforeEach(async () => {
  f = await openFixture()
})
afterEach(() => f.close())

const letter = (offset: number, index = 0): DeadLetter => ({
  offset,
  index,
  effectiveMs: at(offset),
  code: 'WEIR_DECODE_TYPE',
  column: 'amount',
  expected: 'DECIMAL(18,2)',
  got: 'a \ud800 lone surrogate',
  raw: Buffer.from([0x7b, 0xff, 0x00, offset]),
  recordId: `rec-0-${offset}`,
  fingerprint: position(offset + 1, 0).fingerprint,
})

describe('history', () => {
  it('answers for every offset what the rows say', async () => {
    let state = await archive(f.lake, f.dataset, { from: 0, to: 4 })
    await f.lake
      .dead(f.dataset)
      .append({ partition: 0, logId: LOG, to: 7, letters: [letter(5), letter(6), letter(6, 1)] })
    state = await archive(f.lake, f.dataset, { from: 4, to: 7, before: state, events: 0, dead: 3 })
    state = await archive(f.lake, f.dataset, { from: 7, to: 12, before: state })
    const history = openHistory(f.lake, [f.dataset])
    const all = await f.lake.scan(f.dataset, { below: { '0': position(12, at(11)) }, duplicates: true })
    for (let offset = 0; offset <= 12; offset++) {
      const [expected] = await f.engine.withSession((s) =>
        s.rows<{ c: string; d: string; w: string | null }>(
          `SELECT count(*) FILTER (NOT _duplicate) AS c, count(*) FILTER (_duplicate) AS d,
             epoch_us(max(ts) FILTER (NOT _duplicate AND ts <= _append_time)) AS w FROM ${all.sql} WHERE _offset < ${offset}`,
        ),
      )
      expect(await history.countsBelow('orders', 0, offset)).toEqual({
        counted: Number(expected!.c),
        duplicate: Number(expected!.d),
        dead: [0, 0, 0, 0, 0, 0, 1, 3, 3, 3, 3, 3, 3][offset],
        watermarkUs: expected!.w,
      })
      // Record 4 left no event and no letter: its position is unknown unless it is the end.
      const known = offset === 5 ? null : position(offset, at(offset - 1))
      const got = await history.positionAt('orders', 0, offset)
      expect(got).toEqual(offset === 0 ? position(0, 0) : known)
    }
    expect(await history.positionAt('orders', 0, 13)).toBeNull()
    await expect(history.countsBelow('orders', 0, 13)).rejects.toMatchObject({ code: 'WEIR_LAKE_NOT_ARCHIVED' })
    expect(await history.archived('orders', 1)).toBeNull()
    await expect(history.archived('nope', 0)).rejects.toMatchObject({ code: 'WEIR_LAKE_DATASET' })
  })

  it('gives the last effective time per id and per record inside the window only', async () => {
    const state = await archive(f.lake, f.dataset, { from: 0, to: 10 })
    await archive(f.lake, f.dataset, { from: 10, to: 20, before: state })
    const history = openHistory(f.lake, [f.dataset])
    const window = await history.window('orders', 0, 15, at(11))
    const entries = (ids: SeenIds): Map<string, number> => {
      if (Array.isArray(ids)) throw new Error('ids as objects')
      return new Map([...ids.effectiveMs].map((ms, i) => [ids.words.subarray(4 * i, 4 * i + 4).join(), ms]))
    }
    expect(entries(window.records)).toEqual(
      new Map([12, 13, 14].map((o) => [recordWords(recordIdOf(0, o)).join(), at(o)])),
    )
    expect(entries(window.events).size).toBe(9)
    expect(entries(window.events).get(idWords('id-42').join())).toBe(at(14))
    const plain = { ...f.dataset }
    delete plain.dedupeWindowMs
    const other = await openHistory(await f.other(), [plain]).window('orders', 0, 15, at(11))
    expect(other.events).toEqual([])
    expect(entries(other.records).size).toBe(3)
    const none = await history.window('orders', 0, 15, at(14))
    expect([entries(none.events).size, entries(none.records).size]).toEqual([0, 0])
  })
})

describe('dead letters', () => {
  it('are stored once each, however often a range is repeated', async () => {
    const dead = f.lake.dead(f.dataset)
    await dead.append({ partition: 0, logId: LOG, to: 10, letters: [letter(3), letter(9)] })
    // The crash: events were not committed, the repeat has another range.
    await dead.append({ partition: 0, logId: LOG, to: 14, letters: [letter(3), letter(9), letter(12), letter(12, 1)] })
    const others = await Promise.all([f.other(), f.other()])
    await Promise.all(
      others.map((l) =>
        l.dead(f.dataset).append({ partition: 0, logId: LOG, to: 20, letters: [letter(12), letter(17)] }),
      ),
    )
    await dead.append({ partition: 1, logId: LOG, to: 5, letters: [letter(4)] })
    const stored = await dead.list()
    expect(stored.map((l) => [l.partition, l.offset, l.index])).toEqual([
      [0, 3, 0],
      [0, 9, 0],
      [0, 12, 0],
      [0, 12, 1],
      [0, 17, 0],
      [1, 4, 0],
    ])
    expect(Buffer.from(stored[0]!.raw)).toEqual(Buffer.from([0x7b, 0xff, 0x00, 3]))
    expect(stored[0]).toMatchObject({
      code: 'WEIR_DECODE_TYPE',
      column: 'amount',
      appendTime: '2026-11-24T00:00:03.000Z',
    })
    expect(await dead.count()).toBe(6)
    expect(await dead.countBelow(0, 12)).toBe(2)
    const page = await dead.list({ limit: 2, after: { partition: 0, offset: 9, index: 0 } })
    expect(page.map((l) => l.offset)).toEqual([12, 12])
    await expect(dead.append({ partition: 0, logId: 'log-2', to: 30, letters: [letter(25)] })).rejects.toMatchObject({
      code: 'WEIR_LAKE_OTHER_LOG',
    })
  })

  it('keep a note of what was done with them', async () => {
    const dead = f.lake.dead(f.dataset)
    await dead.append({ partition: 0, logId: LOG, to: 10, letters: [letter(3)] })
    const at3 = { partition: 0, offset: 3, index: 0 }
    expect((await dead.get(at3))!.status).toBeNull()
    expect(await dead.mark(at3, { state: 'replayed', at: '2026-11-24T00:00:00Z' })).toBe('marked')
    expect(await dead.mark(at3, { state: 'dropped', at: '2026-11-24T00:00:01Z' })).toBe('already')
    expect((await dead.get(at3))!.status).toMatchObject({ state: 'replayed' })
    expect(await dead.get({ ...at3, index: 1 })).toBeNull()
  })
})
