/**
 * What a measure is: partial, merge, present and the published one-pass definition, all as SQL text.
 * Invariant: merge is associative and commutative with the state of no rows as neutral element, and
 * present(merge(partials of any split)) equals the reference over all rows, bit for bit (test/model/laws.test.ts).
 */

import { max, type ValueType } from '../compile/value-type.ts'
import type { ColumnType } from '../dataset.ts'

/** An argument as the checker knows it, before it is printed. */
export type MeasureArgument = {
  type: ValueType
  constant: boolean
  /** Text of an exact numeric constant, for example '0.95'. */
  number?: string
}

/** An argument that was printed by the engine. */
export type PrintedArgument = MeasureArgument & { sql: string }

export type MeasureCall = {
  /** The name as it was written, lower case. */
  name: string
  args: PrintedArgument[]
  /** Printed condition of FILTER (WHERE …); null: every row. */
  filter: string | null
  /** Quoted event time column. */
  eventTime: string
}

export type StateSpec = {
  type: ColumnType
  /** Aggregate over inner rows. */
  partial: string
  /** Aggregate over cells, from a state column's name. */
  merge: (column: string) => string
  /** Sketches: nested aggregates that should not share one grouping query. */
  heavy: boolean
}

export type BuiltMeasure = {
  type: ColumnType | 'COUNT'
  /** The result's type with its bounds, for arithmetic over measures. */
  value: ValueType
  /** Text that states the error bound; null: exact. */
  approximate: string | null
  states: StateSpec[]
  /** Scalar over merged states, given their column names in the order of `states`. */
  present: (columns: string[]) => string
  reference: string
  needsPosition: boolean
}

export type Problem = { message: string; expected: string; next: string }

export type Measure = {
  names: readonly string[]
  usage: string
  /** Null: these arguments fit. */
  check: (name: string, args: MeasureArgument[]) => Problem | null
  build: (call: MeasureCall) => BuiltMeasure
}

/** An aggregate with the call's FILTER. */
export const filtered = (aggregate: string, filter: string | null): string =>
  filter === null ? aggregate : `${aggregate} FILTER (WHERE ${filter})`

/** FILTER that also asks for a value. */
export const filteredNotNull = (aggregate: string, sql: string, filter: string | null): string =>
  `${aggregate} FILTER (WHERE ${filter === null ? '' : `(${filter}) AND `}(${sql}) IS NOT NULL)`

export const takesOne = (name: string, args: MeasureArgument[]): Problem | null =>
  args.length === 1
    ? null
    : { message: `${name} takes one argument, not ${args.length}.`, expected: `${name}(x)`, next: 'correct the call' }

/** Largest magnitude of an exact number's unscaled value. */
export const magnitude = (t: ValueType): bigint => max(-t.lo, t.hi)

/**
 * Type of a column that keeps values of `t` as they are; null when none does. 128-bit integers become DECIMAL(38,0), which
 * lakes and JSON know.
 */
export const storedType = (t: ValueType): ColumnType | null => {
  if (t.kind === 'INTEGER' && t.sql === 'HUGEINT') return magnitude(t) < 10n ** 38n ? 'DECIMAL(38,0)' : null
  return ['INTEGER', 'DECIMAL', 'BOOLEAN', 'DOUBLE', 'VARCHAR', 'DATE', 'TIMESTAMPTZ', 'UUID'].includes(t.kind)
    ? t.sql
    : null
}

/** Doubles without −0 and with one NaN, so that equal values have equal bits. */
export const oneBitPattern = (sql: string, t: ValueType): string =>
  t.kind === 'DOUBLE'
    ? `CASE WHEN isnan(${sql}) THEN CAST('NaN' AS DOUBLE) WHEN (${sql}) = 0e0 THEN 0e0 ELSE ${sql} END`
    : sql

export const notStorable = (name: string, t: ValueType): Problem => ({
  message: `${name} cannot keep values of type ${t.sql}.`,
  expected: 'BOOLEAN, integers, DECIMAL, DOUBLE, VARCHAR, DATE, TIMESTAMPTZ or UUID',
  next:
    t.kind === 'JSON'
      ? "take text out with ->> '<path>', or cast to VARCHAR"
      : t.kind === 'TIMESTAMP'
        ? 'cast it to TIMESTAMPTZ'
        : 'cast it to one of these',
})
