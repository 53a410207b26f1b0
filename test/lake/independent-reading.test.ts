/** A reader that shares nothing with DuckDB (hyparquet) reads what DuckDB wrote: rows, counts, sums and minima agree. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mergeIntoParts, NO_PARTS } from '../../batch-layer/parts.ts'
import type { View } from '../../model/view.ts'
import { archive, at, type Fixture, openFixture, position } from './support.ts'

let f: Fixture
beforeAll(async () => {
  f = await openFixture()
})
afterAll(() => f.close())

type Row = Record<string, unknown>
const read = async (key: string): Promise<Row[]> => {
  const bytes = await readFile(join(f.folder, key))
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
  return (await parquetReadObjects({ file, compressors })) as Row[]
}

/** The table's live files, by its log read as plain JSON. */
const liveByLog = async (root: string): Promise<{ path: string; size: number; sha256: string; rows: number }[]> => {
  const live = new Map<string, { path: string; size: number; sha256: string; rows: number }>()
  for (const { key } of await f.store.list(`${root}/_delta_log/`)) {
    if (!key.endsWith('.json')) continue
    for (const line of Buffer.from((await f.store.get(key))!)
      .toString()
      .trim()
      .split('\n')) {
      const { add, remove } = JSON.parse(line) as {
        add?: { path: string; size: number; stats: string; tags: { sha256: string } }
        remove?: { path: string }
      }
      if (add)
        live.set(add.path, {
          path: decodeURIComponent(add.path),
          size: add.size,
          sha256: add.tags.sha256,
          rows: (JSON.parse(add.stats) as { numRecords: number }).numRecords,
        })
      if (remove) live.delete(remove.path)
    }
  }
  return [...live.values()]
}

/** Decimals come as numbers with their scale applied; cents are whole. */
const cents = (value: unknown): bigint => BigInt(Math.round(Number(value) * 100))
const smallest = <T extends bigint | string>(values: T[]): T => [...values].sort((a, b) => (a < b ? -1 : 1))[0]!

describe('hyparquet', () => {
  it('agrees with DuckDB on the events of a lake', async () => {
    let state = await archive(f.lake, f.dataset, { from: 0, to: 120 })
    state = await archive(f.lake, f.dataset, { from: 120, to: 200, before: state })
    await archive(f.lake, f.dataset, { partition: 1, from: 0, to: 50 })
    const rows: Row[] = []
    for (const file of await liveByLog(`events/${f.dataset.name}`)) {
      const key = `events/${f.dataset.name}/${file.path}`
      const bytes = await readFile(join(f.folder, key))
      expect(bytes.length).toBe(file.size)
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(file.sha256)
      const some = await read(key)
      expect(some).toHaveLength(file.rows)
      rows.push(...some)
    }
    const scan = await f.lake.scan(f.dataset, {
      below: { '0': position(200, at(199)), '1': position(50, at(49)) },
      duplicates: true,
    })
    const [duck] = await f.engine.withSession((s) =>
      s.rows<Record<string, string>>(
        `SELECT count(*) AS n, count(*) FILTER (NOT _duplicate) AS counted, count(DISTINCT order_id) AS ids, min(order_id) AS low_id,
          CAST(sum(amount) * 100 AS BIGINT) AS cents, count(amount) AS amounts, CAST(sum(big) AS VARCHAR) AS big, min(big) AS low,
          CAST(sum(_offset * 10 + _index) AS VARCHAR) AS places, epoch_us(min(ts)) AS first, epoch_us(max(ts)) AS last,
          count(*) FILTER (ok) AS ok, count(day) AS days, count(*) FILTER (isnan(score)) AS nans FROM ${scan.sql}`,
      ),
    )
    const bigs = rows.map((r) => r.big as bigint)
    const times = rows.map((r) => (r.ts as Date).getTime())
    const amounts = rows.flatMap((r) => (r.amount === null || r.amount === undefined ? [] : [cents(r.amount)]))
    expect({
      n: String(rows.length),
      counted: String(rows.filter((r) => r._duplicate === false).length),
      ids: String(new Set(rows.map((r) => r.order_id)).size),
      low_id: smallest(rows.map((r) => r.order_id as string)),
      cents: String(amounts.reduce((a, b) => a + b, 0n)),
      amounts: String(amounts.length),
      big: String(bigs.reduce((a, b) => a + b, 0n)),
      low: String(smallest(bigs)),
      places: String(rows.reduce((n, r) => n + (r._offset as bigint) * 10n + (r._index as bigint), 0n)),
      ok: String(rows.filter((r) => r.ok === true).length),
      days: String(rows.filter((r) => r.day instanceof Date).length),
      nans: String(rows.filter((r) => Number.isNaN(r.score)).length),
    }).toEqual(Object.fromEntries(Object.entries(duck!).filter(([k]) => k !== 'first' && k !== 'last')))
    // hyparquet's times are JavaScript dates: milliseconds.
    expect(Math.min(...times)).toBe(Math.floor(Number(duck!.first) / 1000))
    expect(Math.max(...times)).toBe(Math.floor(Number(duck!.last) / 1000))
  })

  it('agrees on a part of a view: 38-digit sums come as they were, 128-bit ones as text', async () => {
    const view = {
      name: 'v',
      version: '1111111111111111',
      dataset: 'orders',
      bucket: { name: 'b', sql: 'ts', grain: { interval: '01:00:00', us: 1n, months: null } },
      dimensions: [{ name: 'country', type: 'VARCHAR', sql: 'country' }],
      states: [
        { name: '_s0', type: 'BIGINT', partial: '', merge: 'sum(_s0)', heavy: false },
        { name: '_s1', type: 'HUGEINT', partial: '', merge: 'sum(_s1)', heavy: false },
        { name: '_s2', type: 'DECIMAL(38,2)', partial: '', merge: 'sum(_s2)', heavy: false },
        { name: '_s3', type: 'BIGINT[]', partial: '', merge: 'max(_s3)', heavy: false },
      ],
    } as unknown as View
    const parts = await f.engine.withSession(async (s) => {
      await s.run(
        `CREATE TEMP TABLE cells AS SELECT make_timestamptz(i::BIGINT * 3600000000) AS _bucket, CASE WHEN i % 5 = 0 THEN NULL ELSE 'c' || i END AS country,
          i::BIGINT AS _s0, 170141183460469231731687303715884105000 + i::HUGEINT AS _s1, (i || '.25')::DECIMAL(38,2) AS _s2, [i, NULL]::BIGINT[] AS _s3 FROM range(50) r(i)`,
      )
      return mergeIntoParts({ store: f.store, now: () => 0 }, s, view, NO_PARTS, 'cells')
    })
    expect(parts.files.map((p) => p.part)).toEqual(['1970-01-01', '1970-01-02', '1970-01-03'])
    const rows: Row[] = []
    for (const part of parts.files) {
      const some = await read(part.key)
      expect(some).toHaveLength(part.rows)
      rows.push(...some)
    }
    expect(rows).toHaveLength(50)
    expect(rows.filter((r) => r.country === null || r.country === undefined)).toHaveLength(10)
    expect(rows.reduce((n, r) => n + (r._s0 as bigint), 0n)).toBe(1225n)
    expect(rows.map((r) => r._s1)).toEqual(
      rows.map((r) => String(170141183460469231731687303715884105000n + (r._s0 as bigint))),
    )
    expect(rows.reduce((n, r) => n + cents(r._s2), 0n)).toBe(122_500n + 50n * 25n)
    expect(rows.map((r) => r._s3)).toEqual(rows.map((r) => `[${r._s0}, NULL]`))
  })
})
