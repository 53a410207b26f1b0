/** What every event log must promise (model/ports/event-log.ts), as a suite to run on each implementation. */
import { createHash } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { EventLog, LogRecord, NewRecord, ReadResult } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'

export type EventLogFixture = {
  /** Opens the log; after the handle before was closed: as a restarted process would. */
  open(): Promise<EventLog>
  /** The clock of append times, as the test sets it; null: appends have the time of a server. */
  clock: { now: number } | null
  /** False: `create` adds no partitions to what exists, since the log's keys have their places already. */
  grows?: boolean
  /** Another, empty log in the same place; all handles are closed. */
  replace(): Promise<void>
  remove(): Promise<void>
}

const NOW = Date.UTC(2026, 10, 24)
let serial = 0
const record = (text = `{"n":${++serial}}\n`): NewRecord => ({
  recordId: createHash('md5').update(`${++serial}`).digest('hex'),
  bytes: Buffer.from(text),
  events: text.split('\n').length - 1,
})
const all = { maxBytes: 1 << 20 }
const recordsOf = (read: ReadResult): LogRecord[] => {
  if (read.kind !== 'records') throw new Error(`expected records, got ${read.kind}`)
  return read.records
}
const texts = (read: ReadResult): string[] => recordsOf(read).map((r) => Buffer.from(r.bytes).toString())

