/**
 * Random projects and events of the oracle. Invariant: everything is a function of the random source, and each event
 * carries its typed values beside its JSON text, so that the expected answer never depends on Weir's decoder.
 */
import type { Random } from '../../cli/random.ts'
import type { Column, Dataset } from '../../model/dataset.ts'
import { literal } from '../../model/ident.ts'

/** A column with pools of values: JSON text and the SQL literal that it must decode to. */
type Pool = { column: Column; values: { json: string; sql: string }[] }

const text = (value: string): { json: string; sql: string } => ({ json: JSON.stringify(value), sql: literal(value) })
const same = (value: string): { json: string; sql: string } => ({ json: value, sql: value })
const NULL = { json: 'null', sql: 'NULL' }

const POOLS: Record<string, Omit<Pool, 'column'> & { type: string }> = {
  k: { type: 'VARCHAR', values: [text('a'), text('B'), text(''), text('é😀'), text('～'), text("o'x\n"), NULL] },
  g: { type: 'VARCHAR', values: [text('x'), text('y'), NULL, { json: '12.50', sql: "'12.5'" }] },
  n: { type: 'INTEGER', values: ['0', '1', '2', '-7', '2147483647', '-2147483648'].map(same).concat(NULL) },
  big: {
    type: 'BIGINT',
    values: ['9007199254740993', '-9223372036854775808', '9223372036854775807', '5'].map(same).concat(NULL),
  },
  amt: {
    type: 'DECIMAL(18,2)',
    values: [
      { json: '"1234567890123456.78"', sql: "'1234567890123456.78'" },
      { json: '0.01', sql: "'0.01'" },
      { json: '19.99', sql: "'19.99'" },
      { json: '-5', sql: "'-5'" },
      { json: '"-0.10"', sql: "'-0.10'" },
      NULL,
    ],
  },
  d: {
    type: 'DOUBLE',
    values: [
      same('0.1'),
      same('1e-7'),
      same('123.456'),
      { json: '-0.0', sql: '0.0' },
      same('1e300'),
      same('-3.5'),
      NULL,
    ],
  },
  b: { type: 'BOOLEAN', values: [same('true'), same('false'), NULL] },
  day: { type: 'DATE', values: [text('2026-11-24'), text('1999-12-31'), NULL] },
}
const EXTRA_FIELD = '"note":{"x":[1,"é"]}'

export type OracleEvent = {
  json: string
  /** SQL literals by column; null: the event is dead. */
  row: Record<string, string> | null
}

export type OracleProject = {
  dataset: Dataset
  /** View SQL by name; each has several definitions, of which the first one is deployed at the start. */
  views: { name: string; definitions: string[] }[]
}

export const BASE_MS = Date.UTC(2026, 10, 24, 22, 30)

const subset = <T>(r: Random, list: readonly T[], least: number, most: number): T[] => {
  const left = [...list]
  const out: T[] = []
  const n = r.int(least, most + 1)
  while (out.length < n && left.length > 0) out.push(left.splice(r.int(0, left.length), 1)[0]!)
  return out
}

const BUCKETS = [
  null,
  "time_bucket(INTERVAL '1 minute', ts)",
  "time_bucket(INTERVAL '15 minutes', ts)",
  "time_bucket(INTERVAL '1 hour', ts)",
  "time_bucket(INTERVAL '1 day', ts)",
  "date_trunc('month', ts)",
]
const MEASURES = [
  'count(*)',
  'count(k)',
  'sum(amt)',
  'sum(n)',
  'sum(big)',
  'sum(amt) FILTER (WHERE b)',
  'avg(n)',
  'avg(amt)',
  'min(d)',
  'max(d)',
  'max(ts)',
  'min(k)',
  'max(day)',
  'bool_and(b)',
  'bool_or(b)',
  'var_samp(n)',
  'stddev_pop(n)',
  'first(k)',
  'last(amt)',
  'last(n) FILTER (WHERE b)',
  'approx_count_distinct(k)',
  'approx_count_distinct(id)',
  'approx_quantile(d, 0.5)',
  'approx_quantile(n, 0.9)',
]
const WHERES = ['', '', 'WHERE b', 'WHERE n > 0', 'WHERE k IS NOT NULL', "WHERE g = 'x' OR b"]

