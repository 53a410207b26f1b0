/** The door: fates, records, tokens, idempotency, partitions, group commit, failures. */
import { createHash } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import { WeirError } from '../../model/errors.ts'
import { partitionOf } from '../../model/partitioner.ts'
import type { EventLog, NewRecord } from '../../model/ports/event-log.ts'
import { decodeToken } from '../../model/token.ts'
import { cleanUp, column, decodeLog, event, eventsOf, lines, openWorld, orders, readAll } from './support.ts'

afterEach(cleanUp)

const many = (n: number, from = 0): string[] => Array.from({ length: n }, (_, i) => event(from + i))
/** Each partition's events by their ids. */
const idsOf = async (log: EventLog, partitions: number): Promise<string[][]> =>
  Promise.all(
    Array.from({ length: partitions }, async (_, p) =>
      eventsOf(await readAll(log, 'orders', p))
        .flat()
        .map((e) => (JSON.parse(e) as { id: string }).id),
    ),
  )

describe('fates', () => {
  test('every event is accepted or rejected with its index, code and reason', async () => {
    const world = await openWorld()
    const body = lines(event(0), '', 'nonsense', event(2), '{"id":"3"}', event(4, { n: 'x' }), event(5), '[1]')
    const outcome = await world.door.accept('orders', body)
    expect(outcome.accepted).toBe(3)
    expect(outcome.rejectedCount).toBe(4)
    expect(outcome.rejected.map((r) => [r.index, r.code])).toEqual([
      [1, 'WEIR_DECODE_NOT_OBJECT'],
      [3, 'WEIR_DECODE_MISSING'],
      [4, 'WEIR_DECODE_TYPE'],
      [6, 'WEIR_DECODE_NOT_OBJECT'],
    ])
    expect(outcome.rejected[2]!.reason).toMatch(/^n: expected .*got "x"/)
    const records = await readAll(world.log)
    expect(eventsOf(records)).toEqual([[event(0), event(2), event(5)]])
    expect(records[0]!.events).toBe(3)
    const token = decodeToken(outcome.token!)
    expect(token.positions['0']).toEqual({ offset: 1, fingerprint: records[0]!.fingerprint })
    expect((await world.rejects.list('orders', 9)).map((r) => r.index)).toEqual([6, 4, 3, 1])
  })

  test.each<[string, string, boolean]>([
    ['foreign column order', '{"user":"u","n":1,"ts":"2026-11-25T10:00:00Z","id":"1"}', true],
    ['an unknown field', event(1, { other: { deep: [1, 'x'] } }), true],
    ['nulls', event(1, { user: null, amount: null, note: null }), true],
    ['missing optional fields', '{"id":"1","ts":"2026-11-25T10:00:00Z"}', true],
    ['an empty string', event(1, { note: '', user: '' }), true],
    ['an empty id', event('', {}), true],
    ['a null id', event(1, { id: null }), false],
    ['unicode', event('ключ-😀', { note: 'ünïcödé \u0000 👨‍👩‍👧 \u2028' }), true],
    ['a lone surrogate', '{"id":"1","ts":"2026-11-25T10:00:00Z","note":"\\ud800"}', false],
    ['years late', event(1, { ts: '1971-01-01T00:00:00Z' }), true],
    ['years in the future', event(1, { ts: '2199-12-31T23:59:59Z' }), true],
    ['before the range', event(1, { ts: '1969-12-31T23:59:59Z' }), false],
    ['behind the range', event(1, { ts: '2200-01-01T00:00:00Z' }), false],
    ['no such day', event(1, { ts: '2026-02-30T00:00:00Z' }), false],
    ['an infinite time', event(1, { ts: 'infinity' }), false],
    ['a decimal with too many digits', event(1, { amount: '1.505' }), false],
    ['a fraction for an integer', event(1, { n: 1.5 }), false],
    ['a boolean for an integer', event(1, { n: true }), false],
    ['a declared key twice', '{"id":"1","id":"2","ts":"2026-11-25T10:00:00Z"}', false],
    ['two documents on one line', `${event(1)} ${event(2)}`, false],
    ['a number', '17', false],
    ['null', 'null', false],
  ])('%s', async (_name, line, good) => {
    const world = await openWorld()
    const outcome = await world.door.accept('orders', lines(line, event('neighbour')))
    expect([outcome.accepted, outcome.rejectedCount]).toEqual(good ? [2, 0] : [1, 1])
    if (!good) expect(outcome.rejected[0]!.reason).toMatch(/expected .+, got /)
    expect(eventsOf(await readAll(world.log)).flat()).toEqual(good ? [line, event('neighbour')] : [event('neighbour')])
    expect(await decodeLog(world, orders())).toMatchObject({ dead: [] })
  })

  test('extra: reject refuses unknown fields', async () => {
    const world = await openWorld({ datasets: [orders({ extra: 'reject' })] })
    const outcome = await world.door.accept('orders', lines(event(1, { other: 1 }), event(2)))
    expect(outcome).toMatchObject({ accepted: 1, rejected: [{ index: 0, code: 'WEIR_DECODE_UNKNOWN_FIELD' }] })
  })

  test('a raw line break in a string of an array rejects that event alone', async () => {
    const world = await openWorld()
    const broken = event(1, { note: '@' }).replace('@', '\n')
    const outcome = await world.door.accept('orders', Buffer.from(`[${event(0)},${broken},${event(2)}]`))
    expect(outcome).toMatchObject({ accepted: 2, rejected: [{ index: 1, code: 'WEIR_INGEST_LINE_BREAK' }] })
  })

  test('an AsyncIterable is taken, however it is cut', async () => {
    const world = await openWorld()
    const body = lines(event(1, { note: 'ü😀' }), event(2))
    const source = async function* () {
      for (const byte of body) yield Uint8Array.of(byte)
    }
    expect(await world.door.accept('orders', source())).toMatchObject({ accepted: 2, rejectedCount: 0 })
    expect(eventsOf(await readAll(world.log)).flat()).toEqual([event(1, { note: 'ü😀' }), event(2)])
  })
})

