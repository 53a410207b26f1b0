/**
 * The law table: one row per measure. For each one, over odd values, NULLs and groups:
 * merging is associative and commutative with a neutral element; states survive the codec; merging the partials of any split
 * and presenting equals the one-pass reference; all of it the same whatever the number of threads and the order of rows.
 * Each row has a broken merge that the laws must catch: a law that cannot fail proves nothing.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cellColumns, keyColumns, mergeCellsSql, packSql, partialSql, unpackSql } from '../../model/cells.ts'
import { explainView } from '../../model/compile/explain.ts'
import { ident } from '../../model/ident.ts'
import { MEASURES } from '../../model/measures/index.ts'
import type { View } from '../../model/view.ts'
import { compile, type Fixture, openFixture } from './support.ts'

type Law = { measure: string; calls: string[]; broken: (state: string, index: number) => string }

const LAWS: Law[] = [
  { measure: 'count', calls: ['count(*)', 'count(x)', 'count(*) FILTER (WHERE f)'], broken: (s) => `max(${s})` },
  {
    measure: 'sum',
    calls: ['sum(i)', 'sum(b)', 'sum(d) FILTER (WHERE f)', 'sum(e)', 'sum(u64)'],
    broken: (s) => `max(${s})`,
  },
  { measure: 'avg', calls: ['avg(i)', 'avg(d)', 'avg(i) FILTER (WHERE i > 100)'], broken: (s) => `max(${s})` },
  { measure: 'min', calls: ['min(i)', 'min(x)', 'min(s)', 'min(dt)', 'min(u)', 'min(tz)'], broken: (s) => `max(${s})` },
  { measure: 'max', calls: ['max(d)', 'max(x)', 'max(s) FILTER (WHERE f)', 'max(f)'], broken: (s) => `min(${s})` },
  { measure: 'bool_and', calls: ['bool_and(i > -499)', 'bool_and(f)'], broken: (s) => `bool_or(${s})` },
  { measure: 'bool_or', calls: ['bool_or(i > 498)', 'bool_or(f)'], broken: (s) => `bool_and(${s})` },
  {
    measure: 'var_samp',
    calls: [
      'var_samp(i)',
      'var_pop(d)',
      'stddev_samp(i) FILTER (WHERE f)',
      'stddev_pop(t8)',
      'stddev(d)',
      'variance(i)',
    ],
    broken: (s) => `max(${s})`,
  },
  {
    measure: 'first',
    calls: ['first(s)', 'first(x)', 'first(d) FILTER (WHERE f)'],
    broken: (s) => `arg_max(${s}, ${s}.k)`,
  },
  {
    measure: 'last',
    calls: ['last(i)', 'last(x)', 'last(u) FILTER (WHERE f)'],
    broken: (s) => `arg_min(${s}, ${s}.k)`,
  },
  {
    measure: 'approx_count_distinct',
    calls: [
      'approx_count_distinct(s)',
      'approx_count_distinct(i) FILTER (WHERE f)',
      'approx_count_distinct(dt)',
      'approx_count_distinct(u)',
      'approx_count_distinct(f)',
    ],
    // Addition: counts of parts added up.
    broken: (s) => `struct_pack(h := list_sort(flatten(list(${s}.h))), r := flatten(list(${s}.r)))`,
  },
  {
    measure: 'approx_quantile',
    calls: [
      'approx_quantile(x, 0.95)',
      'approx_quantile(i, 0.5)',
      'approx_quantile(d, 0) FILTER (WHERE f)',
      'approx_quantile(x, 1)',
    ],
    broken: (s) => `arg_max(${s}, len(${s}.k))`,
  },
]

const ROWS = 5_000
const rows = `SELECT make_timestamptz(1700000000000000 + (n * 7919 % 977) * 100000) AS ts, n AS id,
  (n % 251 - 125)::TINYINT AS t8, (hash(n) % 1000)::INTEGER - 500 AS i, (hash(n + 1) % 1000003)::BIGINT * 9000000000000 AS b,
  hash(n + 2)::UBIGINT AS u64, ((hash(n + 3) % 2000001)::BIGINT - 1000000)::DECIMAL(12,2) / 100 AS d0,
  CASE WHEN n % 101 = 0 THEN 'nan'::DOUBLE WHEN n % 103 = 0 THEN 'inf'::DOUBLE WHEN n % 107 = 0 THEN '-inf'::DOUBLE WHEN n % 13 = 0 THEN -0.0::DOUBLE WHEN n % 17 = 0 THEN 0.0::DOUBLE WHEN n % 11 = 0 THEN NULL ELSE (CASE WHEN n % 3 = 0 THEN -1 ELSE 1 END) * exp((hash(n) % 100000) / 5000.0 - 8) END AS x,
  CASE WHEN n % 19 = 0 THEN NULL ELSE 's' || (hash(n + 4) % 1500) || '～😀' END AS s, CASE WHEN n % 23 = 0 THEN NULL ELSE hash(n + 5) % 2 = 0 END AS f,
  md5(n::VARCHAR)::UUID AS u, DATE '2020-01-01' + (hash(n + 6) % 700)::INTEGER AS dt, make_timestamptz((hash(n + 7) % 4000000000000000)::BIGINT) AS tz,
  CASE WHEN n % 7 = 0 THEN NULL ELSE 'k' || (n % 3) END AS r, 0::BIGINT AS _partition, n AS _offset, 0::BIGINT AS _index FROM range(${ROWS}) t(n)`

let fixture: Fixture
beforeAll(async () => {
  fixture = await openFixture()
  await fixture.session.run(
    `CREATE TEMP TABLE ev_rows AS SELECT * EXCLUDE (d0), d0::DECIMAL(12,2) AS d, (d0 * 100)::DECIMAL(18,4) AS e FROM (${rows})`,
  )
})
afterAll(() => fixture.close())

const texts = (view: View, from: string): string =>
  `SELECT ${cellColumns(view)
    .map((c) => `${ident(c.name)}::VARCHAR AS ${ident(c.name)}`)
    .join(', ')} FROM ${from}`

/** Names of the laws that a view breaks. */
const brokenLaws = async (view: View): Promise<string[]> => {
  const { session } = fixture
  const broken = new Set<string>()
  const differ = async (law: string, a: string, b: string): Promise<void> => {
    const [row] = await session.rows<{ n: string }>(
      `SELECT count(*) AS n FROM ((${a} EXCEPT ALL ${b}) UNION ALL (${b} EXCEPT ALL ${a}))`,
    )
    if (row!.n !== '0') broken.add(law)
  }
  const cells = (name: string, sql: string): Promise<void> =>
    session.run(`CREATE OR REPLACE TEMP TABLE ${name} AS ${sql}`)
  const merged = (...sources: string[]): string =>
    `(${mergeCellsSql(view, `(${sources.map((s) => `SELECT * FROM ${s}`).join(' UNION ALL ')})`)})`

  await cells('whole', partialSql(view, 'ev_rows'))
  for (const [name, condition] of [
    ['a', 'hash(_offset) % 3 = 0'],
    ['b', 'hash(_offset) % 3 = 1'],
    ['c', 'hash(_offset) % 3 = 2'],
  ])
    await cells(name!, partialSql(view, `(SELECT * FROM ev_rows WHERE ${condition})`))
  await cells('abc', merged('a', 'b', 'c').slice(1, -1))
  await cells('bc_a', merged(merged('c', 'b'), 'a').slice(1, -1))
  await cells('ab_c', merged(merged('a', 'b'), 'c').slice(1, -1))
  await differ('associative', texts(view, 'bc_a'), texts(view, 'ab_c'))
  await differ('commutative', texts(view, 'abc'), texts(view, merged('c', 'b', 'a')))
  await differ('split', texts(view, 'abc'), texts(view, 'whole'))

  const states = view.states.map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)
  const keys = keyColumns(view).map((k) => ident(k.name))
  const neutral = `(SELECT ${[...keys.map((k) => `w.${k}`), ...view.states.map((s) => `z.${s.name}`)].join(', ')} FROM whole w CROSS JOIN (SELECT ${states.join(', ')} FROM whole WHERE false) z)`
  await differ('neutral', texts(view, merged('whole', neutral)), texts(view, 'whole'))

  const file = join(fixture.engine.scratchDir, 'block.ndjson')
  const packed = await session.rows<{ lines: string }>(packSql(view, '(SELECT 0 AS _block, * FROM whole)'))
  await writeFile(file, `${packed.map((p) => p.lines).join('\n')}\n`)
  await differ('codec', texts(view, `(${unpackSql(view, file)})`), texts(view, 'whole'))

  const { present, reference } = explainView(view)
  const answer = present.replace(/FROM merged$/, 'FROM abc')
  const columns = [
    ...(view.bucket ? [view.bucket.name] : []),
    ...view.dimensions.map((d) => d.name),
    ...view.measures.map((m) => m.name),
  ]
  const asText = (sql: string): string =>
    `SELECT ${columns.map((c) => `${ident(c)}::VARCHAR AS ${ident(c)}`).join(', ')} FROM (${sql})`
  await differ('reference', asText(answer), asText(reference.replaceAll('FROM events', 'FROM ev_rows')))
  return [...broken]
}