const viewSql = (r: Random, dataset: Dataset): string => {
  const declared = new Set(dataset.columns.map((c) => c.name))
  const missing = ['id', ...Object.keys(POOLS)].filter((name) => !declared.has(name))
  const usable = (sql: string): boolean => !missing.some((name) => new RegExp(`\\b${name}\\b`).test(sql))
  const bucket = r.pick(BUCKETS)
  const dimensions = subset(r, ['k', 'g', 'n', 'b', 'day'].filter(usable), 0, 2)
  const measures = subset(r, MEASURES.filter(usable), 1, 4).map((m, i) => `${m} AS m${i}`)
  if (r.chance(0.3)) measures.push('count(*) AS rows_total', 'sum(n) AS n_sum', 'n_sum / rows_total AS ratio')
  const items = [...(bucket === null ? [] : [`${bucket} AS bucket_start`]), ...dimensions, ...measures]
  return `SELECT ${items.join(', ')} FROM ${dataset.name} ${r.pick(WHERES.filter(usable))} GROUP BY ALL`
}

export const randomProject = (r: Random): OracleProject => {
  const withId = r.chance(0.8)
  // Always k and n; few columns keep a schedule cheap, since most of its cost is the engine's planning.
  const pools = Object.entries(POOLS).filter(([name]) => name === 'k' || name === 'n' || r.chance(0.5))
  const columns: Column[] = [
    ...(withId ? [{ name: 'id', type: r.chance(0.5) ? 'VARCHAR' : 'BIGINT', required: false }] : []),
    { name: 'ts', type: 'TIMESTAMPTZ', required: true },
    ...pools.map(([name, { type }]) => ({ name, type, required: false })),
  ]
  const dataset: Dataset = {
    name: 'facts',
    columns,
    eventTime: 'ts',
    eventTimeRangeUs: { from: 0n, to: BigInt(Date.UTC(2200, 0, 1)) * 1_000n },
    ...(withId ? { id: 'id' } : {}),
    ...(withId && r.chance(0.85) ? { dedupeWindowMs: r.pick([1_000, 60_000, 3_600_000]) } : {}),
    extra: r.chance(0.7) ? 'keep' : 'reject',
    partitions: r.pick([1, 1, 2, 3]),
  }
  const views = Array.from({ length: r.pick([1, 1, 2, 3]) }, (_, i) => ({
    name: `view${i}`,
    definitions: [viewSql(r, dataset), viewSql(r, dataset)],
  }))
  return { dataset, views }
}

const eventTimeMs = (r: Random, nowMs: number): number => {
  const kind = r.next()
  if (kind < 0.6) return nowMs - r.int(0, 120_000)
  if (kind < 0.8) return nowMs - r.int(0, 3 * 86_400_000)
  if (kind < 0.9) return nowMs + r.int(0, 86_400_000)
  return r.int(0, Date.UTC(2199, 0, 1))
}

const broken = (r: Random, line: string): string =>
  r.pick([
    line.slice(0, -1),
    '[1]',
    'nonsense',
    '{"ts":"yesterday"}',
    '{"k":"no time"}',
    line.replace(/"ts":"[^"]*"/, '"ts":true'),
    line.replace(/\}$/, ',"n":1.5,"n":2}'),
    line.replace(/^\{/, '{"n":"perhaps",'),
  ])

/** An event around `nowMs`; ids come from a small pool, so that some repeat. */
export const randomEvent = (r: Random, dataset: Dataset, nowMs: number): OracleEvent => {
  const fields: string[] = []
  const row: Record<string, string> = {}
  const us = BigInt(eventTimeMs(r, nowMs)) * 1_000n + BigInt(r.int(0, 1_000))
  const iso = new Date(Number(us / 1_000n)).toISOString().replace('Z', `${String(us % 1_000n).padStart(3, '0')}Z`)
  row.ts = `make_timestamptz(${us})`
  fields.push(`"ts":"${iso}"`)
  if (dataset.id !== undefined) {
    // Few ids are hot: repeated again and again, as long as their window is.
    const id = r.chance(0.3) ? r.int(0, 3) : r.int(0, 30)
    const isText = dataset.columns.find((c) => c.name === 'id')!.type === 'VARCHAR'
    row.id = isText ? `'e${id}'` : String(id)
    fields.push(isText ? `"id":"e${id}"` : `"id":${id}`)
  }
  for (const { name } of dataset.columns) {
    const values = POOLS[name]?.values
    if (values === undefined) continue
    const value = r.chance(0.15) ? null : r.pick(values)
    row[name] = value === null ? 'NULL' : value.sql
    if (value !== null) fields.push(`"${name}":${value.json}`)
  }
  const extra = r.chance(0.1)
  if (extra) fields.push(EXTRA_FIELD)
  // Foreign column order.
  if (r.chance(0.3)) fields.reverse()
  const json = `{${fields.join(',')}}`
  if (r.chance(0.08)) return { json: broken(r, json).replace(/\n/g, ' '), row: null }
  return { json, row: extra && dataset.extra === 'reject' ? null : row }
}