describe('records', () => {
  test('a request is cut at recordBytes and recordEvents; its id is a hash of the documented parts', async () => {
    const world = await openWorld({ ingest: { recordEvents: 10 } })
    const body = many(25)
    await world.door.accept('orders', lines(...body), { idempotencyKey: 'one' })
    const records = await readAll(world.log)
    expect(records.map((r) => r.events)).toEqual([10, 10, 5])
    records.forEach((r, n) => {
      const bytes = lines(...body.slice(n * 10, n * 10 + 10))
      expect(Buffer.from(r.bytes)).toEqual(bytes)
      const hash = createHash('sha256').update(`orders\0${0}\0kone\0${n}\0`).update(bytes).digest('hex')
      expect(r.recordId).toBe(hash.slice(0, 32))
    })
  })

  test('the same key and body repeat their record ids, alone or in a group, with dead events and partitions', async () => {
    for (const partitions of [1, 3]) {
      const world = await openWorld({ datasets: [orders({ partitions })], ingest: { recordEvents: 4 } })
      const body = lines(...many(9), '{}', ...many(9, 20), 'x')
      const ids = async (): Promise<string[]> => {
        const all = await Promise.all([0, 1, 2].slice(0, partitions).map((p) => readAll(world.log, 'orders', p)))
        return all.flat().map((r) => r.recordId)
      }
      await world.door.accept('orders', body, { idempotencyKey: 'k' })
      const first = await ids()
      const others = Array.from({ length: 5 }, (_, i) => world.door.accept('orders', lines(event(100 + i))))
      await Promise.all([...others, world.door.accept('orders', body, { idempotencyKey: 'k' })])
      const second = (await ids()).sort()
      for (const id of first) expect(second.filter((other) => other === id).length).toBe(2)
      const plain = await openWorld({ datasets: [orders({ partitions })], ingest: { recordEvents: 4 } })
      await plain.door.accept('orders', body)
      await plain.door.accept('orders', body)
      const fresh = (await readAll(plain.log)).map((r) => r.recordId)
      expect(new Set(fresh).size).toBe(fresh.length)
      await cleanUp()
    }
  })

  test('a client cannot choose a key that meets a fresh one', async () => {
    const world = await openWorld()
    await world.door.accept('orders', lines(event(1)), { idempotencyKey: `f${'0'.repeat(32)}` })
    const [record] = await readAll(world.log)
    const fresh = createHash('sha256')
      .update(`orders\0${0}\0f${'0'.repeat(32)}\0${0}\0`)
      .update(lines(event(1)))
    expect(record!.recordId).not.toBe(fresh.digest('hex').slice(0, 32))
  })
})

