/** Conditions of `--where`: what the API takes, and nothing else. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseWhere } from '../../cli/where.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'

let engine: Engine
beforeAll(async () => {
  engine = await openEngine({ memoryLimit: '128MB' })
})
afterAll(() => engine.close())
const where = (text: string) => parseWhere(text, sqlTools(engine).parse)

describe('conditions', () => {
  test.each([
    ["country = 'DE'", [{ column: 'country', op: '=', value: 'DE' }]],
    [
      "a != 'x' AND n > 3",
      [
        { column: 'a', op: '!=', value: 'x' },
        { column: 'n', op: '>', value: 3 },
      ],
    ],
    ['3 >= n', [{ column: 'n', op: '<=', value: 3 }]],
    ["a IN ('x', 'y')", [{ column: 'a', op: 'in', value: ['x', 'y'] }]],
    ['a NOT IN (1, 2)', [{ column: 'a', op: 'notIn', value: [1, 2] }]],
    [
      'a IS NULL OR b IS NOT NULL',
      [
        {
          or: [
            { column: 'a', op: 'isNull' },
            { column: 'b', op: 'isNotNull' },
          ],
        },
      ],
    ],
    ["NOT (contains(a, 'x'))", [{ not: { column: 'a', op: 'contains', value: 'x' } }]],
    ["starts_with(a, 'x')", [{ column: 'a', op: 'startsWith', value: 'x' }]],
    [
      'n BETWEEN 1 AND 2.50',
      [
        { column: 'n', op: '>=', value: 1 },
        { column: 'n', op: '<=', value: '2.50' },
      ],
    ],
    ['ok', [{ column: 'ok', op: '=', value: true }]],
    ['ok = false', [{ column: 'ok', op: '=', value: false }]],
    ['n = -7', [{ column: 'n', op: '=', value: -7 }]],
    ['n = 9007199254740993', [{ column: 'n', op: '=', value: '9007199254740993' }]],
    ["\"odd name\" = 'it''s'", [{ column: 'odd name', op: '=', value: "it's" }]],
    ["ts >= TIMESTAMPTZ '2026-01-01'", [{ column: 'ts', op: '>=', value: '2026-01-01' }]],
    ["a = 'x' -- a comment", [{ column: 'a', op: '=', value: 'x' }]],
  ])('%s', async (text, filters) => {
    expect(await where(text)).toEqual(filters)
  })

  test.each([
    "a LIKE '%x%'",
    'lower(a) = 1',
    'a = b',
    'a + 1 > 2',
    'a = NULL',
    'a IN (SELECT 1)',
    'EXISTS (SELECT 1)',
    "1 = 1) UNION SELECT * FROM read_csv('x') WHERE (1 = 1",
    'n > 3) ORDER BY (1',
    't.a = 1',
  ])('refused: %s', async (text) => {
    await expect(where(text)).rejects.toMatchObject({ code: expect.stringMatching(/^WEIR_(CLI_WHERE|MODEL_SQL)$/) })
  })

  test('what is no SQL at all', async () => {
    await expect(where('country =')).rejects.toMatchObject({ code: 'WEIR_MODEL_SQL' })
  })
})
