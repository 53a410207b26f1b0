/** Filters: the grammar, literals by type, and SQL's three truth values. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { random } from '../../cli/random.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { WeirError } from '../../model/errors.ts'
import { checkFilters, filterSql } from '../../model/query/filter.ts'
import type { Filter, FilterOp, Scalar } from '../../model/query/query.ts'
import type { ViewDimension } from '../../model/view.ts'

const dimension = (name: string, type: string): ViewDimension => ({ name, type, sql: name })
const DIMENSIONS = [
  dimension('t', 'VARCHAR'),
  dimension('n', 'BIGINT'),
  dimension('s', 'TINYINT'),
  dimension('b', 'BOOLEAN'),
  dimension('d', 'DECIMAL(6,2)'),
  dimension('day', 'DATE'),
  dimension('at', 'TIMESTAMPTZ'),
  dimension('u', 'UUID'),
]
const names = { dimensions: DIMENSIONS, measures: ['sold'], bucket: 'hour', zone: 'UTC' }
const check = (filters: unknown[]): Filter[] => checkFilters(filters as Filter[], names)
const refusal = (filter: unknown): WeirError => {
  try {
    check([filter])
  } catch (error) {
    if (error instanceof WeirError) return error
    throw error
  }
  throw new Error(`${JSON.stringify(filter)} was not refused`)
}
const canonical = (column: string, value: unknown): Scalar => {
  const [filter] = check([{ column, op: '=', value }])
  return (filter as { value: Scalar }).value
}

describe('literals', () => {
  it.each<[string, unknown, Scalar]>([
    ['t', "O'Hara\n", "O'Hara\n"],
    ['t', '', ''],
    ['t', null, null],
    ['n', 42, '42'],
    ['n', '9223372036854775807', '9223372036854775807'],
    ['n', '-0', '0'],
    ['s', -128, '-128'],
    ['b', true, true],
    ['b', 'false', false],
    ['d', 1.5, '1.50'],
    ['d', '0001.500', '1.50'],
    ['d', '-0.00', '0.00'],
    ['d', 9999.99, '9999.99'],
    ['day', '2024-02-29', '2024-02-29'],
    ['at', '2026-11-24T10:00:00+01:00', '1795510800000000'],
    ['u', '00000000-0000-4000-8000-00000000ABCD', '00000000-0000-4000-8000-00000000abcd'],
  ])('%s = %j is %j', (column, value, expected) => expect(canonical(column, value)).toBe(expected))

  it.each<[string, unknown]>([
    ['t', 1],
    ['t', true],
    ['t', 'a\0b'],
    ['t', '\ud800'],
    ['n', 1.5],
    ['n', '1e3'],
    ['n', ' 1'],
    ['n', '0x10'],
    ['n', '9223372036854775808'],
    ['n', 2 ** 53],
    ['n', true],
    ['n', ''],
    ['s', 128],
    ['b', 1],
    ['b', 'yes'],
    ['d', 1.234],
    ['d', 10_000],
    ['d', 'NaN'],
    ['day', '2026-02-30'],
    ['day', '2026-11-24T00:00:00Z'],
    ['at', 'now'],
    ['at', 5],
    ['u', 'abc'],
    ['t', {}],
  ])('%s = %j is refused with what was expected', (column, value) => {
    const error = refusal({ column, op: '=', value })
    expect(error.code).toBe('WEIR_MODEL_QUERY_VALUE')
    expect(error.expected).toBeTruthy()
  })
})

describe('grammar', () => {
  it.each<[string, unknown, string]>([
    ['an unknown column', { column: 'tt', op: '=', value: 'x' }, 'WEIR_MODEL_QUERY_NAME'],
    ['a measure', { column: 'sold', op: '>', value: 3 }, 'WEIR_MODEL_QUERY_FILTER'],
    ['the bucket', { column: 'hour', op: '>', value: 3 }, 'WEIR_MODEL_QUERY_FILTER'],
    ['an unknown operator', { column: 't', op: 'LIKE', value: 'x' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['SQL as operator', { column: 't', op: "= 'x' OR 1=1 --", value: 'x' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['an empty list', { column: 't', op: 'in', value: [] }, 'WEIR_MODEL_QUERY_FILTER'],
    ['a list for one', { column: 't', op: '=', value: ['a'] }, 'WEIR_MODEL_QUERY_FILTER'],
    ['one for a list', { column: 't', op: 'in', value: 'a' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['a list in a list', { column: 't', op: 'in', value: [['a']] }, 'WEIR_MODEL_QUERY_VALUE'],
    ['no value', { column: 't', op: '=' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['a value for isNull', { column: 't', op: 'isNull', value: 'x' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['contains in a number', { column: 'n', op: 'contains', value: '1' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['less than a truth', { column: 'b', op: '<', value: true }, 'WEIR_MODEL_QUERY_FILTER'],
    ['an empty or', { or: [] }, 'WEIR_MODEL_QUERY_FILTER'],
    ['or and more', { or: [{ column: 't', op: 'isNull' }], column: 't' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['a strange key', { column: 't', op: 'isNull', sql: '1=1' }, 'WEIR_MODEL_QUERY_FILTER'],
    ['null', null, 'WEIR_MODEL_QUERY_FILTER'],
    ['not of nothing', { not: null }, 'WEIR_MODEL_QUERY_FILTER'],
  ])('refuses %s', (_, filter, code) => expect(refusal(filter).code).toBe(code))

  it('is bounded in depth and number', () => {
    let deep: unknown = { column: 't', op: 'isNull' }
    for (let i = 0; i < 40; i++) deep = { not: deep }
    expect(refusal(deep).code).toBe('WEIR_MODEL_QUERY_FILTER')
    expect(refusal({ or: Array.from({ length: 600 }, () => ({ column: 't', op: 'isNull' })) }).code).toBe(
      'WEIR_MODEL_QUERY_FILTER',
    )
  })
})

describe('truth', () => {
  let engine: Engine
  beforeAll(async () => {
    engine = await openEngine()
  })
  afterAll(() => engine.close())

  /** Three-valued logic written out again: null is "unknown". */
  type Truth = boolean | null
  const not = (a: Truth): Truth => (a === null ? null : !a)
  const and = (a: Truth, b: Truth): Truth =>
    a === false || b === false ? false : a === null || b === null ? null : true
  const or = (a: Truth, b: Truth): Truth => not(and(not(a), not(b)))
  const bytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
  type Row = { t: string | null; n: number | null; b: boolean | null }
  const compare = (op: FilterOp, a: string | number | boolean, b: string | number | boolean): boolean => {
    const order = typeof a === 'string' ? bytes(a, b as string) : Number(a) - Number(b)
    switch (op) {
      case '=':
        return order === 0
      case '!=':
        return order !== 0
      case '<':
        return order < 0
      case '<=':
        return order <= 0
      case '>':
        return order > 0
      case '>=':
        return order >= 0
      case 'contains':
        return (a as string).includes(b as string)
      default:
        return (a as string).startsWith(b as string)
    }
  }
  const truth = (filter: Filter, row: Row): Truth => {
    if ('or' in filter) return filter.or.map((f) => truth(f, row)).reduce(or)
    if ('and' in filter) return filter.and.map((f) => truth(f, row)).reduce(and)
    if ('not' in filter) return not(truth(filter.not, row))
    const own = row[filter.column as keyof Row]
    if (filter.op === 'isNull') return own === null
    if (filter.op === 'isNotNull') return own !== null
    const one = (op: FilterOp, value: Scalar): Truth =>
      own === null || value === null ? null : compare(op, own, value)
    if (filter.op === 'in') return (filter.value as Scalar[]).map((v) => one('=', v)).reduce(or)
    if (filter.op === 'notIn') return not((filter.value as Scalar[]).map((v) => one('=', v)).reduce(or))
    return one(filter.op, filter.value as Scalar)
  }
  const TEXTS = ['', 'a', 'ab', 'B', '😀', '～', "o'x", null]
  const NUMBERS = [-1, 0, 1, 2, null]
  const TRUTHS = [true, false, null]

  it('is what SQL says of NULL, in every combination', async () => {
    const r = random(11)
    const leaf = (): Filter => {
      const kind = r.int(0, 7)
      if (kind === 0) return { column: r.pick(['t', 'n', 'b']), op: r.chance(0.5) ? 'isNull' : 'isNotNull' }
      if (kind === 1)
        return { column: 't', op: r.pick(['in', 'notIn'] as const), value: [r.pick(TEXTS), r.pick(TEXTS)] }
      if (kind === 2)
        return { column: 'n', op: r.pick(['in', 'notIn'] as const), value: [r.pick(NUMBERS), r.pick(NUMBERS)] }
      if (kind === 3) return { column: 't', op: r.pick(['contains', 'startsWith'] as const), value: r.pick(TEXTS) }
      if (kind === 4) return { column: 'b', op: r.pick(['=', '!='] as const), value: r.pick(TRUTHS) }
      const op = r.pick(['=', '!=', '<', '<=', '>', '>='] as const)
      return kind === 5 ? { column: 't', op, value: r.pick(TEXTS) } : { column: 'n', op, value: r.pick(NUMBERS) }
    }
    const tree = (depth: number): Filter => {
      if (depth === 0 || r.chance(0.3)) return leaf()
      const kind = r.int(0, 3)
      if (kind === 0) return { not: tree(depth - 1) }
      const parts = [tree(depth - 1), tree(depth - 1)]
      return kind === 1 ? { or: parts } : { and: parts }
    }
    const rows: Row[] = TEXTS.flatMap((t) => NUMBERS.flatMap((n) => TRUTHS.map((b) => ({ t, n, b }))))
    const values = rows.map(
      (x, i) =>
        `(${i}, ${x.t === null ? 'NULL' : `'${x.t.replaceAll("'", "''")}'`}, ${x.n ?? 'NULL'}, ${x.b ?? 'NULL'})`,
    )
    const trees = Array.from({ length: 300 }, () => tree(3))
    await engine.withSession(async (session) => {
      await session.run(
        `CREATE TEMP TABLE x AS SELECT i, t::VARCHAR AS t, n::BIGINT AS n, b::BOOLEAN AS b FROM (VALUES ${values.join(', ')}) v(i, t, n, b)`,
      )
      for (const filter of trees) {
        const [checked] = check([filter])
        const sql = filterSql(checked!, DIMENSIONS)
        const [truths] = await session.columns(`SELECT ${sql} FROM x ORDER BY i`)
        expect(truths, sql).toEqual(rows.map((row) => truth(filter, row)))
      }
    })
  })
})
