/** What the compiler's tests share: an engine, a dataset with a column of every type, rows of odd values. */
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { compileView } from '../../model/compile/compile.ts'
import type { Dataset } from '../../model/dataset.ts'
import { WeirError } from '../../model/errors.ts'
import type { SqlTools, View } from '../../model/view.ts'

const TYPES: Record<string, string> = {
  ts: 'TIMESTAMPTZ',
  id: 'BIGINT',
  t8: 'TINYINT',
  i16: 'SMALLINT',
  i: 'INTEGER',
  b: 'BIGINT',
  u8: 'UTINYINT',
  u32: 'UINTEGER',
  u64: 'UBIGINT',
  d: 'DECIMAL(12,2)',
  e: 'DECIMAL(18,4)',
  h: 'DECIMAL(38,6)',
  x: 'DOUBLE',
  y: 'DOUBLE',
  s: 'VARCHAR',
  r: 'VARCHAR',
  f: 'BOOLEAN',
  u: 'UUID',
  dt: 'DATE',
  tz: 'TIMESTAMPTZ',
  j: 'JSON',
  Mixed: 'VARCHAR',
}

export const dataset: Dataset = {
  name: 'ev',
  columns: Object.entries(TYPES).map(([name, type]) => ({ name, type, required: false })),
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'id',
  dedupeWindowMs: 3_600_000,
  extra: 'keep',
  partitions: 1,
}

export type Fixture = { engine: Engine; session: Session; tools: SqlTools; close(): Promise<void> }

export const openFixture = async (threads = 1): Promise<Fixture> => {
  const engine = await openEngine({ threads })
  const session = await engine.session()
  return {
    engine,
    session,
    tools: sqlTools(engine),
    close: async () => {
      session.close()
      await engine.close()
    },
  }
}

export const compile = (tools: SqlTools, sql: string, over: Dataset = dataset, name = 'v'): Promise<View> =>
  compileView({ name, sql, file: `views/${name}.sql`, dataset: over }, tools)

/** The error of a definition that must be refused. */
export const refusal = async (tools: SqlTools, sql: string, over: Dataset = dataset): Promise<WeirError> => {
  try {
    await compile(tools, sql, over)
  } catch (error) {
    if (error instanceof WeirError) return error
    throw error
  }
  throw new Error(`not refused: ${sql}`)
}

/** Values at every limit, one row per list position; a row of NULLs; time within the event time range. */
const ODD: Record<string, string[]> = {
  ts: [
    "'1970-01-01'",
    "'2024-02-29 12:34:56.789012'",
    "'2199-12-31 23:59:59.999999'",
    "'1999-12-31 23:59:59'",
    "'2000-01-03'",
  ],
  t8: ['-128', '127', '0', '1', '-1'],
  i16: ['-32768', '32767', '0', '7', '-7'],
  i: ['-2147483648', '2147483647', '0', '42', '-42'],
  b: ['-9223372036854775808', '9223372036854775807', '0', '1000000007', '-3'],
  u8: ['0', '255', '1', '2', '3'],
  u32: ['0', '4294967295', '1', '2', '3'],
  u64: ['0', '18446744073709551615', '1', '2', '3'],
  d: ['-9999999999.99', '9999999999.99', '0', '12.34', '-0.01'],
  e: ['-99999999999999.9999', '99999999999999.9999', '0', '1.0001', '-2.5'],
  h: ['-99999999999999999999999999999999.999999', '99999999999999999999999999999999.999999', '0', '1.5', '-1.5'],
  x: ["'-inf'", "'inf'", "'nan'", '1.7976931348623157e308', '-0.0'],
  y: ['5e-324', '-1.7976931348623157e308', '0', '2.5', '-2.5'],
  s: ["''", "'Straße İstanbul ΑΣ'", "'👨‍👩‍👧 ～'", "'a,b,c'", "'2024-02-30'"],
  r: ["'abc'", "'ß'", "''", "'b'", "'12'"],
  f: ['true', 'false', 'true', 'false', 'true'],
  u: [
    "'00000000-0000-0000-0000-000000000000'",
    "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    "'12345678-1234-1234-1234-123456789abc'",
    "'80000000-0000-0000-0000-000000000000'",
    "'7fffffff-ffff-ffff-ffff-ffffffffffff'",
  ],
  dt: ["'0001-01-01'", "'9999-12-31'", "'1970-01-01'", "'2024-02-29'", "'1899-12-31'"],
  tz: [
    "'0001-01-01'",
    "'9999-12-31 23:59:59.999999'",
    "'1970-01-01'",
    "'2024-03-31 01:30:00'",
    "'1969-12-31 23:59:59.999999'",
  ],
  j: [`'{"a":1.10}'`, `'[1,2]'`, `'"text"'`, `'null'`, `'{"a":{"b":true}}'`],
  Mixed: ["'M'", "'m'", "''", "'x'", "'y'"],
}

/** SQL of a relation of decoded rows: 5 rows at the limits and one of NULLs. */
export const oddRows = (): string => {
  const row = (n: number): string =>
    dataset.columns
      .map(({ name, type }) => {
        const value = name === 'id' ? String(n) : n === 5 ? (name === 'ts' ? "'2020-01-01'" : 'NULL') : ODD[name]![n]!
        return `CAST(${value} AS ${type}) AS "${name}"`
      })
      .concat(
        `0::BIGINT AS _partition`,
        `${n}::BIGINT AS _offset`,
        `0::BIGINT AS _index`,
        `TIMESTAMPTZ '2026-11-24 10:00:00' AS _append_time`,
      )
      .join(', ')
  return [0, 1, 2, 3, 4, 5].map((n) => `SELECT ${row(n)}`).join(' UNION ALL ')
}
