/** JSON by column type only. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { jsonList, jsonRows } from '../../model/query/json.ts'

let engine: Engine
beforeAll(async () => {
  engine = await openEngine()
})
afterAll(() => engine.close())

it.each<[string, string, unknown]>([
  ['BOOLEAN', 'true', true],
  ['TINYINT', '(-128)::TINYINT', -128],
  ['INTEGER', '2147483647', 2147483647],
  ['UINTEGER', '4294967295::UINTEGER', 4294967295],
  ['BIGINT', '1::BIGINT', '1'],
  ['BIGINT', '9007199254740993', '9007199254740993'],
  ['UBIGINT', '18446744073709551615::UBIGINT', '18446744073709551615'],
  ['HUGEINT', '170141183460469231731687303715884105727::HUGEINT', '170141183460469231731687303715884105727'],
  ['COUNT', '9007199254740991::BIGINT', 9007199254740991],
  ['DECIMAL(18,2)', '1.5::DECIMAL(18,2)', '1.50'],
  ['DECIMAL(38,0)', '0::DECIMAL(38,0)', '0'],
  ['DECIMAL(38,2)', '-0.00::DECIMAL(38,2)', '0.00'],
  ['DOUBLE', '0.1::DOUBLE', 0.1],
  ['DOUBLE', '1e300::DOUBLE', 1e300],
  ['DOUBLE', "'-0'::DOUBLE", 0],
  ['DOUBLE', "'nan'::DOUBLE", 'NaN'],
  ['DOUBLE', "'inf'::DOUBLE", 'Infinity'],
  ['DOUBLE', "'-inf'::DOUBLE", '-Infinity'],
  ['VARCHAR', "'é😀'", 'é😀'],
  ['DATE', "DATE '2026-02-03'", '2026-02-03'],
  ['TIMESTAMPTZ', "TIMESTAMPTZ '2026-02-03 04:05:06+01'", '2026-02-03T03:05:06Z'],
  ['TIMESTAMPTZ', "TIMESTAMPTZ '2026-02-03 04:05:06.5+00'", '2026-02-03T04:05:06.500000Z'],
  ['TIMESTAMPTZ', "TIMESTAMPTZ '1969-12-31 23:59:59.999999+00'", '1969-12-31T23:59:59.999999Z'],
  ['UUID', "'00000000-0000-4000-8000-00000000ABCD'::UUID", '00000000-0000-4000-8000-00000000abcd'],
  ['BIGINT', 'NULL::BIGINT', null],
  ['DOUBLE', 'NULL::DOUBLE', null],
  ['TIMESTAMPTZ', 'NULL::TIMESTAMPTZ', null],
])('%s %s', async (type, sql, expected) => {
  const columns = [{ name: 'x "y"', type }]
  const rows = await engine.withSession(async (s) =>
    jsonRows(columns, await s.columns(`SELECT ${jsonList(columns, 't')} FROM (SELECT ${sql} AS "x ""y""") t`)),
  )
  expect(rows).toEqual([{ 'x "y"': expected }])
  expect(Object.is(rows[0]!['x "y"'], -0)).toBe(false)
})
