/**
 * The reference query against the answer's SQL over cells, which are written apart from each other: grains, zones, hopping
 * windows, filters, fill, comparison, order and limit must give the same JSON.
 */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { partialSql } from '../../model/cells.ts'
import { referenceSql } from '../../model/compile/reference.ts'
import { answerColumns, answerSql } from '../../model/query/answer-sql.ts'
import { jsonList } from '../../model/query/json.ts'
import type { Query } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import type { View } from '../../model/view.ts'
import { compile, dataset, type Fixture, openFixture } from './support.ts'

let fixture: Fixture
let view: View
beforeAll(async () => {
  fixture = await openFixture()
  // Five days around a change of clocks.
  await fixture.session.run(
    `CREATE TEMP TABLE ev_rows AS SELECT make_timestamptz(1711700000000000 + (hash(n) % 432000)::BIGINT * 1000000) AS ts, CASE WHEN n % 7 = 0 THEN NULL ELSE 'k' || (n % 5) END AS r, (hash(n) % 1000)::INTEGER - 500 AS i, ((hash(n + 1) % 100000) / 100)::DECIMAL(12,2) AS d, exp((hash(n + 2) % 1000) / 100.0) AS x, 's' || (hash(n) % 3000) AS s, hash(n) % 2 = 0 AS f, 0::BIGINT AS _partition, n AS _offset, 0::BIGINT AS _index FROM range(3000) t(n)`,
  )
  view = await compile(
    fixture.tools,
    'SELECT time_bucket(INTERVAL 30 MINUTE, ts) AS start, r, f, count(*) AS n, sum(d) AS total, avg(i) AS mean, last(s) AS latest, approx_count_distinct(s) AS kinds, approx_quantile(x, 0.5) AS middle, total / n AS each_one, total * total * total AS too_wide FROM ev GROUP BY ALL',
  )
  await fixture.session.run(`CREATE TEMP TABLE cells AS ${partialSql(view, 'ev_rows')}`)
})
afterAll(() => fixture.close())

const day = { from: '2024-03-29T00:00:00Z', to: '2024-03-30T00:00:00Z' }
const QUERIES: Omit<Query, 'view'>[] = [
  {},
  { grain: '1 hour' },
  { grain: '1 hour', timeZone: 'Europe/Berlin', dimensions: [] },
  { grain: '7 hours', timeZone: 'America/New_York', dimensions: ['f'] },
  { grain: '1 day', timeZone: 'Europe/Berlin', dimensions: ['r'] },
  { grain: '1 day', timeZone: 'Asia/Kolkata' },
  { grain: '2 days', dimensions: [] },
  { grain: '1 week', timeZone: 'America/New_York', dimensions: ['f'] },
  { grain: '1 month' },
  { grain: 'all', dimensions: [] },
  { grain: 'all', dimensions: ['r'], orderBy: [{ column: 'n', desc: true }], limit: 3 },
  {
    grain: '1 hour',
    filters: [{ column: 'r', op: 'in', value: ['k1', 'k2'] }, { not: { column: 'f', op: '=', value: true } }],
  },
  {
    filters: [
      {
        or: [
          { column: 'r', op: 'isNull' },
          { column: 'r', op: 'startsWith', value: 'k3' },
          { column: 'r', op: 'contains', value: '4' },
        ],
      },
    ],
  },
  { filters: [{ column: 'r', op: 'notIn', value: ['k1', null] }] },
  {
    filters: [
      { column: 'r', op: '!=', value: 'k1' },
      { column: 'r', op: '>=', value: 'k0' },
    ],
  },
  {
    grain: '6 hours',
    timeRange: { from: '2024-03-29T12:00:00Z', to: '2024-04-01T00:00:00Z' },
    fill: true,
    dimensions: ['r'],
  },
  { grain: '1 hour', timeRange: day, compareTo: 'previous', dimensions: ['f'] },
  {
    grain: '1 day',
    timeZone: 'Europe/Berlin',
    timeRange: { from: '2024-03-31', to: '2024-04-02' },
    compareTo: 'previous',
    fill: true,
    dimensions: ['r'],
  },
  { window: '3 hours', every: '1 hour', timeRange: day, dimensions: ['r'] },
  { window: '3 hours', every: '1 hour', timeRange: day, dimensions: [], fill: true, compareTo: 'previous' },
  { window: '5 hours', every: '2 hours', dimensions: [] },
  { grain: 'all', dimensions: ['r'], timeRange: day, compareTo: 'previous' },
  { grain: 'all', dimensions: [], filters: [{ column: 'r', op: '=', value: 'nobody' }] },
]

test.each(QUERIES.map((q) => [JSON.stringify(q), q] as const))('%s', async (_text, asked) => {
  const query = resolveQuery({ view: 'v', ...asked }, view, dataset, {
    nowMs: 0,
    limits: { defaultLimit: 1000, maxLimit: 100_000, maxFill: 100_000 },
  } as unknown as Parameters<typeof resolveQuery>[3])
  const { sql } = answerSql(view, query, 'cells')
  const rows = (await fixture.session.rows(sql)).slice(0, query.limit ?? undefined)
  const reference = await fixture.session.rows(
    `SELECT ${jsonList(answerColumns(view, query), 'r')} FROM (${referenceSql(view, query, 'ev_rows')}) r`,
  )
  expect(rows).toEqual(reference)
})

test('the reference imports nothing of what it judges', async () => {
  const text = await readFile(new URL('../../model/compile/reference.ts', import.meta.url), 'utf8')
  const imports = [...text.matchAll(/^import (type )?.* from '(.*)'$/gm)].map((m) => (m[1] ? 'type' : m[2]))
  expect(imports).toEqual(['../ident.ts', 'type', 'type'])
})
