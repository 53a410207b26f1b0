/**
 * What is asked of a table, printed for DuckDB, DataFusion and Spark: aggregates of every column, and counts under filters on the bounds
 * of a column, which come out wrong when a file's statistics are narrower than its rows. Pure.
 */

export type Dialect = 'duckdb' | 'datafusion' | 'spark'
export type Column = { name: string; type: string }

const TYPES: Record<Exclude<Dialect, 'duckdb'>, Record<string, string>> = {
  datafusion: {},
  spark: { INTEGER: 'INT', 'TIMESTAMP WITH TIME ZONE': 'TIMESTAMP', VARCHAR: 'STRING' },
}

const name = (dialect: Dialect, column: string): string =>
  dialect === 'spark' ? `\`${column.replaceAll('`', '``')}\`` : `"${column.replaceAll('"', '""')}"`

const text = (dialect: Dialect, value: string): string =>
  dialect === 'spark'
    ? `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
    : `'${value.replaceAll("'", "''")}'`

const isTime = (type: string): boolean => type === 'TIMESTAMP WITH TIME ZONE'
const scaleOf = (type: string): number | null => {
  const decimal = /^DECIMAL\(\d+,(\d+)\)$/.exec(type)
  if (decimal) return Number(decimal[1])
  return /^(TINY|SMALL|BIG)INT$|^INTEGER$/.test(type) ? 0 : null
}

/** Microseconds since 1970; DataFusion's times come back as times, and are turned there. */
const micros = (dialect: Dialect, sql: string): string =>
  dialect === 'duckdb' ? `epoch_us(${sql})` : dialect === 'spark' ? `unix_micros(${sql})` : sql

export type Aggregate = { label: string; sql: string; column: Column | null }

/** Spark writes each row once more for every DISTINCT; a set of the few values is quicker. */
const distinct = (dialect: Dialect, c: string): string =>
  dialect === 'spark' ? `size(collect_set(${c}))` : `count(DISTINCT ${c})`

/** Per column: values that are not NULL, different ones, the least, the greatest, and the sum where it is exact. */
export const aggregates = (dialect: Dialect, columns: Column[]): Aggregate[] => [
  { label: 'rows', sql: 'count(*)', column: null },
  ...columns.flatMap((column) => {
    const c = name(dialect, column.name)
    const out: Aggregate[] = [
      { label: `count ${column.name}`, sql: `count(${c})`, column: null },
      { label: `distinct ${column.name}`, sql: distinct(dialect, c), column: null },
    ]
    if (column.type === 'BOOLEAN')
      out.push({ label: `true ${column.name}`, sql: `sum(CASE WHEN ${c} THEN 1 ELSE 0 END)`, column: null })
    if (column.type === 'BOOLEAN' || column.type === 'BLOB') return out
    for (const bound of ['min', 'max']) {
      const sql = isTime(column.type) ? micros(dialect, `${bound}(${c})`) : `${bound}(${c})`
      out.push({ label: `${bound} ${column.name}`, sql, column })
    }
    const scale = scaleOf(column.type)
    if (scale !== null)
      out.push({ label: `sum ${column.name}`, sql: `sum(CAST(${c} AS DECIMAL(38,${scale})))`, column })
    return out
  }),
]

/** The one row of all aggregates, over a table `from`. */
export const aggregateSql = (dialect: Dialect, list: Aggregate[], from: string): string => {
  const cast = (sql: string): string => (dialect === 'duckdb' ? `CAST(${sql} AS VARCHAR)` : sql)
  return `SELECT ${list.map((a, i) => `${cast(a.sql)} AS a${i}`).join(', ')} FROM ${from}`
}

/** Values as all readers print them: doubles by their number, decimals without zeros at the end. */
export const canonical = (value: string | null, column: Column | null): string | null => {
  if (value === null || column === null) return value
  if (column.type === 'DOUBLE' || column.type === 'FLOAT') return String(Number(value))
  return scaleOf(column.type) !== null && value.includes('.') ? value.replace(/\.?0+$/, '') : value
}

/** A literal of a column's type; times are microseconds since 1970. */
const value = (dialect: Dialect, type: string, of: string): string => {
  if (isTime(type)) {
    const us = BigInt(of)
    const at = `${new Date(Number(us / 1_000n)).toISOString().slice(0, 23)}${String(us % 1_000n).padStart(3, '0')}Z`
    if (dialect === 'datafusion') return `arrow_cast('${at}', 'Timestamp(Microsecond, Some("UTC"))')`
    return `CAST('${at}' AS ${dialect === 'spark' ? 'TIMESTAMP' : 'TIMESTAMPTZ'})`
  }
  if (type === 'VARCHAR') return text(dialect, of)
  return `CAST('${of}' AS ${(dialect === 'duckdb' ? undefined : TYPES[dialect][type]) ?? type})`
}

export type Filter = { column: Column; operator: '>=' | '<='; bound: string }

/** Filters at the bounds of columns: `bounds` by label, as the aggregates gave them. */
export const filters = (columns: Column[], bounds: Map<string, string | null>): Filter[] =>
  columns.flatMap((column) =>
    (['>=', '<='] as const).flatMap((operator): Filter[] => {
      const bound = bounds.get(`${operator === '>=' ? 'max' : 'min'} ${column.name}`) ?? null
      return bound === null ? [] : [{ column, operator, bound }]
    }),
  )

export const filterLabel = (f: Filter): string => `${f.column.name} ${f.operator} ${JSON.stringify(f.bound)}`

/** One row per filter: its number and how many rows pass it. */
export const filtersSql = (dialect: Dialect, list: Filter[], from: string): string =>
  list.map((filter, i) => `SELECT ${i} AS i, ${filterSql(dialect, filter, from)}`).join(' UNION ALL ')

const filterSql = (dialect: Dialect, { column, operator, bound }: Filter, from: string): string =>
  `count(*) AS n FROM ${from} WHERE ${name(dialect, column.name)} ${operator} ${value(dialect, column.type, bound)}`