const viewOf = (calls: string[]): Promise<View> =>
  compile(
    fixture.tools,
    `SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, r, ${calls.map((c, i) => `${c} AS m${i}`).join(', ')} FROM ev GROUP BY ALL`,
  )

test('the table has every measure', () => {
  expect(LAWS.map((l) => l.measure)).toEqual(MEASURES.map((m) => m.names[0]))
})

describe.each(LAWS)('$measure', ({ calls, broken }) => {
  test('keeps every law', async () => {
    expect(await brokenLaws(await viewOf(calls))).toEqual([])
  })

  test('a broken merge is caught', async () => {
    const view = await viewOf([calls[0]!])
    const states = view.states.map((s, i) => ({ ...s, merge: broken(s.name, i) }))
    expect(await brokenLaws({ ...view, states })).not.toEqual([])
  })

  test('no rows: one row, as plain SQL has it', async () => {
    const view = await compile(
      fixture.tools,
      `SELECT ${calls.map((c, i) => `${c} AS m${i}`).join(', ')} FROM ev GROUP BY ALL`,
    )
    const states = view.states.map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)
    await fixture.session.run(
      `CREATE OR REPLACE TEMP TABLE none AS ${partialSql(view, '(SELECT * FROM ev_rows WHERE false)')}`,
    )
    const present = view.measures.map((m) => `${m.present} AS ${m.name}`)
    const merged = await fixture.session.rows(
      `SELECT ${present.join(', ')} FROM (SELECT ${states.join(', ')} FROM none)`,
    )
    const reference = await fixture.session.rows(
      explainView(view).reference.replaceAll('FROM events', 'FROM (SELECT * FROM ev_rows WHERE false)'),
    )
    expect(merged).toHaveLength(1)
    expect(merged).toEqual(reference)
  })
})

test('states are the same over thread counts and orders of rows', async () => {
  const calls = LAWS.flatMap((l) => l.calls.slice(0, 2))
  const found = new Set<string>()
  for (const half of [calls.slice(0, 12), calls.slice(12)]) {
    const view = await viewOf(half)
    const seen = new Set<string>()
    for (const threads of [1, 2, 4])
      for (const order of ['_offset', '_offset DESC', 'hash(_offset)']) {
        await fixture.session.run(`SET threads = ${threads}`)
        await fixture.session.run(`CREATE OR REPLACE TEMP TABLE shuffled AS SELECT * FROM ev_rows ORDER BY ${order}`)
        const [row] = await fixture.session.rows<{ h: string }>(
          `SELECT md5(string_agg(t::VARCHAR, '|' ORDER BY t::VARCHAR)) AS h FROM (${texts(view, `(${partialSql(view, 'shuffled')})`)}) t`,
        )
        seen.add(row!.h)
      }
    expect(seen.size).toBe(1)
    found.add([...seen][0]!)
  }
  await fixture.session.run('SET threads = 1')
  expect(found.size).toBe(2)
})
