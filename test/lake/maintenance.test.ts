/** Compaction keeps every row, vacuum deletes only what nobody needs, mirrors follow their pointers. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openHistory } from '../../lake/lake.ts'
import type { PartFile, Pointer } from '../../model/ports/publications.ts'
import type { View } from '../../model/view.ts'
import { archive, at, DAY, type Fixture, openFixture, position } from './support.ts'

let f: Fixture
beforeEach(async () => {
  f = await openFixture()
})
afterEach(() => f.close())

/** Two commits an hour over two days; partition 1 stays on the first day. */
const time = (o: number): number => DAY + o * 6 * 3_600_000
const fill = async (): Promise<void> => {
  let state = { counted: 0, duplicate: 0, dead: 0 }
  for (let o = 0; o < 6; o++) state = await archive(f.lake, f.dataset, { from: o, to: o + 1, at: time, before: state })
  state = { counted: 0, duplicate: 0, dead: 0 }
  for (let o = 0; o < 3; o++)
    state = await archive(f.lake, f.dataset, { partition: 1, from: o, to: o + 1, at: time, before: state })
}
const below = { '0': position(6, time(5)), '1': position(3, time(2)) }

describe('compaction', () => {
  it('merges closed dates per partition and changes no row and no counter', async () => {
    await fill()
    const before = await f.lake.scan(f.dataset, { below, duplicates: true })
    const history = openHistory(f.lake, [f.dataset])
    const counts = await Promise.all([0, 1, 2, 3, 4, 5, 6].map((o) => history.countsBelow('orders', 0, o)))
    const done = await f.lake.compact(f.dataset)
    expect(done.events).toMatchObject({ files: 4, into: 1 })
    const after = await (await f.other()).scan(f.dataset, { below, duplicates: true })
    expect(after.files).toHaveLength(before.files.length - 3)
    const differing = await f.engine.withSession((s) =>
      s.rows(
        `SELECT count(*) AS n FROM ((SELECT * FROM ${before.sql} EXCEPT ALL SELECT * FROM ${after.sql}) UNION ALL (SELECT * FROM ${after.sql} EXCEPT ALL SELECT * FROM ${before.sql}))`,
      ),
    )
    expect(differing).toEqual([{ n: '0' }])
    expect(await Promise.all([0, 1, 2, 3, 4, 5, 6].map((o) => history.countsBelow('orders', 0, o)))).toEqual(counts)
    // Nothing left to do; open dates (partition 0's second day, partition 1's first) are untouched.
    expect((await f.lake.compact(f.dataset)).events.files).toBe(0)
    const key = (await f.store.list('events/orders/_delta_log/')).filter((o) => o.key.endsWith('9.json'))[0]!.key
    const lines = Buffer.from((await f.store.get(key))!).toString()
    expect(lines.match(/"dataChange":false/g)).toHaveLength(5)
    expect(lines).not.toContain('"dataChange":true')
  })

  it('gives way to another change of the same files', async () => {
    await fill()
    const [a, b] = await Promise.all([f.other(), f.other()])
    const done = await Promise.all([a.compact(f.dataset), b.compact(f.dataset)])
    expect(done.map((d) => d.events.files).sort()).toEqual([0, 4])
    const scan = await f.lake.scan(f.dataset, { below, duplicates: true })
    const [row] = await f.engine.withSession((s) => s.rows(`SELECT count(*) AS n FROM ${scan.sql}`))
    expect(row).toEqual({ n: '27' })
  })
})

describe('vacuum', () => {
  it('deletes only unreferenced files, after the safety age, and never pinned ones', async () => {
    await fill()
    const files = async () => (await f.store.list('events/orders/')).filter((o) => o.key.endsWith('.parquet'))
    const old = (await f.lake.events(f.dataset).files()).map((x) => x.key)
    await f.lake.compact(f.dataset)
    const live = new Set((await f.lake.events(f.dataset).files()).map((x) => x.key))
    const dead = old.filter((k) => !live.has(k))
    expect((await f.lake.vacuum({ datasets: [f.dataset] })).deleted).toEqual([])
    const pinned = new Set([dead[0]!])
    const done = await f.lake.vacuum({ datasets: [f.dataset], safetyAgeMs: -1, pinned })
    expect(done.deleted.sort()).toEqual(dead.slice(1).sort())
    expect((await files()).map((o) => o.key).filter((k) => !live.has(k))).toEqual([dead[0]])
    await expect((await f.other()).scan(f.dataset, { below })).resolves.toBeDefined()
  })
})

