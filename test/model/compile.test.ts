/** What compiles: names, buckets, arithmetic, versions, shared states, and the examples that are shipped. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { partialSql } from '../../model/cells.ts'
import { bucketSql } from '../../model/compile/bucket.ts'
import { explainView } from '../../model/compile/explain.ts'
import { parseProject } from '../../model/project.ts'
import { compile, dataset, type Fixture, oddRows, openFixture } from './support.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await openFixture()
  await fixture.session.run(`CREATE TEMP TABLE odd AS ${oddRows()}`)
})
afterAll(() => fixture.close())

const versionOf = async (sql: string, over = dataset, name = 'v'): Promise<string> =>
  (await compile(fixture.tools, sql, over, name)).version

describe('versions', () => {
  const BASE =
    "SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, s, count(*) AS n, sum(d) FILTER (WHERE i > 0) AS total FROM ev GROUP BY ALL"
  test.each([
    [
      "-- a comment\nselect TIME_BUCKET(interval '1 minute', TS) as minute,\n  S, COUNT(*) n,\n sum(D) filter (where I > 0) total /* more */ from EV group by all;",
    ],
    [
      'SELECT time_bucket(INTERVAL 1 MINUTE, e.ts) AS minute, e.s, count(*) AS n, sum(e.d) FILTER (WHERE e.i > 0) AS total FROM main.ev AS e GROUP BY 1, s',
    ],
    [
      "SELECT time_bucket(INTERVAL '1 minutes', ts) AS minute, s AS s, count() AS n, sum(d) FILTER (i > 0) AS total FROM ev GROUP BY minute, s",
    ],
  ])('one meaning, one version: %s', async (sql) => {
    expect(await versionOf(sql)).toBe(await versionOf(BASE))
  })

  test.each([
    ['another literal', BASE.replace('i > 0', 'i > 1')],
    ['another grain', BASE.replace('1 minute', '2 minutes')],
    ['another name', BASE.replace('AS total', 'AS sum_d')],
    ['another order of columns', BASE.replace('s, count(*) AS n', 'count(*) AS n, s')],
    ['a condition', BASE.replace('GROUP', 'WHERE f GROUP')],
  ])('%s is another version', async (_what, sql) => {
    expect(await versionOf(sql)).not.toBe(await versionOf(BASE))
  })

  test('types of used columns, event time, id, window and the name of the view are part of it; unused columns are not', async () => {
    const base = await versionOf(BASE)
    const retype = (name: string, type: string) => ({
      ...dataset,
      columns: dataset.columns.map((c) => (c.name === name ? { ...c, type } : c)),
    })
    expect(await versionOf(BASE, retype('x', 'INTEGER'))).toBe(base)
    expect(await versionOf(BASE, retype('d', 'DECIMAL(12,3)'))).not.toBe(base)
    expect(await versionOf(BASE, { ...dataset, dedupeWindowMs: 1 })).not.toBe(base)
    expect(await versionOf(BASE, { ...dataset, id: 's' })).not.toBe(base)
    expect(await versionOf(BASE, dataset, 'w')).not.toBe(base)
  })

  test('the canonical text compiles to itself', async () => {
    const view = await compile(fixture.tools, BASE.replace('sum(d)', 'sum(TRY(s::DECIMAL(9,2)) + 1.50)'))
    const again = await compile(fixture.tools, view.sql)
    expect({ sql: again.sql, version: again.version }).toEqual({ sql: view.sql, version: view.version })
  })
})

test('equal states are one state', async () => {
  const view = await compile(
    fixture.tools,
    'SELECT sum(i) AS m1, avg(i) AS m2, count(i) AS m3, count(*) AS n, avg(i) * 2 AS m4, sum(i) / count(*) AS m5, approx_quantile(x, 0.5) AS p, approx_quantile(x, 0.9) AS q FROM ev GROUP BY ALL',
  )
  expect(view.states.map((s) => s.type)).toEqual([
    'DECIMAL(38,0)',
    'BIGINT',
    'BIGINT',
    'STRUCT(k INTEGER[], c BIGINT[])',
  ])
})

test('columns say what is read', async () => {
  const view = await compile(
    fixture.tools,
    'SELECT mixed, last(s) FILTER (WHERE _append_time > ts) AS l FROM ev WHERE f GROUP BY ALL',
  )
  expect(view).toMatchObject({
    columns: ['ts', 's', 'f', 'Mixed'],
    needsPosition: true,
    needsAppendTime: true,
    bucket: null,
  })
  expect(view.dimensions).toEqual([{ name: 'Mixed', type: 'VARCHAR', sql: 'Mixed' }])
})

test('arithmetic over measures is NULL where it cannot be, never an error', async () => {
  const view = await compile(
    fixture.tools,
    'SELECT count(*) FILTER (WHERE false) AS none, count(*) AS n, n / none AS by_zero, sum(u64) AS t, t * t AS too_wide, n + 0.5 AS half, by_zero + 1 AS still, max(s)::INTEGER AS no_number, -n AS minus FROM ev GROUP BY ALL',
  )
  const [row] = await fixture.session.rows(
    `SELECT ${view.measures.map((m) => `${m.present} AS ${m.name}`).join(', ')} FROM (${partialSql(view, 'odd')})`,
  )
  expect(row).toMatchObject({
    none: '0',
    n: '6',
    by_zero: null,
    still: null,
    too_wide: null,
    half: '6.5',
    no_number: null,
    minus: '-6',
  })
  const [reference] = await fixture.session.rows(explainView(view).reference.replaceAll('FROM events', 'FROM odd'))
  expect(reference).toEqual(row)
})