describe('partitions', () => {
  test('by the canonical text of the key, else of the id; as the producers of Kafka do', async () => {
    const dataset = orders({ key: 'user', partitions: 5 })
    const world = await openWorld({ datasets: [dataset] })
    const body = Array.from({ length: 200 }, (_, i) => event(i, { user: i % 4 ? `ü${i % 17}` : null }))
    const outcome = await world.door.accept('orders', lines(...body))
    const found = await idsOf(world.log, 5)
    for (let i = 0; i < 200; i++) {
      expect(found[partitionOf(i % 4 ? `ü${i % 17}` : String(i), 5)]).toContain(String(i))
    }
    for (const ids of found) expect(ids).toEqual([...ids].sort((a, b) => Number(a) - Number(b)))
    expect(Object.keys(decodeToken(outcome.token!).positions).length).toBe(found.filter((f) => f.length).length)
  })

  test('the hash of fixed texts stays what it is for ever', () => {
    expect(['', 'a', 'u1', '1.50', 'ключ', '😀'].map((text) => partitionOf(text, 1_000))).toMatchInlineSnapshot(`
      [
        681,
        524,
        584,
        155,
        24,
        617,
      ]
    `)
  })

  test('the key counts as decoded: 1.5, "1.50" and 1.50 are one key', async () => {
    const world = await openWorld({ datasets: [orders({ key: 'amount', partitions: 7 })] })
    const body = ['1.5', '"1.50"', '1.50', '"1.5"'].map((amount, i) => event(i, { amount: '@' }).replace('"@"', amount))
    await world.door.accept('orders', lines(...body))
    expect((await idsOf(world.log, 7))[partitionOf('1.50', 7)]).toEqual(['0', '1', '2', '3'])
  })

  test('without key and id: each request its turn, a repeated key its own place', async () => {
    const dataset = orders({ partitions: 3, id: undefined, dedupeWindowMs: undefined })
    const world = await openWorld({ datasets: [dataset] })
    for (let i = 0; i < 6; i++) await world.door.accept('orders', lines(event(i), event(i)))
    expect((await idsOf(world.log, 3)).map((ids) => ids.length)).toEqual([4, 4, 4])
    for (let i = 0; i < 3; i++) await world.door.accept('orders', lines(event('same')), { idempotencyKey: 'k' })
    const same = (await idsOf(world.log, 3)).map((ids) => ids.filter((id) => id === 'same').length)
    expect(same.sort()).toEqual([0, 0, 3])
  })

  test('dead events among many partitions: the rest is whole', async () => {
    const world = await openWorld({ datasets: [orders({ partitions: 4 })] })
    const bodies = Array.from({ length: 10 }, (_, b) =>
      lines(...Array.from({ length: 30 }, (_, i) => ((b + i) % 7 === 0 ? `{"id":"dead"}` : event(b * 100 + i)))),
    )
    const outcomes = await Promise.all(bodies.map((body) => world.door.accept('orders', body)))
    outcomes.forEach((outcome, b) => {
      const dead = Array.from({ length: 30 }, (_, i) => i).filter((i) => (b + i) % 7 === 0)
      expect(outcome.rejected.map((r) => r.index)).toEqual(dead)
      expect(outcome.accepted).toBe(30 - dead.length)
    })
    const all = (await idsOf(world.log, 4)).flat()
    expect(new Set(all).size).toBe(outcomes.reduce((sum, o) => sum + o.accepted, 0))
    for (let p = 0; p < 4; p++) expect(await decodeLog(world, orders(), p)).toMatchObject({ dead: [] })
  })
})