const view: View = {
  name: 'revenue',
  dataset: 'orders',
  version: 'cafe',
  sql: '',
  bucket: { name: 'minute', grain: { interval: '1 minute', us: 60_000_000n, months: null }, sql: '' },
  dimensions: [{ name: 'country', type: 'VARCHAR', sql: '' }],
  states: [
    { name: '_s0', type: 'BIGINT', partial: '', merge: '', heavy: false },
    { name: '_s1', type: 'DECIMAL(38,2)', partial: '', merge: '', heavy: false },
    { name: '_s2', type: 'STRUCT(h UBIGINT[], r UTINYINT[])', partial: '', merge: '', heavy: true },
    { name: '_s3', type: 'HUGEINT', partial: '', merge: '', heavy: false },
  ],
  measures: [],
  where: null,
  columns: [],
  needsPosition: false,
  needsAppendTime: false,
}

const part = async (day: string, n: number): Promise<PartFile> => {
  const scratch = await f.store.scratch('.parquet')
  await f.engine.withSession((s) =>
    s.run(
      `COPY (SELECT TIMESTAMPTZ '${day} 00:00:00Z' AS _bucket, 'DE' AS country, ${n}::BIGINT AS _s0, 1.25::DECIMAL(38,2) AS _s1, {h: [18446744073709551615::UBIGINT], r: NULL::UTINYINT[]} AS _s2, '170141183460469231731687303715884105727' AS _s3) TO '${scratch}' (FORMAT parquet)`,
    ),
  )
  const key = `parts/revenue/cafe/${crypto.randomUUID()}.parquet`
  return { key, ...(await f.store.publishFile(scratch, key)), rows: 1, part: day }
}
const pointer = (generation: number, files: PartFile[]): Pointer => ({
  formatVersion: 1,
  view: 'revenue',
  version: 'cafe',
  generation,
  baseHash: '',
  cut: { '0': position(generation, at(generation)) },
  lineage: '1',
  kind: 'extend',
  files,
  suspectLineages: [],
  kept: [],
  engineVersion: '',
  publishedAt: '',
  rowsTotal: files.length,
})

describe('mirrors', () => {
  it('show one generation after the other, rewriting only touched parts, and catch up after a crash', async () => {
    const mirror = f.lake.viewTable(view)
    const [a, b] = [await part('2026-11-24', 1), await part('2026-11-25', 2)]
    expect(await mirror.mirror(pointer(1, [a, b]))).toBe('mirrored')
    expect(await mirror.mirror(pointer(1, [a, b]))).toBe('current')
    const first = [...(await mirror.delta.snapshot())!.files.keys()]
    // Generation 2 was never mirrored; 3 replaces one part.
    const c = await part('2026-11-25', 5)
    const others = await Promise.all([f.other(), f.other()])
    const done = await Promise.all(others.map((l) => l.viewTable(view).mirror(pointer(3, [a, c]))))
    expect(done.sort()).toEqual(['current', 'mirrored'])
    const snapshot = (await mirror.delta.snapshot())!
    expect([...snapshot.files.keys()].filter((k) => first.includes(k))).toHaveLength(1)
    expect(await mirror.generation()).toBe(3)
    expect(await mirror.mirror(pointer(2, [a, b]))).toBe('current')
    const paths = [...snapshot.files.keys()].map((k) => `'${f.folder}/views/revenue/cafe/${k}'`)
    const rows = await f.engine.withSession((s) =>
      s.rows(`SELECT country, _s0, _s1, _s2, _s3 FROM read_parquet([${paths}]) ORDER BY _bucket`),
    )
    expect(rows).toEqual([
      {
        country: 'DE',
        _s0: '1',
        _s1: '1.25',
        _s2: '{"h":[18446744073709551615],"r":null}',
        _s3: '170141183460469231731687303715884105727',
      },
      {
        country: 'DE',
        _s0: '5',
        _s1: '1.25',
        _s2: '{"h":[18446744073709551615],"r":null}',
        _s3: '170141183460469231731687303715884105727',
      },
    ])
  })
})