export const eventLogContract = (name: string, make: () => Promise<EventLogFixture>): void => {
  describe(`event log: ${name}`, () => {
    let fixture: EventLogFixture
    let log: EventLog
    let start: Position
    let clock: { now: number }
    beforeEach(async () => {
      fixture = await make()
      clock = fixture.clock ?? { now: 0 }
      clock.now = NOW
      log = await fixture.open()
      await log.create('orders', 2)
      start = genesis((await log.range('orders', 0)).logId)
    })
    afterEach(async () => {
      await log.close()
      await fixture.remove()
    })
    const append = (...records: NewRecord[]) => log.append('orders', 0, records)
    /** A time as the test's clock has it, else any. */
    const at = (ms: number): unknown => (fixture.clock === null ? expect.any(Number) : ms)

    it('creates partitions once, and never changes existing ones', async () => {
      const end = await append(record())
      await log.create('orders', 3)
      await log.create('orders', 1)
      const last = fixture.grows === false ? 1 : 2
      expect(await log.partitions('orders')).toEqual([0, 1, 2].slice(0, last + 1))
      expect(await log.partitions('none')).toEqual([])
      expect(await log.positionAt('orders', 0, 1)).toEqual(end)
      expect(await log.range('orders', last)).toMatchObject({ logId: start.logId, startOffset: 0, endOffset: 0 })
      const unknown = { code: 'WEIR_LOG_UNKNOWN_PARTITION' }
      await expect(log.append('orders', 9, [record()])).rejects.toMatchObject(unknown)
      await expect(log.range('none', 0)).rejects.toMatchObject(unknown)
      await expect(log.read('none', 0, start, all)).rejects.toMatchObject(unknown)
    })

    it('has copied the bytes when append resolves', async () => {
      const own = record()
      const text = Buffer.from(own.bytes).toString()
      const end = await append(own)
      own.bytes.fill(42)
      await append(record())
      expect(texts(await log.read('orders', 0, start, all))[0]).toBe(text)
      expect(end.offset).toBe(1)
    })

    it('appends in order and reads back what was appended', async () => {
      const [a, b, c] = [record('{"a":1}\n'), record('{"b":1}\n{"b":2}\n'), record('{"c":"ü 😀"}\n')]
      const first = await append(a, b)
      clock.now += 7
      const second = await append(c)
      expect(first).toMatchObject({ logId: start.logId, offset: 2, effectiveMs: at(NOW) })
      expect(second).toMatchObject({ logId: start.logId, offset: 3, effectiveMs: at(NOW + 7) })
      const read = await log.read('orders', 0, start, all)
      expect(read).toMatchObject({ kind: 'records', to: second, logEndOffset: 3 })
      expect(texts(read)).toEqual([a, b, c].map((r) => Buffer.from(r.bytes).toString()))
      expect(recordsOf(read).map((r) => [r.offset, r.recordId, r.events, r.appendTimeMs])).toEqual([
        [0, a.recordId, 1, at(NOW)],
        [1, b.recordId, 2, at(NOW)],
        [2, c.recordId, 1, at(NOW + 7)],
      ])
      expect(await append()).toEqual(second)
    })

    it('reads on from any position, bounded by bytes and records, always at least one', async () => {
      const sizes = [10, 400, 30, 500, 20]
      const ends: Position[] = []
      for (const size of sizes) ends.push(await append(record(`${'x'.repeat(size - 1)}\n`)))
      let place = start
      const seen: number[] = []
      while (place.offset < 5) {
        const read = await log.read('orders', 0, place, { maxBytes: 100 })
        const records = recordsOf(read)
        expect(records.length).toBeGreaterThan(0)
        if (records.length > 1) expect(records.reduce((n, r) => n + r.bytes.byteLength, 0)).toBeLessThanOrEqual(100)
        seen.push(...records.map((r) => r.offset))
        if (read.kind === 'records') place = read.to
        expect(place).toEqual(ends[place.offset - 1])
        expect(await log.positionAt('orders', 0, place.offset)).toEqual(place)
      }
      expect(seen).toEqual([0, 1, 2, 3, 4])
      const two = await log.read('orders', 0, ends[0]!, { maxBytes: 1 << 20, maxRecords: 2 })
      expect(recordsOf(two).map((r) => r.offset)).toEqual([1, 2])
      expect(two).toMatchObject({ to: ends[2], logEndOffset: 5 })
      expect(await log.read('orders', 0, ends[4]!, all)).toEqual({
        kind: 'records',
        records: [],
        to: ends[4],
        logEndOffset: 5,
      })
    })

    it('gives each append its own fingerprint, also for equal records', async () => {
      const same = record()
      const fingerprints = new Set<string>()
      for (let i = 0; i < 5; i++) fingerprints.add((await append(same)).fingerprint)
      for (let p = 0; p < 1; p++) fingerprints.add((await log.append('orders', 1, [same])).fingerprint)
      const read = recordsOf(await log.read('orders', 0, start, all))
      expect(new Set(read.map((r) => r.fingerprint)).size).toBe(5)
      expect(fingerprints.size).toBeGreaterThanOrEqual(5)
      for (const f of fingerprints) expect(f).toMatch(/^[0-9a-f]{16}$/)
      expect(read.at(-1)!.fingerprint).toBe((await log.positionAt('orders', 0, 5))!.fingerprint)
    })

    it('proves the record before on every read', async () => {
      await append(record(), record(), record())
      const two = (await log.positionAt('orders', 0, 2))!
      expect(recordsOf(await log.read('orders', 0, two, all)).map((r) => r.offset)).toEqual([2])
      const read = (from: Position) => log.read('orders', 0, from, all)
      expect(await read({ ...two, fingerprint: 'f'.repeat(16) })).toEqual({ kind: 'replaced' })
      expect(await read({ ...two, fingerprint: (await log.positionAt('orders', 0, 1))!.fingerprint })).toEqual({
        kind: 'replaced',
      })
      expect(await read({ ...two, logId: 'another' })).toEqual({ kind: 'replaced' })
      expect(await read({ ...genesis('another') })).toEqual({ kind: 'replaced' })
      expect(await read({ ...two, offset: 4 })).toEqual({ kind: 'beyond-end', endOffset: 3 })
      // Also at the end of the log, with nothing to bring.
      const end = (await log.positionAt('orders', 0, 3))!
      expect(await read({ ...end, fingerprint: '0'.repeat(16) })).toEqual({ kind: 'replaced' })
    })

    it('knows positions from its start to its end, and no others', async () => {
      const end = await append(record(), record())
      expect(await log.positionAt('orders', 0, 0)).toEqual(start)
      expect(await log.positionAt('orders', 0, 2)).toEqual(end)
      for (const offset of [3, -1, 0.5]) expect(await log.positionAt('orders', 0, offset)).toBeNull()
    })

    it('keeps the effective time when the clock steps back, and refuses when it is far behind', async (test) => {
      if (fixture.clock === null) return test.skip('append times are of a server')
      await append(record())
      clock.now = NOW - 4 * 60_000
      const second = await append(record())
      expect(second.effectiveMs).toBe(NOW)
      expect(recordsOf(await log.read('orders', 0, start, all)).map((r) => r.appendTimeMs)).toEqual([
        NOW,
        NOW - 240_000,
      ])
      expect((await log.positionAt('orders', 0, 2))!.effectiveMs).toBe(NOW)
      clock.now = NOW - 5 * 60_000 - 1
      await expect(append(record())).rejects.toMatchObject({ code: 'WEIR_LOG_CLOCK_BEHIND', retryable: true })
      expect((await log.range('orders', 0)).endOffset).toBe(2)
      // Another partition has its own time.
      expect((await log.append('orders', 1, [record()])).effectiveMs).toBe(clock.now)
      clock.now = NOW + 1
      expect((await append(record())).effectiveMs).toBe(NOW + 1)
    })

    it('refuses what is no record, whole', async () => {
      const bad = { code: 'WEIR_LOG_BAD_RECORD' }
      await expect(append(record(), { ...record(), recordId: 'x' })).rejects.toMatchObject(bad)
      await expect(append(record(), { ...record(), events: 0 })).rejects.toMatchObject(bad)
      await expect(append(record(), { ...record(), bytes: new Uint8Array() })).rejects.toMatchObject(bad)
      expect((await log.range('orders', 0)).endOffset).toBe(0)
    })

    it('trims from the start: below it, reads say so', async () => {
      const ends: Position[] = []
      for (let i = 0; i < 6; i++) ends.push(await append(record()))
      await log.trim('orders', 0, 4)
      const { startOffset, endOffset } = await log.range('orders', 0)
      expect(endOffset).toBe(6)
      expect(startOffset).toBeGreaterThan(0)
      expect(startOffset).toBeLessThanOrEqual(4)
      expect(await log.read('orders', 0, start, all)).toEqual({ kind: 'below-start', startOffset })
      expect(await log.positionAt('orders', 0, 0)).toBeNull()
      expect(await log.positionAt('orders', 0, startOffset)).toEqual(ends[startOffset - 1])
      const rest = await log.read('orders', 0, ends[startOffset - 1]!, all)
      expect(recordsOf(rest).map((r) => r.offset)).toEqual(
        Array.from({ length: 6 - startOffset }, (_, i) => startOffset + i),
      )
      await log.trim('orders', 0, 2)
      expect((await log.range('orders', 0)).startOffset).toBe(startOffset)
      await log.trim('orders', 0, 100)
      expect((await log.range('orders', 0)).endOffset).toBe(6)
      const end = await append(record())
      expect(end.offset).toBe(7)
      expect(recordsOf(await log.read('orders', 0, ends[5]!, all))).toHaveLength(1)
    })

    it('keeps partitions apart', async () => {
      await append(record('{"p":0}\n'))
      await log.append('orders', 1, [record('{"p":1}\n'), record('{"p":1}\n')])
      expect(texts(await log.read('orders', 0, start, all))).toEqual(['{"p":0}\n'])
      expect(texts(await log.read('orders', 1, start, all))).toEqual(['{"p":1}\n', '{"p":1}\n'])
      await log.trim('orders', 1, 2)
      expect(texts(await log.read('orders', 0, start, all))).toEqual(['{"p":0}\n'])
    })

    it('takes concurrent appends: each whole and in order, every record once', async () => {
      const writers = Array.from({ length: 20 }, (_, w) =>
        Promise.all(
          Array.from({ length: 5 }, (_, i) =>
            append(record(`{"w":${w},"i":${i},"k":0}\n`), record(`{"w":${w},"i":${i},"k":1}\n`)),
          ),
        ),
      )
      const positions = (await Promise.all(writers)).flat()
      expect(new Set(positions.map((p) => p.offset)).size).toBe(100)
      const read = texts(await log.read('orders', 0, start, { maxBytes: 1 << 24 })).map(
        (t) => JSON.parse(t) as { w: number; i: number; k: number },
      )
      expect(read).toHaveLength(200)
      expect(new Set(read.map((r) => `${r.w}/${r.i}/${r.k}`)).size).toBe(200)
      for (let n = 0; n < 200; n += 2) expect({ ...read[n + 1], k: 0 }).toEqual(read[n])
      for (let w = 0; w < 20; w++)
        expect(read.filter((r) => r.w === w && r.k === 0).map((r) => r.i)).toEqual([0, 1, 2, 3, 4])
    })

    it('wakes a waiting reader, and lets it go when its signal says so', async () => {
      const waiting = log.read('orders', 0, start, { ...all, waitMs: 30_000 })
      await append(record('{"x":1}\n'))
      expect(texts(await waiting)).toEqual(['{"x":1}\n'])
      const end = (await log.positionAt('orders', 0, 1))!
      const abort = new AbortController()
      const stopped = log.read('orders', 0, end, { ...all, waitMs: 30_000, signal: abort.signal })
      abort.abort()
      expect(recordsOf(await stopped)).toEqual([])
      expect(recordsOf(await log.read('orders', 0, end, { ...all, waitMs: 1 }))).toEqual([])
    })

    it('has everything after a restart, and the same fingerprints', async () => {
      const end = await append(record('{"x":1}\n'), record('{"x":2}\n'))
      const before = await log.read('orders', 0, start, all)
      await log.close()
      await expect(append(record())).rejects.toMatchObject({ code: 'WEIR_LOG_CLOSED' })
      log = await fixture.open()
      expect(texts(await log.read('orders', 0, start, all))).toEqual(texts(before))
      expect(await log.positionAt('orders', 0, 2)).toEqual(end)
      expect((await append(record())).offset).toBe(3)
      expect(recordsOf(await log.read('orders', 0, end, all))).toHaveLength(1)
    })

    it('is another log after it was made anew under the same name', async () => {
      const end = await append(record())
      await log.close()
      await fixture.replace()
      log = await fixture.open()
      await log.create('orders', 2)
      await append(record())
      const { logId } = await log.range('orders', 0)
      expect(logId).not.toBe(start.logId)
      expect(await log.read('orders', 0, end, all)).toEqual({ kind: 'replaced' })
      expect(await log.read('orders', 0, start, all)).toEqual({ kind: 'replaced' })
    })
  })
}
