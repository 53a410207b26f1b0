/** The events table: exactly-once appends, racing and crashing archivers, scans by exact ranges, types, damage. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { archive, at, DAY, DAY_MS, type Fixture, LOG, openFixture, position } from './support.ts'

let f: Fixture
beforeEach(async () => {
  f = await openFixture()
})
afterEach(() => f.close())

const cut = (offset: number, partition = 0) => ({ [String(partition)]: position(offset, at(offset - 1)) })
const dataFiles = async (): Promise<string[]> =>
  (await f.store.list(`events/${f.dataset.name}/`)).map((o) => o.key).filter((k) => k.endsWith('.parquet'))

describe('append', () => {
  it('moves the position, counters and files in one commit, also for an empty range', async () => {
    const one = await archive(f.lake, f.dataset, { from: 0, to: 10, dead: 2 })
    expect(one.outcome).toBe('archived')
    const empty = await archive(f.lake, f.dataset, { from: 10, to: 15, events: 0, before: one })
    expect(empty.outcome).toBe('archived')
    const other = await f.other()
    expect(await other.events(f.dataset).archived(0)).toMatchObject({
      position: position(15, at(14)),
      counted: one.counted,
      duplicate: one.duplicate,
      dead: 2,
    })
    expect(await other.events(f.dataset).archived(1)).toBeNull()
    expect(await dataFiles()).toHaveLength(1)
    expect(await other.events(f.dataset).archivedCut()).toEqual({ '0': position(15, at(14)) })
  })

  it('is stale from any position but its own, and leaves nothing behind', async () => {
    const one = await archive(f.lake, f.dataset, { from: 0, to: 10 })
    expect((await archive(f.lake, f.dataset, { from: 0, to: 10 })).outcome).toBe('stale')
    expect((await archive(f.lake, f.dataset, { from: 11, to: 12, before: one })).outcome).toBe('stale')
    const session = await f.engine.session()
    const forged = { ...position(10, at(9)), fingerprint: '00000000000000aa' }
    const events = f.lake.events(f.dataset)
    const to = position(12, at(11))
    expect(await events.append({ ...one, partition: 0, from: forged, to, table: 'none', session })).toBe('stale')
    session.close()
    expect(await dataFiles()).toHaveLength(1)
  })

  it('refuses another log, other columns, and counters that do not add up', async () => {
    const one = await archive(f.lake, f.dataset, { from: 0, to: 3 })
    await expect(archive(f.lake, f.dataset, { from: 3, to: 4, before: one, logId: 'log-2' })).rejects.toMatchObject({
      code: 'WEIR_LAKE_OTHER_LOG',
    })
    await expect(
      archive(f.lake, f.dataset, { from: 3, to: 4, before: { ...one, counted: one.counted + 1 } }),
    ).rejects.toMatchObject({ code: 'WEIR_LAKE_COUNTERS' })
    const changed = { ...f.dataset, columns: f.dataset.columns.slice(0, -1) }
    await expect((await f.other()).events(changed).archived(0)).rejects.toMatchObject({ code: 'WEIR_LAKE_SCHEMA' })
  })

  it('splits a range over midnight into the folders of its append dates', async () => {
    const time = (o: number) => DAY + DAY_MS - 5000 + o * 1000
    await archive(f.lake, f.dataset, { from: 0, to: 10, at: time })
    const dates = (await f.lake.events(f.dataset).files()).map((x) => x.appendDate)
    expect(dates.sort()).toEqual(['2026-11-24', '2026-11-25'])
    const scan = await f.lake.scan(f.dataset, { below: cut(10), duplicates: true })
    const [row] = await f.engine.withSession((s) => s.rows<{ n: string }>(`SELECT count(*) AS n FROM ${scan.sql}`))
    expect(row!.n).toBe('30')
  })

  it('two archivers race: each range is committed exactly once', async () => {
    const lakes = await Promise.all([f.other(), f.other(), f.other()])
    let at0 = { counted: 0, duplicate: 0, dead: 0 }
    for (let from = 0; from < 12; from += 2) {
      const done = await Promise.all(lakes.map((l) => archive(l, f.dataset, { from, to: from + 2, before: at0 })))
      expect(done.filter((d) => d.outcome === 'archived')).toHaveLength(1)
      at0 = done[0]!
    }
    // Two partitions at once: blind appends that retry, none is lost.
    const both = await Promise.all(
      [1, 2].map((partition) => archive(lakes[partition]!, f.dataset, { partition, from: 0, to: 5 })),
    )
    expect(both.map((b) => b.outcome)).toEqual(['archived', 'archived'])
    const scan = await f.lake.scan(f.dataset, { below: { ...cut(12), ...cut(5, 1), ...cut(5, 2) }, duplicates: true })
    const rows = await f.engine.withSession((s) =>
      s.rows<{ n: string; d: string }>(
        `SELECT count(*) AS n, count(DISTINCT (_partition, _offset, _index)) AS d FROM ${scan.sql}`,
      ),
    )
    expect(rows).toEqual([{ n: '66', d: '66' }])
    expect(await dataFiles()).toHaveLength(8)
  })
})

/** A store whose n-th log commit fails: before it is written, or after, with the reply lost. */
const failing = (when: 'before' | 'after'): ((store: ObjectStore) => ObjectStore) => {
  let armed = true
  return (store) => ({
    ...store,
    putIfAbsent: async (key, bytes) => {
      const hit = armed && key.includes('_delta_log')
      if (hit) armed = false
      if (hit && when === 'before') throw new Error('injected: not written')
      const outcome = await store.putIfAbsent(key, bytes)
      if (hit) throw new Error('injected: reply lost')
      return outcome
    },
  })
}

