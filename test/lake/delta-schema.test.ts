/** Every type comes back from its stored form, through a real Parquet file. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadList, schemaFields, schemaString, storeList } from '../../lake/delta-schema.ts'
import { type Fixture, openFixture } from './support.ts'

let f: Fixture
beforeAll(async () => {
  f = await openFixture()
})
afterAll(() => f.close())

const cases: [type: string, delta: string, ...values: string[]][] = [
  ['VARCHAR', 'string', "''", "'é😀\n\"'"],
  ['BIGINT', 'long', '9223372036854775807', '-9223372036854775808'],
  ['INTEGER', 'integer', '2147483647'],
  ['SMALLINT', 'short', '-32768'],
  ['TINYINT', 'byte', '-128'],
  ['UTINYINT', 'short', '255'],
  ['USMALLINT', 'integer', '65535'],
  ['UINTEGER', 'long', '4294967295'],
  ['UBIGINT', 'decimal(20,0)', '18446744073709551615'],
  ['HUGEINT', 'string', '170141183460469231731687303715884105727', '-1'],
  ['DOUBLE', 'double', "'nan'", "'-inf'", '1e-300'],
  ['FLOAT', 'float', '1.5'],
  ['BOOLEAN', 'boolean', 'false'],
  ['DATE', 'date', "'1970-01-01'", "'2199-12-31'"],
  ['TIMESTAMPTZ', 'timestamp', "'2026-11-24 10:00:00.123456Z'"],
  ['TIMESTAMP', 'timestamp', "'2026-11-24 10:00:00.123456'"],
  ['TIME', 'string', "'10:00:00.123456'"],
  ['UUID', 'string', "'00000000-0000-4000-8000-000000000001'"],
  ['JSON', 'string', `'{"a":1.10}'`],
  ['BLOB', 'binary', "'\\x00\\xFF'"],
  ['DECIMAL(38,2)', 'decimal(38,2)', '123456789012345678901234567890123456.12'],
  ['DECIMAL(18,2)', 'decimal(18,2)', '-0.01'],
  [
    'STRUCT(v DECIMAL(38,2), t TIMESTAMPTZ, s VARCHAR)',
    'string',
    "{v: 12345678901234567890.12, t: TIMESTAMPTZ '2026-11-24 10:00:00.123456Z', s: 'a\"b, ''c'''}",
  ],
  ['MAP(INTEGER, BIGINT)', 'string', 'MAP{-5: 9007199254740993}'],
  ['UBIGINT[]', 'string', '[18446744073709551615, 0]'],
]

describe('stored types', () => {
  it.each(cases)('%s as %s', async (type, delta, ...values) => {
    const columns = [{ name: 'c', type }]
    expect(schemaFields(schemaString(columns))).toEqual([{ name: 'c', type: delta }])
    const path = await f.store.scratch('.parquet')
    await f.engine.withSession(async (session) => {
      await session.run(`CREATE TEMP TABLE t (i INTEGER, c ${type})`)
      await session.run(
        `INSERT INTO t VALUES ${['NULL', ...values].map((v, i) => `(${i}, CAST(${v} AS ${type}))`).join(', ')}`,
      )
      await session.run(`COPY (SELECT i, ${storeList(columns)} FROM t) TO '${path}' (FORMAT parquet)`)
      const [row] = await session.rows<{ n: string; bad: string; same: boolean }>(
        `SELECT count(*) AS n, count(*) FILTER (t.c IS DISTINCT FROM l.c) AS bad, bool_and(typeof(t.c) = typeof(l.c)) AS same
         FROM t JOIN (SELECT i, ${loadList(columns)} FROM read_parquet('${path}')) l USING (i)`,
      )
      expect(row).toEqual({ n: String(values.length + 1), bad: '0', same: true })
    })
  })

  it('refuses what it does not know', () => {
    expect(() => schemaString([{ name: 'c', type: 'GEOMETRY' }])).toThrow(/GEOMETRY/)
  })
})