test('TRY of one cast is TRY_CAST, and a dimension may try', async () => {
  const view = await compile(
    fixture.tools,
    'SELECT TRY(s::INTEGER) AS number, TRY(s::INTEGER + 1) AS next, count(*) AS n FROM ev GROUP BY ALL',
  )
  expect(view.dimensions[0]!.sql).toContain('TRY_CAST')
  expect(view.dimensions[1]!.sql).toMatch(/^TRY\(/)
  expect(await fixture.session.rows(partialSql(view, 'odd'))).not.toHaveLength(0)
})

describe('buckets', () => {
  const UNITS = [
    ["time_bucket(INTERVAL '1 second', ts)", '00:00:01'],
    ["time_bucket(INTERVAL '90 seconds', ts)", '00:01:30'],
    ["time_bucket(INTERVAL '15 minutes', ts)", '00:15:00'],
    ["time_bucket(INTERVAL '36 hours', ts)", '36:00:00'],
    ["time_bucket(INTERVAL '1 day', ts)", '1 day'],
    ["time_bucket(INTERVAL '10 days', ts)", '10 days'],
    ["time_bucket(INTERVAL '1 week', ts)", '7 days'],
    ["time_bucket(INTERVAL '1 month', ts)", '1 month'],
    ["time_bucket(INTERVAL '5 months', ts)", '5 months'],
    ["time_bucket(INTERVAL '1 year', ts)", '1 year'],
    ["date_trunc('second', ts)", '00:00:01'],
    ["date_trunc('minute', ts)", '00:01:00'],
    ["date_trunc('hour', ts)", '01:00:00'],
    ["date_trunc('day', ts)", '1 day'],
    ["date_trunc('week', ts)", '7 days'],
    ["date_trunc('month', ts)", '1 month'],
    ["date_trunc('quarter', ts)", '3 months'],
    ["date_trunc('year', ts)", '1 year'],
  ]
  test.each(UNITS)('%s', async (written, interval) => {
    const view = await compile(fixture.tools, `SELECT ${written} AS start, count(*) AS n FROM ev GROUP BY ALL`)
    expect(view.bucket!.grain.interval).toBe(interval)
    const times = `(SELECT make_timestamptz(us::BIGINT) AS ts FROM (SELECT unnest([-62135596800000000, -62135596799999999, -1, 0, 1, 946684799999999, 946684800000000, 946857599999999, 946857600000000, 7258118399999999, 253402300799999999]) AS us UNION ALL SELECT (hash(n) % 7258118400000000)::BIGINT FROM range(300) t(n)))`
    const sql = bucketSql(view.bucket!.grain, 'ts')
    const wrong = await fixture.session.rows(
      `SELECT ts, ${sql} AS got, ${written} AS want FROM ${times} WHERE ${sql} <> ${written}`,
    )
    expect(wrong).toEqual([])
  })
})

test('integer and decimal arithmetic of any shape never throws', async () => {
  const leaf = fc.constantFrom('t8', 'i16', 'i', 'b', 'u8', 'u32', 'u64', 'd', 'e', '1', '(-7)', '1.25', '1000000007')
  const tree = fc.letrec<{ e: string }>((tie) => ({
    e: fc.oneof(
      { maxDepth: 3, depthSize: 'small' },
      leaf,
      fc.tuple(tie('e'), fc.constantFrom('+', '-', '*'), tie('e')).map(([a, op, b]) => `(${a} ${op} ${b})`),
      tie('e').map((a) => `(-${a})`),
      tie('e').map((a) => `abs(${a})`),
      fc.tuple(tie('e'), tie('e')).map(([a, b]) => `(${a} / ${b})`),
    ),
  })).e
  let compiled = 0
  await fc.assert(
    fc.asyncProperty(fc.array(tree, { minLength: 4, maxLength: 4 }), async (expressions) => {
      for (const expression of expressions) {
        let view: Awaited<ReturnType<typeof compile>>
        try {
          view = await compile(fixture.tools, `SELECT max(${expression}) AS v FROM ev GROUP BY ALL`)
        } catch (error) {
          // Too wide for 128 bits is refused, and nothing else is.
          expect(String((error as { code?: string }).code), `${expression}: ${String(error)}`).toMatch(
            /WEIR_MODEL_(PARTIAL|TYPE|MEASURE)/,
          )
          continue
        }
        compiled++
        await fixture.session.rows(partialSql(view, 'odd'))
      }
    }),
    { numRuns: 40, seed: 7 },
  )
  expect(compiled).toBeGreaterThan(80)
})

describe('examples', () => {
  const root = fileURLToPath(new URL('../../examples/', import.meta.url))
  test.each(['shop', 'flights'])('%s compiles, and its SQL runs', async (example) => {
    const files: { path: string; text: string }[] = []
    for (const folder of ['datasets', 'views'])
      for (const name of await readdir(join(root, example, folder)))
        files.push({ path: `${folder}/${name}`, text: await readFile(join(root, example, folder, name), 'utf8') })
    const project = await parseProject(files, fixture.tools)
    expect(project.views.length).toBeGreaterThan(1)
    for (const view of project.views) {
      const columns = project.datasets.find((d) => d.name === view.dataset)!.columns
      await fixture.session.run(
        `CREATE OR REPLACE TEMP TABLE events (${columns.map((c) => `"${c.name}" ${c.type}`).join(', ')}, _partition BIGINT, _offset BIGINT, _index BIGINT, _append_time TIMESTAMPTZ)`,
      )
      const { partial, merge, present, reference } = explainView(view)
      await fixture.session.run(`CREATE OR REPLACE TEMP TABLE cells AS ${partial}`)
      await fixture.session.run(`CREATE OR REPLACE TEMP TABLE merged AS ${merge}`)
      expect(await fixture.session.rows(present)).toEqual([])
      expect(await fixture.session.rows(reference)).toEqual([])
    }
  })
})
