/**
 * Every function of the allow-list over values at every limit: none throws, each has the type that the checker gave it, and
 * each has the value that test/golden/functions.json keeps, so that an engine that changes one is noticed.
 * WEIR_GOLDEN=write writes the file anew.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { partialSql } from '../../model/cells.ts'
import { FUNCTIONS } from '../../model/compile/functions.ts'
import { MEASURES } from '../../model/measures/index.ts'
import { compile, type Fixture, oddRows, openFixture } from './support.ts'

const FILE = new URL('../golden/functions.json', import.meta.url)

/** One or more calls per function; `TRY` where it is partial. */
const CALLS: Record<string, string[]> = {
  lower: ['lower(s)'],
  upper: ['upper(s)'],
  trim: ['trim(s)', "trim(s, 'a')"],
  ltrim: ['ltrim(s)', "ltrim(s, 'aS')"],
  rtrim: ['rtrim(s)', "rtrim(s, 'c')"],
  length: ['length(s)'],
  reverse: ['reverse(s)'],
  strip_accents: ['strip_accents(s)'],
  replace: ['replace(s, r, s)'],
  contains: ['contains(s, r)'],
  starts_with: ['starts_with(s, r)'],
  ends_with: ['ends_with(s, r)'],
  prefix: ['prefix(s, r)'],
  suffix: ['suffix(s, r)'],
  '~~': ["s LIKE 'a%'"],
  '!~~': ["s NOT LIKE '%b%'"],
  '~~*': ["s ILIKE '%STRASSE%'"],
  '!~~*': ["s NOT ILIKE 'A%'"],
  left: ['left(s, 2)', 'left(s, -1)', 'left(s, -1000000)'],
  right: ['right(s, 2)', 'right(s, -1000000)'],
  substring: ['substring(s, 2)', 'substring(s from 2 for 2)', 'substring(s, -2, 1)'],
  substr: ['substr(s, 2, 3)', 'substr(s, -1000000, 1000000)'],
  split_part: ["split_part(s, ',', 2)", "split_part(s, ',', -1)", "split_part(s, '', 0)"],
  '||': ['s || r'],
  concat: ['concat(s, i, x, f, d, dt)'],
  instr: ['instr(s, r)'],
  strpos: ['strpos(s, r)'],
  position: ['position(r IN s)'],
  ascii: ['ascii(s)'],
  unicode: ['unicode(s)'],
  md5: ['md5(s)'],
  sha256: ['sha256(s)'],
  regexp_matches: ["regexp_matches(s, '^[a-z],')", "regexp_matches(s, 'STRASSE|A', 'i')"],
  regexp_full_match: ["regexp_full_match(s, '[0-9-]+')"],
  regexp_extract: ["regexp_extract(s, '([0-9]+)-([0-9]+)', 2)", "regexp_extract(s, '[a-z]')"],
  regexp_replace: ["regexp_replace(s, '[a-z]', '<\\0>')", "regexp_replace(s, '[a-z]', '', 'g')"],
  '->>': ["j ->> '$.a'", "j ->> 'a'"],
  json_extract_string: ["json_extract_string(j, '$.a.b')"],
  json_type: ['json_type(j)'],
  json_array_length: ['json_array_length(j)'],
  json_valid: ['json_valid(s)'],
  floor: ['floor(x)', 'floor(d)', 'floor(e)', 'floor(h)'],
  ceil: ['ceil(y)', 'ceil(d)', 'ceil(e)', 'ceil(h)'],
  trunc: ['trunc(y)', 'trunc(d)', 'trunc(e)'],
  round: ['round(y)', 'round(y, 1)', 'round(x, 3)', 'round(d)', 'round(d, 1)', 'round(e, 2)', 'round(h, 0)'],
  sign: ['sign(x)', 'sign(d)', 'sign(b)'],
  exp: ['exp(y)', 'exp(d)'],
  cbrt: ['cbrt(y)'],
  pow: ['pow(y, 2)', 'pow(x, y)', 'pow(-2.5, 0.5) + y'],
  power: ['power(i, 0.5)'],
  atan: ['atan(x)'],
  degrees: ['degrees(y)'],
  radians: ['radians(y)'],
  sqrt: ['TRY(sqrt(y))'],
  ln: ['TRY(ln(y))'],
  log: ['TRY(log(y))'],
  log2: ['TRY(log2(d))'],
  log10: ['TRY(log10(i))'],
  sin: ['TRY(sin(x))', 'TRY(sin(2.5 + y))'],
  cos: ['TRY(cos(x))'],
  tan: ['TRY(tan(x))'],
  asin: ['TRY(asin(y))'],
  acos: ['TRY(acos(y))'],
  isnan: ['isnan(x)'],
  isinf: ['isinf(x)'],
  isfinite: ['isfinite(x)'],
  '&': ['i & 255', 'b & i', 'u8 & 7'],
  '|': ['i | 1', 'u32 | i'],
  xor: ['xor(b, i)', 'xor(i16, t8)'],
  bit_count: ['bit_count(b)', 'bit_count(u64)', 'bit_count(t8)'],
  greatest: ['greatest(i, b)', 'greatest(d, i)', 'greatest(x, y)', 'greatest(s, r)', 'greatest(u64, b)'],
  least: ['least(d, e)', 'least(dt, dt)', 'least(x, i)'],
  date_part: [
    "date_part('year', ts)",
    "date_part('epoch', ts)",
    'extract(dow FROM dt)',
    "date_part('week', tz)",
    "date_part('millisecond', ts)",
    "date_part('microsecond', ts)",
    "date_part('isoyear', dt)",
    "date_part('yearweek', dt)",
    "date_part('decade', ts)",
    "date_part('century', ts)",
    "date_part('era', ts)",
    "date_part('isodow', ts)",
    "date_part('doy', ts)",
  ],
  datepart: ["datepart('hour', ts)"],
  date_trunc: [
    "date_trunc('week', ts)",
    "date_trunc('quarter', ts)",
    "TRY(date_trunc('hour', tz))",
    "CAST(TRY(date_trunc('month', dt)) AS DATE)",
  ],
  datetrunc: ["datetrunc('minute', ts)"],
  timezone: [
    "CAST(timezone('Europe/Berlin', ts) AS DATE)",
    "CAST(ts AT TIME ZONE 'Asia/Kolkata' AS DATE)",
    "CAST(TRY(timezone('America/New_York', tz)) AS DATE)",
  ],
  year: ['year(ts)', 'year(dt)'],
  quarter: ['quarter(tz)'],
  month: ['month(ts)'],
  week: ['week(ts)'],
  day: ['day(dt)'],
  dayofweek: ['dayofweek(ts)'],
  isodow: ['isodow(ts)'],
  dayofyear: ['dayofyear(ts)'],
  hour: ['hour(ts)'],
  minute: ['minute(ts)'],
  second: ['second(ts)'],
  epoch_ms: ['epoch_ms(ts)', 'epoch_ms(tz) - epoch_ms(ts)'],
  epoch_us: ['epoch_us(tz)'],
  epoch: ['epoch(tz)'],
  dayname: ['dayname(ts)', 'dayname(dt)'],
  monthname: ['monthname(ts)'],
  strftime: ["strftime(ts, '%Y-%m-%d %H:%M:%S.%f %a %j')", "strftime(dt, '%d/%m/%y')"],
}