describe('faults', () => {
  it('a crash between file and commit leaves only an orphan', async () => {
    const lake = await f.other(failing('before'))
    await expect(archive(lake, f.dataset, { from: 0, to: 4 })).rejects.toThrow('not written')
    expect(await dataFiles()).toHaveLength(1)
    expect(await f.lake.events(f.dataset).archived(0)).toBeNull()
    expect((await archive(f.lake, f.dataset, { from: 0, to: 4 })).outcome).toBe('archived')
    expect(await f.lake.events(f.dataset).files()).toHaveLength(1)
    const gone = await f.lake.vacuum({ datasets: [f.dataset], safetyAgeMs: -1 })
    expect(gone.deleted).toHaveLength(1)
    expect(await dataFiles()).toEqual([(await f.lake.events(f.dataset).files())[0]!.key])
  })

  it('a lost reply is resolved by the log: archived, once', async () => {
    const lake = await f.other(failing('after'))
    const one = await archive(lake, f.dataset, { from: 0, to: 4 })
    expect(one.outcome).toBe('archived')
    expect((await archive(f.lake, f.dataset, { from: 4, to: 6, before: one })).outcome).toBe('archived')
    expect(await dataFiles()).toHaveLength(2)
  })

  it('any flipped bit in a data file is found before the file is read', async () => {
    await archive(f.lake, f.dataset, { from: 0, to: 50 })
    const [file] = await f.lake.events(f.dataset).files()
    for (const place of [0, 0.3, 0.6, 0.99]) {
      const flip = (b: Buffer) => {
        b[Math.floor(b.length * place)]! ^= 4
        return b
      }
      await f.damage(file!.key, flip)
      const fresh = await f.other()
      await expect(fresh.scan(f.dataset, { below: cut(50) })).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
      await f.damage(file!.key, flip)
    }
    await expect((await f.other()).scan(f.dataset, { below: cut(50) })).resolves.toBeDefined()
  })

  it('any flipped bit in the table log is found, or changes nothing', async () => {
    await archive(f.lake, f.dataset, { from: 0, to: 3 })
    const key = `events/${f.dataset.name}/_delta_log/00000000000000000000.json`
    const clean = await (await f.other()).events(f.dataset).files()
    const size = (await f.store.get(key))!.length
    let found = 0
    for (let i = 0; i < size; i += 13) {
      const flip = (b: Buffer) => {
        b[i]! ^= 1 << (i % 8)
        return b
      }
      await f.damage(key, flip)
      try {
        expect(await (await f.other()).events(f.dataset).files()).toEqual(clean)
      } catch (error) {
        expect(error).toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
        found++
      }
      await f.damage(key, flip)
    }
    expect(found).toBeGreaterThan((size / 13) * 0.8)
  })
})