describe('group commit', () => {
  test('requests that wait together share decode and append, and each has its own fate', async () => {
    const world = await openWorld()
    const groups: number[] = []
    world.door.observe({
      answered: () => undefined,
      rejectsLost: () => undefined,
      grouped: (_dataset, requests) => void groups.push(requests),
    })
    const outcomes = await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        world.door.accept('orders', lines(i % 5 ? event(i) : '{"id":1}', event(`b${i}`))),
      ),
    )
    outcomes.forEach((o, i) => {
      expect([o.accepted, o.rejected.map((r) => r.index)]).toEqual(i % 5 ? [2, []] : [1, [0]])
    })
    expect(groups.reduce((a, b) => a + b)).toBe(200)
    expect(groups.length).toBeLessThan(20)
    const records = await readAll(world.log)
    expect(records.length).toBe(200)
    for (const o of outcomes) {
      const at = decodeToken(o.token!).positions['0']!
      expect(records[at.offset - 1]!.fingerprint).toBe(at.fingerprint)
    }
  })

  test('several datasets side by side', async () => {
    const other = orders({
      name: 'other',
      columns: [column('t', 'TIMESTAMPTZ', { unit: 'ms' })],
      eventTime: 't',
      id: undefined,
    })
    const world = await openWorld({ datasets: [orders(), other] })
    const both = Array.from({ length: 20 }, (_, i) => [
      world.door.accept('orders', lines(event(i))),
      world.door.accept('other', lines(`{"t":${1_700_000_000_000 + i}}`)),
    ])
    for (const outcome of await Promise.all(both.flat())) expect(outcome.accepted).toBe(1)
    expect((await readAll(world.log, 'other')).length).toBe(20)
  })
})

describe('failures', () => {
  const failing =
    (error: unknown, times: number) =>
    (log: EventLog): EventLog => ({
      ...log,
      append: async (dataset: string, partition: number, records: NewRecord[]) => {
        if (times-- > 0) throw error
        return log.append(dataset, partition, records)
      },
    })

  test('a log that refuses: the error says whether to retry; a retry succeeds', async () => {
    const busy = new WeirError({ code: 'WEIR_LOG_BUSY', message: 'busy', retryable: true })
    const world = await openWorld({ log: failing(busy, 1) })
    await expect(world.door.accept('orders', lines(event(1)))).rejects.toBe(busy)
    expect(world.door.inFlightBytes()).toBe(0)
    expect((await world.door.accept('orders', lines(event(1)))).accepted).toBe(1)
    expect((await readAll(world.log)).length).toBe(1)
  })

  test('an append of unknown outcome is WEIR_INGEST_UNAVAILABLE, retryable', async () => {
    const world = await openWorld({ log: failing(new Error('fsync'), 1) })
    await expect(world.door.accept('orders', lines(event(1)))).rejects.toMatchObject({
      code: 'WEIR_INGEST_UNAVAILABLE',
      retryable: true,
    })
  })

  test('an engine that fails: the group is tried one by one, and then told', async () => {
    let failures = 2
    const world = await openWorld({
      engine: (engine) => ({
        ...engine,
        session: async () => {
          const session = await engine.session()
          const failing =
            <A extends unknown[], R>(of: (...args: A) => Promise<R>) =>
            async (...args: A): Promise<R> => {
              if (failures-- > 0) throw new Error('Out of Memory Error')
              return of(...args)
            }
          return { ...session, run: failing(session.run), rows: failing(session.rows) as typeof session.rows }
        },
      }),
    })
    const results = await Promise.allSettled([1, 2, 3].map((i) => world.door.accept('orders', lines(event(i)))))
    expect(results.map((r) => r.status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected'])
    expect((await readAll(world.log)).length).toBe(2)
  })

  test('one partition fails: only the requests that write there are told', async () => {
    const world = await openWorld({
      datasets: [orders({ partitions: 2 })],
      log: (log) => ({
        ...log,
        append: async (dataset, partition, records) => {
          if (partition === 1) throw new Error('partition 1 is ill')
          return log.append(dataset, partition, records)
        },
      }),
    })
    const ids = Array.from({ length: 20 }, (_, i) => String(i))
    const results = await Promise.allSettled(ids.map((id) => world.door.accept('orders', lines(event(id)))))
    results.forEach((r, i) => {
      expect(r.status).toBe(partitionOf(ids[i]!, 2) === 1 ? 'rejected' : 'fulfilled')
    })
  })

  test('closing waits for what is under way and takes no more', async () => {
    const world = await openWorld()
    const running = Array.from({ length: 10 }, (_, i) => world.door.accept('orders', lines(event(i))))
    await world.door.close()
    for (const outcome of await Promise.all(running)) expect(outcome.accepted).toBe(1)
    await expect(world.door.accept('orders', lines(event(1)))).rejects.toMatchObject({ code: 'WEIR_INGEST_STOPPING' })
  })
})