const OPERATORS = [
  'i + 1',
  'i + i',
  'b + b',
  'b * b',
  'i * i * i',
  'u64 + b',
  'u64 * 2',
  't8 * t8',
  'u8 - u8',
  '-b',
  '-u64',
  'abs(b)',
  'abs(i)',
  'abs(d)',
  'abs(y)',
  '-d',
  '-y',
  'b // -1',
  'b % -1',
  'i // 0',
  'i % 0',
  'i // i',
  'b % 7',
  'CAST(TRY(b * b * b) AS VARCHAR)',
  'CAST(TRY(u64 * b * 3) AS VARCHAR)',
  'd + d',
  'd - e',
  'e * e',
  'd * d',
  'd * i',
  'e * 1.5',
  'd + 1',
  'd * 2',
  'TRY(h + h)',
  'TRY(h * h)',
  'TRY(h * d)',
  'e + e',
  'TRY(h + 0.000001)',
  'i / 0',
  'd / 3',
  'x / y',
  'b / i',
  'x + y',
  'x * y',
  'x - x',
  'y % 2',
  'd / d',
  'i = b',
  'd = e',
  'd < 12.345',
  'u64 > b',
  'b = x',
  "dt = '2024-02-29'",
  "ts >= '2000-01-01'",
  "u = '12345678-1234-1234-1234-123456789abc'",
  's < r',
  'x = y',
  'i BETWEEN -42 AND 42',
  "r IN ('a', 'b')",
  'i NOT IN (1, 42)',
  'i IN (1, NULL)',
  'i IS DISTINCT FROM t8',
  'f AND NOT f OR f',
  'f = true',
  'coalesce(i, b, 0)',
  'ifnull(d, 0)',
  'nullif(i, 0)',
  'CASE WHEN i > 0 THEN d WHEN f THEN 1.5 ELSE i END',
  "CASE r WHEN 'b' THEN 1 ELSE 0 END",
  'if(f, s, r)',
  'CASE WHEN f THEN s END',
  'i::BIGINT',
  'i::VARCHAR',
  'x::VARCHAR',
  'd::VARCHAR',
  'h::VARCHAR',
  'tz::VARCHAR',
  'dt::VARCHAR',
  'f::INTEGER',
  'f::VARCHAR',
  'u::VARCHAR',
  'j::VARCHAR',
  'i::DOUBLE',
  'h::DOUBLE',
  'u64::DOUBLE',
  'ts::DATE',
  'i::BOOLEAN',
  'd::DECIMAL(20,4)',
  'd::DECIMAL(12,1)::VARCHAR',
  't8::SMALLINT',
  'TRY_CAST(s AS INTEGER)',
  'TRY(s::DATE)',
  'TRY_CAST(x AS DECIMAL(18,6))',
  'TRY_CAST(b AS INTEGER)',
  'TRY(d::INTEGER + s::INTEGER)',
  'TRY_CAST(r AS DOUBLE)',
  'TRY_CAST(s AS BOOLEAN)',
  'TRY_CAST(r AS UUID)',
  'TRY_CAST(dt AS TIMESTAMPTZ)',
  'TRY_CAST(x AS BIGINT)',
  'TRY_CAST(h AS DECIMAL(18,2))',
  "CAST(TRY(ts + INTERVAL '1 hour') AS TIMESTAMPTZ)",
  "TRY(tz - INTERVAL '1 month')",
  'CAST(TRY(dt + INTERVAL 1 DAY) AS DATE)',
  '_append_time',
  'ts::TIMESTAMP::DATE',
  "DATE '2024-01-01' = dt",
]

