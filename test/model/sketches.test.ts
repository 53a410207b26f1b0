/**
 * Error bounds of the sketches, measured: HyperLogLog is exact up to 256 distinct values and within 1.9 % RMS over 200 sets
 * from 10 to 1 M; DDSketch is within 1 % of the nearest-rank value on five distributions.
 * WEIR_SKETCH_SETS sets the number of sets (default 60 in the test run, sizes to 300 k; 200 and 1 M in CI).
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { mergeCellsSql, partialSql } from '../../model/cells.ts'
import { compile, type Fixture, openFixture } from './support.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await openFixture(2)
})
afterAll(() => fixture.close())

const SETS = Number(process.env.WEIR_SKETCH_SETS ?? 60)
const LARGEST = SETS >= 200 ? 1_000_000 : 100_000

test(`HyperLogLog: exact to 256, at most 1.9 % RMS over ${SETS} sets`, async () => {
  const { session } = fixture
  const view = await compile(fixture.tools, 'SELECT id, approx_count_distinct(b) AS n FROM ev GROUP BY ALL')
  const present = view.measures[0]!.present
  const exact: number[] = []
  const errors: number[] = []
  for (let set = 0; set < SETS; set++) {
    // Sizes are spread evenly over the logarithm; every set has values of its own, each one twice.
    const size = Math.round(10 * (LARGEST / 10) ** (set / (SETS - 1)))
    const rows = `(SELECT 0::BIGINT AS id, (${set} * 10000000 + n // 2)::BIGINT AS b FROM range(${2 * size}) t(n))`
    const parts = size > 100_000 ? 1 : 2
    const cells = Array.from({ length: parts }, (_, p) =>
      partialSql(view, `(SELECT * FROM ${rows} WHERE (b // 3) % ${parts} = ${p})`),
    )
    const [row] = await session.rows<{ n: string }>(
      `SELECT (${present})::VARCHAR AS n FROM (${mergeCellsSql(view, `(${cells.join(' UNION ALL ')})`)})`,
    )
    const error = Number(row!.n) / size - 1
    if (size <= 256) exact.push(error)
    else errors.push(error)
  }
  const rms = Math.sqrt(errors.reduce((sum, e) => sum + e * e, 0) / errors.length)
  const bias = errors.reduce((sum, e) => sum + e, 0) / errors.length
  console.log(
    `HLL: rms ${(100 * rms).toFixed(2)} %, bias ${(100 * bias).toFixed(2)} %, worst ${(100 * Math.max(...errors.map(Math.abs))).toFixed(2)} %`,
  )
  expect(exact.length).toBeGreaterThan(10)
  expect(exact.every((e) => e === 0)).toBe(true)
  expect(rms).toBeLessThanOrEqual(0.019)
}, 900_000)

test('HyperLogLog: exact at 256, a sketch from 257 on, and a duplicate changes nothing', async () => {
  const view = await compile(fixture.tools, 'SELECT approx_count_distinct(b) AS n FROM ev GROUP BY ALL')
  for (const [size, dense] of [
    [256, false],
    [257, true],
  ] as const) {
    const rows = `(SELECT (n % ${size})::BIGINT AS b FROM range(${3 * size}) t(n))`
    const [row] = await fixture.session.rows<{ h: number | null; r: number | null; n: string }>(
      `SELECT len(_s0.h)::INTEGER AS h, len(_s0.r)::INTEGER AS r, (${view.measures[0]!.present})::VARCHAR AS n FROM (${partialSql(view, rows)})`,
    )
    expect(row!.h).toBe(dense ? null : 256)
    expect(row!.r === null).toBe(!dense)
    if (!dense) expect(row!.n).toBe('256')
  }
})

const DISTRIBUTIONS: Record<string, string> = {
  uniform: 'u * 1000',
  exponential: '-ln(u + 1e-12) * 30',
  lognormal: 'exp(sqrt(-2 * ln(u + 1e-12)) * cos(6.283185307179586 * w) * 2)',
  pareto: 'pow(1 - u, -1.5)',
  signed: '(u - 0.4) * pow(10, floor(w * 12) - 6)',
}

test.each(Object.entries(DISTRIBUTIONS))('DDSketch: %s within 1 %% of the nearest rank', async (_name, formula) => {
  const { session } = fixture
  const quantiles = ['0', '0.01', '0.25', '0.5', '0.75', '0.9', '0.95', '0.99', '0.999', '1']
  const view = await compile(
    fixture.tools,
    `SELECT ${quantiles.map((q, i) => `approx_quantile(x, ${q}) AS q${i}`).join(', ')} FROM ev GROUP BY ALL`,
  )
  expect(view.states).toHaveLength(1)
  await session.run(
    `CREATE OR REPLACE TEMP TABLE numbers AS SELECT (${formula})::DOUBLE AS x FROM (SELECT (hash(n) % 1000003) / 1000003.0 AS u, (hash(n + 7777777) % 1000033) / 1000033.0 AS w FROM range(50000) t(n))`,
  )
  const [got] = await session.rows<Record<string, number>>(
    `SELECT ${view.measures.map((m) => `${m.present} AS ${m.name}`).join(', ')} FROM (${partialSql(view, 'numbers')})`,
  )
  const [want] = await session.rows<Record<string, number>>(
    `SELECT ${quantiles.map((q, i) => `list_sort(list(x))[greatest(1, CAST(ceil(${q} * count(*)) AS BIGINT))] AS q${i}`).join(', ')} FROM numbers`,
  )
  for (const i of quantiles.keys()) {
    const [a, b] = [got![`q${i}`]!, want![`q${i}`]!]
    expect(Math.abs(a - b), `${quantiles[i]}: ${a} for ${b}`).toBeLessThanOrEqual(0.01 * Math.abs(b) * (1 + 1e-9))
  }
})

test('DDSketch: zero, infinities and NaN have their places; the smallest and largest doubles too', async () => {
  const view = await compile(
    fixture.tools,
    `SELECT ${['0', '0.2', '0.4', '0.6', '0.8', '1'].map((q, i) => `approx_quantile(x, ${q}) AS q${i}`).join(', ')} FROM ev GROUP BY ALL`,
  )
  const present = view.measures.map((m) => `${m.present} AS ${m.name}`).join(', ')
  const values = async (list: string): Promise<unknown[]> => {
    const [row] = await fixture.session.rows<Record<string, unknown>>(
      `SELECT ${present} FROM (${partialSql(view, `(SELECT unnest(${list}::DOUBLE[]) AS x)`)})`,
    )
    return Object.values(row!)
  }
  expect(await values("['-inf', '-0.0', 'inf', 'nan', 'nan']")).toEqual(
    ['-Infinity', '-Infinity', 0, 'Infinity', 'NaN', 'NaN'].map((v) => v),
  )
  const [least, , , , , most] = (await values('[5e-324, 1.7976931348623157e308]')) as number[]
  expect(least).toBeGreaterThanOrEqual(0)
  expect(most! / 1.7976931348623157e308).toBeCloseTo(1, 1)
})
