/** Everything a view may not say, each with an error that teaches: code, line, what was expected, what to do instead. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compile, type Fixture, openFixture, refusal } from './support.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await openFixture()
})
afterAll(() => fixture.close())

const view = (items: string, rest = ''): string => `SELECT\n  ${items}\nFROM ev ${rest}\nGROUP BY ALL`

/** [definition, code, line, part of the message, part of `next`] */
const REFUSED: [string, string, number, RegExp, RegExp][] = [
  // shape
  ['SELECT count(*) AS n FROM ev ORDER BY n', 'VIEW', 1, /ORDER BY/, /orderBy/],
  ['SELECT count(*) AS n FROM ev LIMIT 3', 'VIEW', 1, /LIMIT/, /limit/],
  ['SELECT DISTINCT s, count(*) AS n FROM ev GROUP BY ALL', 'VIEW', 1, /DISTINCT/, /GROUP BY ALL/],
  ['WITH c AS (SELECT 1) SELECT count(*) AS n FROM ev', 'VIEW', 1, /WITH/, /one SELECT/],
  ['SELECT s, count(*) AS n FROM ev\nGROUP BY ALL\nHAVING count(*) > 1', 'VIEW', 3, /HAVING/, /filter/],
  ['SELECT s, count(*) AS n FROM ev GROUP BY ALL QUALIFY row_number() OVER () = 1', 'VIEW', 1, /QUALIFY/, /leave/],
  ['SELECT count(*) AS n FROM ev USING SAMPLE 10%', 'VIEW', 1, /sample/, /leave/],
  ['SELECT count(*) AS n FROM ev TABLESAMPLE 10%', 'VIEW', 1, /sample/, /leave/],
  ['SELECT count(*) AS n FROM ev UNION ALL SELECT 1', 'VIEW', 1, /one plain SELECT/, /UNION/],
  ['SELECT count(*) AS n FROM ev; SELECT 1', 'VIEW', 1, /one statement/, /file/],
  ['SELECT count(*) AS n FROM ev JOIN ev e2 ON true', 'VIEW', 1, /joins/, /in the event/],
  ['SELECT count(*) AS n FROM (SELECT * FROM ev)', 'VIEW', 1, /exactly one dataset/, /FROM/],
  ["SELECT count(*) AS n FROM 'file.csv'", 'VIEW', 1, /not the dataset ev/, /FROM ev/],
  ['SELECT count(*) AS n FROM other.ev', 'VIEW', 1, /not the dataset/, /FROM ev/],
  ['SELECT * FROM ev', 'VIEW', 1, /SELECT \*/, /name/],
  ['SELECT s FROM ev GROUP BY ALL', 'VIEW', 1, /measures nothing/, /count/],
  ['SELECT s, count(*) AS n FROM ev', 'VIEW', 1, /neither grouped/, /GROUP BY ALL/],
  ['SELECT s, r, count(*) AS n FROM ev GROUP BY s', 'VIEW', 1, /r is neither/, /GROUP BY ALL/],
  ['SELECT s, count(*) AS n FROM ev GROUP BY s, r', 'VIEW', 1, /not in the SELECT/, /GROUP BY ALL/],
  ['SELECT s, count(*) AS n FROM ev GROUP BY s, n', 'VIEW', 1, /measure n/, /GROUP BY ALL/],
  ['SELECT s, count(*) AS n FROM ev GROUP BY ROLLUP (s)', 'VIEW', 1, /ROLLUP/, /leave/],
  ['SELECT s, count(*) AS n FROM ev GROUP BY GROUPING SETS ((s), ())', 'VIEW', 1, /GROUPING SETS/, /leave/],
  ['SELECT count(* AS n', 'SQL', 1, /cannot be read/, /correct/],
  ['INSERT INTO ev VALUES (1)', 'SQL', 1, /SELECT/, /correct/],
  // names
  [view('s, count(*)'), 'NAME', 2, /needs a name/, /AS/],
  [view('lower(s), count(*) AS n'), 'NAME', 2, /needs a name/, /AS/],
  [view('count(*) AS ev'), 'NAME', 2, /name of the dataset/, /another/],
  [view('sum(d) AS D'), 'NAME', 2, /D is a column/, /D_sum/],
  [view('s AS r, count(*) AS n'), 'NAME', 2, /r is a column/, /for example/],
  [view('count(*) AS n,\n  sum(i) AS N'), 'NAME', 3, /used twice/, /rename/],
  [view('count(*) AS _n'), 'NAME', 2, /_n cannot name/, /underscore/],
  [view('count(*) AS "my count"'), 'NAME', 2, /cannot name/, /another/],
  [view('sum(amount) AS a'), 'NAME', 2, /no column amount/, /declare|mean/],
  [view('sum(ii) AS a'), 'NAME', 2, /no column ii/, /did you mean i/],
  [view('first(_offset) AS o'), 'NAME', 2, /_offset cannot be used/, /_append_time/],
  [view('first(other.s) AS o'), 'NAME', 2, /other\.s/, /declare|mean/],
  // what does not merge or repeat
  [view('count(DISTINCT s) AS n'), 'MEASURE', 2, /DISTINCT/, /approx_count_distinct/],
  [view('sum(DISTINCT i) AS n'), 'MEASURE', 2, /DISTINCT/, /leave/],
  [view('median(i) AS m'), 'MEASURE', 2, /median/, /approx_quantile\(x, 0\.5\)/],
  [view('quantile_cont(i, 0.5) AS m'), 'MEASURE', 2, /quantile_cont/, /approx_quantile/],
  [view('approx_top_k(s, 3) AS m'), 'MEASURE', 2, /approx_top_k/, /orderBy/],
  [view('mode(s) AS m'), 'MEASURE', 2, /mode/, /dimension/],
  [view("string_agg(s, ',') AS m"), 'MEASURE', 2, /string_agg/, /dimension/],
  [view('arg_max(s, ts) AS m'), 'MEASURE', 2, /arg_max/, /last/],
  [view('any_value(s) AS m'), 'MEASURE', 2, /any_value/, /first/],
  [view('sum(x) AS m'), 'MEASURE', 2, /DOUBLE/, /TRY_CAST\(x AS DECIMAL\(18,6\)\)/],
  [view('avg(x) AS m'), 'MEASURE', 2, /DOUBLE/, /TRY_CAST/],
  [view('stddev(x) AS m'), 'MEASURE', 2, /DOUBLE/, /DECIMAL\(12/],
  [view('var_samp(b) AS m'), 'MEASURE', 2, /BIGINT/, /DECIMAL\(12/],
  [view('sum(h) AS m'), 'MEASURE', 2, /DECIMAL\(38,6\)/, /DECIMAL\(26,6\)/],
  [view('sum(s) AS m'), 'MEASURE', 2, /VARCHAR/, /TRY_CAST/],
  [view('sum(f) AS m'), 'MEASURE', 2, /BOOLEAN/, /FILTER/],
  [view('bool_and(i) AS m'), 'MEASURE', 2, /INTEGER/, /compare/],
  [view('min(j) AS m'), 'MEASURE', 2, /JSON/, /->>/],
  [view('approx_count_distinct(x) AS m'), 'MEASURE', 2, /DOUBLE/, /BIGINT/],
  [view('approx_count_distinct(tz) AS m'), 'MEASURE', 2, /TIMESTAMPTZ/, /epoch_us/],
  [view('approx_quantile(s, 0.5) AS m'), 'MEASURE', 2, /VARCHAR/, /TRY_CAST/],
  [view('approx_quantile(x, 95) AS m'), 'MEASURE', 2, /from 0 to 1/, /0\.95/],
  [view('approx_quantile(x, y) AS m'), 'MEASURE', 2, /constant/, /0\.95/],
  [view('first(s ORDER BY ts) AS m'), 'MEASURE', 2, /ORDER BY/, /event time/],
  [view('sum(count(*)) AS m'), 'MEASURE', 2, /inside another/, /arithmetic/],
  [view('count(*) FILTER (WHERE sum(i) > 1) AS m'), 'MEASURE', 2, /inside another/, /arithmetic/],
  [view('count(*) AS n', 'WHERE count(*) > 1'), 'MEASURE', 3, /inside another/, /arithmetic/],
  [view('sum(i) AS t, count(*) FILTER (WHERE t > 1) AS n'), 'MEASURE', 2, /measure t/, /arithmetic/],
  [view('sum(i) AS t, t / i AS n'), 'MEASURE', 2, /no single value/, /first\(i\)/],
  [view('sum(i) AS t, row_number() OVER () AS n'), 'EXPRESSION', 2, /window/, /query/],
  [view('sum(i) AS t, sum(sum(i)) OVER () AS n'), 'EXPRESSION', 2, /window/, /query/],
  [view('count(*) AS n, (SELECT 1) + count(*) AS m'), 'EXPRESSION', 2, /subquery/, /event/],
  [view('count(*) AS n', 'WHERE i IN (SELECT 1)'), 'EXPRESSION', 3, /subquery/, /event/],
  // functions
  [view('first(now()) AS t'), 'FUNCTION', 2, /now/, /_append_time/],
  [view('first(current_timestamp) AS t'), 'FUNCTION', 2, /current_timestamp/, /_append_time/],
  [view('count(*) AS n', 'WHERE dt < current_date'), 'FUNCTION', 3, /current_date/, /_append_time/],
  [view('max(random()) AS t'), 'FUNCTION', 2, /random/, /md5/],
  [view('first(uuid()) AS t'), 'FUNCTION', 2, /uuid/, /column/],
  [view('first(hash(s)) AS t'), 'FUNCTION', 2, /hash/, /md5/],
  [view('first(lowerr(s)) AS t'), 'FUNCTION', 2, /lowerr/, /lower/],
  [view('first(lower(i)) AS t'), 'FUNCTION', 2, /lower.*INTEGER/, /cast/],
  [view('first(regexp_matches(s, r)) AS t'), 'FUNCTION', 2, /regexp_matches/, /constant/],
  [view("first(read_text('/etc/passwd')) AS t"), 'FUNCTION', 2, /read_text/, /./],
  [view("first(getenv('HOME')) AS t"), 'FUNCTION', 2, /getenv/, /./],
  [view('first(lambda q: q) AS t'), 'EXPRESSION', 2, /lambda/i, /->>/],
  [view("first(j -> '$.a') AS t"), 'EXPRESSION', 2, /arrow/, /->>/],
  [view('first($1) AS t'), 'EXPRESSION', 1, /parameter/, /value/],
  [view('first(s COLLATE nocase) AS t'), 'EXPRESSION', 2, /collation/, /lower/],
  [view('first(lower(s) FILTER (WHERE f)) AS t'), 'MEASURE', 2, /./, /./],
  [view("first(regexp_matches(s, 'a(')) AS t"), 'BIND', 1, /missing \)/, /correct/],
  [view("first(dt = '2024-02-30') AS t"), 'BIND', 1, /2024-02-30/, /correct/],
  [view('count(*) AS n', "WHERE ts > TIMESTAMPTZ 'yesterday-ish'"), 'BIND', 1, /yesterday-ish/, /correct/],
  // what may throw
  [view('sum(s::INTEGER) AS t'), 'PARTIAL', 2, /VARCHAR.*INTEGER/, /TRY_CAST/],
  [view('sum(CAST(b AS INTEGER)) AS t'), 'PARTIAL', 2, /BIGINT.*INTEGER/, /TRY_CAST/],
  [view('max(ln(x)) AS t'), 'PARTIAL', 2, /ln/, /TRY/],
  [view('max(sqrt(i)) AS t'), 'PARTIAL', 2, /sqrt/, /TRY/],
  [view('sum(b * b * b) AS t'), 'PARTIAL', 2, /HUGEINT/, /TRY/],
  [view('max(h + h) AS t'), 'PARTIAL', 2, /38 digits/, /TRY/],
  [view('s::DATE AS day, count(*) AS n'), 'PARTIAL', 2, /DATE/, /TRY_CAST/],
  [view('count(*) AS n', 'WHERE s::INTEGER > 1'), 'PARTIAL', 3, /INTEGER/, /TRY_CAST/],
  [view('count(*) FILTER (WHERE ln(x) > 1) AS n'), 'PARTIAL', 2, /ln/, /TRY/],
  [view("first(dt + INTERVAL '1 day') AS n"), 'PARTIAL', 2, /calendar/, /TRY/],
  [view('max(epoch_us(TRY_CAST(s AS DATE))) AS n'), 'PARTIAL', 2, /calendar/, /TRY/],
  [view('max(week(coalesce(dt, TRY_CAST(s AS DATE)))) AS n'), 'PARTIAL', 2, /calendar/, /TRY/],
  [view("first(timezone('UTC', TRY(ts + INTERVAL '1 hour'))::DATE) AS n"), 'PARTIAL', 2, /calendar/, /TRY/],
  [view('max(TRY_CAST(s AS TIMESTAMPTZ)) AS n'), 'TYPE', 2, /Text/, /AS TIMESTAMP\)/],
  // types
  [view('x AS spot, count(*) AS n'), 'DIMENSION', 2, /DOUBLE/, /DECIMAL|classes/],
  [view('j AS spot, count(*) AS n'), 'DIMENSION', 2, /JSON/, /->>/],
  [view('b + b AS spot, count(*) AS n'), 'DIMENSION', 2, /HUGEINT/, /cast/],
  [view("timezone('Europe/Berlin', ts) AS spot, count(*) AS n"), 'DIMENSION', 2, /TIMESTAMP/, /DATE/],
  [view('NULL AS spot, count(*) AS n'), 'DIMENSION', 2, /NULL/, /cast/],
  [view('count(*) AS n', 'WHERE s'), 'TYPE', 3, /condition/, /compare/],
  [view('first(s = i) AS n'), 'TYPE', 2, /VARCHAR and INTEGER/, /TRY_CAST/],
  [view('first(dt = ts) AS n'), 'TYPE', 2, /DATE and TIMESTAMPTZ/, /TRY_CAST/],
  [view('first(s + 1) AS n'), 'TYPE', 2, /VARCHAR/, /cast/],
  [view('first(s::FLOAT) AS n'), 'TYPE', 2, /FLOAT/, /DOUBLE/],
  [view('first(s::INTEGER[]) AS n'), 'TYPE', 2, /cast/, /choose/],
  [view('first(j::INTEGER) AS n'), 'TYPE', 2, /JSON/, /->>/],
  [view('first(1e400) AS n'), 'LITERAL', 1, /not finite/, /1\.8e308/],
  [view('first(h * 1e-30::DECIMAL(38,36)) AS n'), 'TYPE', 2, /decimal places/, /round/],
  // buckets
  [
    view("time_bucket(INTERVAL '1 minute', ts) AS a, date_trunc('hour', ts) AS hours, count(*) AS n"),
    'BUCKET',
    2,
    /two buckets/,
    /finer/,
  ],
  [
    view("time_bucket(INTERVAL '1 minute', ts, TIMESTAMPTZ '2000-01-01') AS a, count(*) AS n"),
    'BUCKET',
    2,
    /origin/,
    /leave/,
  ],
  [view("time_bucket(INTERVAL '1 month 2 days', ts) AS a, count(*) AS n"), 'BUCKET', 2, /width/, /time_bucket/],
  [view("time_bucket(INTERVAL '0 minutes', ts) AS a, count(*) AS n"), 'BUCKET', 2, /width/, /time_bucket/],
  [view("time_bucket(INTERVAL '100 milliseconds', ts) AS a, count(*) AS n"), 'BUCKET', 2, /width/, /time_bucket/],
  [view("date_trunc('decade', ts) AS a, count(*) AS n"), 'BUCKET', 2, /width/, /time_bucket/],
  [view("time_bucket(INTERVAL '1 minute', tz) AS a, count(*) AS n"), 'FUNCTION', 2, /time_bucket/, /date_trunc/],
]