let fixture: Fixture
beforeAll(async () => {
  fixture = await openFixture()
  await fixture.session.run(`CREATE TEMP TABLE odd AS ${oddRows()}`)
})
afterAll(() => fixture.close())

test('every function and operator has its golden values, over values at every limit', async () => {
  expect(Object.keys(CALLS).sort()).toEqual(Object.keys(FUNCTIONS).sort())
  const expressions = [...Object.values(CALLS).flat(), ...OPERATORS]
  const found: Record<string, { type: string; values: (string | null)[] }> = {}
  // Planning hundreds of aggregates in one statement is quadratic.
  for (let from = 0; from < expressions.length; from += 20) {
    const some = expressions.slice(from, from + 20)
    const items = some.map((e, i) => `first(${e}) AS v${i}`)
    const view = await compile(fixture.tools, `SELECT id, ${items.join(', ')} FROM ev GROUP BY ALL`)
    const values = view.measures.map((m) => `(${m.present})::VARCHAR AS ${m.name}`)
    const rows = await fixture.session.rows<Record<string, string | null>>(
      `SELECT ${values.join(', ')} FROM (${partialSql(view, 'odd')}) ORDER BY id`,
    )
    some.forEach((e, i) => {
      found[e] = { type: view.measures[i]!.type, values: rows.map((r) => r[`v${i}`]!) }
    })
  }
  if (process.env.WEIR_GOLDEN === 'write')
    await writeFile(FILE, `${JSON.stringify({ ...(await golden()), functions: found }, null, 1)}\n`)
  expect(found).toEqual((await golden()).functions)
})

const golden = async (): Promise<Record<string, unknown>> => {
  try {
    return JSON.parse(await readFile(FILE, 'utf8')) as Record<string, unknown>
  } catch (error) {
    if (process.env.WEIR_GOLDEN === 'write') return {}
    throw error
  }
}

const MEASURE_CALLS = [
  'count(*)',
  'count(s)',
  'sum(i)',
  'sum(u64)',
  'sum(e)',
  'avg(d)',
  'mean(b)',
  'min(x)',
  'max(x)',
  'min(s)',
  'max(u)',
  'min(tz)',
  'bool_and(f)',
  'bool_or(f)',
  'var_samp(i)',
  'variance(d)',
  'var_pop(d)',
  'stddev_samp(i)',
  'stddev(t8)',
  'stddev_pop(d)',
  'first(s)',
  'last(y)',
  'approx_count_distinct(s)',
  'approx_count_distinct(i)',
  'approx_quantile(y, 0.5)',
  'approx_quantile(i, 0.9)',
  'approx_quantile(x, 0)',
  'sum(i) / count(*)',
]

test('every measure has its golden value', async () => {
  const named = new Set(MEASURES.flatMap((m) => m.names))
  for (const call of MEASURE_CALLS) named.delete(call.slice(0, call.indexOf('(')))
  expect([...named]).toEqual(['count_star'])
  const many = `(SELECT * REPLACE (i // (1 + n % 7) AS i, s || n // 3 AS s, CASE WHEN n % 5 = 0 THEN y / 3 ELSE n / 7 END AS y, n AS _offset) FROM odd, range(4000) t(n))`
  const view = await compile(
    fixture.tools,
    `SELECT ${MEASURE_CALLS.map((c, i) => `${c} AS v${i}`).join(', ')} FROM ev GROUP BY ALL`,
  )
  await fixture.session.run(`CREATE OR REPLACE TEMP TABLE cells AS ${partialSql(view, many)}`)
  const [row] = await fixture.session.rows<Record<string, string>>(
    `SELECT ${view.measures.map((m) => `(${m.present})::VARCHAR AS ${m.name}`).join(', ')} FROM cells`,
  )
  const found = Object.fromEntries(MEASURE_CALLS.map((c, i) => [c, row![`v${i}`]]))
  if (process.env.WEIR_GOLDEN === 'write')
    await writeFile(FILE, `${JSON.stringify({ ...(await golden()), measures: found }, null, 1)}\n`)
  expect(found).toEqual((await golden()).measures)
})