describe('scan', () => {
  it('gives exactly the records of a range, without duplicates, in declared types', async () => {
    let state = await archive(f.lake, f.dataset, { from: 0, to: 10 })
    state = await archive(f.lake, f.dataset, { from: 10, to: 20, before: state })
    await archive(f.lake, f.dataset, { partition: 1, from: 0, to: 9 })
    const scan = await f.lake.scan(f.dataset, {
      below: { '0': position(13, at(12)), '1': position(9, at(8)) },
      from: { '0': position(4, at(3)) },
    })
    const rows = await f.engine.withSession((s) =>
      s.rows<{ p: string; low: string; high: string; n: string }>(
        `SELECT _partition AS p, min(_offset) AS low, max(_offset) AS high, count(*) AS n FROM ${scan.sql} GROUP BY 1 ORDER BY 1`,
      ),
    )
    const counted = (from: number, to: number) =>
      Array.from({ length: (to - from) * 3 }, (_, i) => from * 3 + i).filter((n) => n % 7 !== 6).length
    expect(rows).toEqual([
      { p: '0', low: '4', high: '12', n: String(counted(4, 13)) },
      { p: '1', low: '0', high: '8', n: String(counted(0, 9)) },
    ])
    const types = await f.engine.withSession((s) =>
      s.rows<{ column_name: string; column_type: string }>(`DESCRIBE SELECT * FROM ${scan.sql}`),
    )
    expect(types.map((t) => t.column_type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ')).slice(0, 9)).toEqual(
      f.dataset.columns.map((c) => c.type),
    )
    const [value] = await f.engine.withSession((s) =>
      s.rows(
        `SELECT order_id, epoch_us(ts) AS us, amount, big, ref, score, "odd""name" AS odd FROM ${scan.sql} WHERE _partition = 0 AND _offset = 11 AND _index = 0`,
      ),
    )
    expect(value).toEqual({
      order_id: 'é😀-33',
      us: String((at(11) - 3 * 60_000) * 1000 + 123),
      amount: '33.07',
      big: '9007199254741026',
      ref: '00000000-0000-4000-8000-000000000033',
      score: 'NaN',
      odd: '18446744073709551582',
    })
    // Shards: the union over groups of files is the whole.
    const parts = await f.engine.withSession(async (s) => {
      let n = 0
      for (const file of scan.files)
        n += Number((await s.rows<{ n: string }>(`SELECT count(*) AS n FROM ${scan.sqlOf([file])}`))[0]!.n)
      return n
    })
    expect(parts).toBe(counted(4, 13) + counted(0, 9))
  })

  it('prunes files by record range, and gives typed emptiness for an empty range', async () => {
    let state = await archive(f.lake, f.dataset, { from: 0, to: 10 })
    state = await archive(f.lake, f.dataset, { from: 10, to: 20, before: state })
    const scan = await f.lake.scan(f.dataset, { below: cut(20), from: cut(10) })
    expect(scan.files.map((x) => x.from)).toEqual([10])
    const none = await f.lake.scan(f.dataset, { below: cut(10), from: cut(10) })
    expect(await f.engine.withSession((s) => s.rows(`SELECT * FROM ${none.sql}`))).toEqual([])
  })

  it('refuses what is not archived and another log', async () => {
    await archive(f.lake, f.dataset, { from: 0, to: 10 })
    await expect(f.lake.scan(f.dataset, { below: cut(11) })).rejects.toMatchObject({ code: 'WEIR_LAKE_NOT_ARCHIVED' })
    await expect(f.lake.scan(f.dataset, { below: { '0': position(5, 0, 'log-2') } })).rejects.toMatchObject({
      code: 'WEIR_LAKE_OTHER_LOG',
    })
    expect(LOG).toBe('log-1')
  })
})