describe('refused, with an error that teaches', () => {
  test.each(REFUSED)('%s', async (sql, code, line, message, next) => {
    const error = await refusal(fixture.tools, sql)
    expect({ code: error.code, line: error.line, file: error.file }).toEqual({
      code: `WEIR_MODEL_${code}`,
      line,
      file: 'views/v.sql',
    })
    expect(error.message).toMatch(message)
    expect(error.next ?? '').toMatch(next)
    expect(error.expected ?? '').not.toBe('')
  })
})

test('what stands beside each refusal is allowed', async () => {
  for (const sql of [
    'SELECT count(*) AS n FROM ev',
    'SELECT count(*) AS n FROM main.ev AS e WHERE e.i > 0',
    'SELECT ev.s, count(*) AS n FROM ev GROUP BY s',
    'SELECT s AS s, count(*) AS n FROM ev GROUP BY 1',
    'SELECT lower(s) AS low, low || r AS pair, count(*) AS n FROM ev GROUP BY low, pair',
    'SELECT count(*) FILTER (WHERE TRY_CAST(s AS INTEGER) > 1) AS n FROM ev',
    'SELECT CAST(_append_time AS DATE) AS day, count(*) AS n FROM ev GROUP BY ALL',
    'SELECT time_bucket(INTERVAL 15 MINUTE, ts) AS quarter_hour, count(*) AS n FROM ev GROUP BY ALL',
    'SELECT hour(ts) + 1 AS hour_number, count(*) AS n FROM ev GROUP BY ALL',
    'SELECT sum(i) AS t, count(*) AS n, t / n AS ratio, ratio * 100 AS percent, sum(i) / max(i) FROM ev GROUP BY ALL'.replace(
      ', sum(i) / max(i)',
      ', sum(i) / max(i) AS share',
    ),
  ])
    await expect(compile(fixture.tools, sql), sql).resolves.toBeDefined()
})
