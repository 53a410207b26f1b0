/**
 * The type table: JSON kind × column type, as SQL. For each column type: how the engine reads the field, and an expression
 * that is the value, or NULL when the field does not fit.
 * Invariant: nothing is rounded, guessed or cut: a value fits only if it can be given back as it came. (Two losses are
 * part of the table: an unquoted number with a fraction is its double, and digits of a time beyond microseconds are cut.)
 */

import type { Column } from '../dataset.ts'
import { decimalParts, integerRange } from './column-types.ts'

/** 'any': every JSON value fits. */
export type Kind = 'any' | 'integer' | 'double' | 'decimal' | 'boolean' | 'date' | 'time' | 'epoch' | 'uuid'

export const kindOf = (column: Column): Kind => {
  if (column.type === 'VARCHAR' || column.type === 'JSON') return 'any'
  if (integerRange(column.type)) return 'integer'
  if (decimalParts(column.type)) return 'decimal'
  if (column.type === 'DOUBLE') return 'double'
  if (column.type === 'BOOLEAN') return 'boolean'
  if (column.type === 'DATE') return 'date'
  if (column.type === 'UUID') return 'uuid'
  if (column.type === 'TIMESTAMPTZ') return column.unit === undefined ? 'time' : 'epoch'
  throw new Error(`no column type ${column.type}`)
}

/** Numbers and booleans are read as JSON: its text tells the kind, and keeps every digit of an integer. */
export const readType = (column: Column): 'JSON' | 'VARCHAR' => {
  if (column.type === 'JSON') return 'JSON'
  const kind = kindOf(column)
  return kind === 'integer' || kind === 'double' || kind === 'decimal' || kind === 'boolean' || kind === 'epoch'
    ? 'JSON'
    : 'VARCHAR'
}

const NUMBER = '-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?'
const DATE_TEXT = '[0-9]{4}-[0-9]{2}-[0-9]{2}'
const CLOCK = '([01][0-9]|2[0-4]):[0-5][0-9]'
const ZONE = '(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)'
const ISO = `${DATE_TEXT}([T ]${CLOCK}(:[0-5][0-9]([.][0-9]{1,9})?)?${ZONE}?)?`
/** The engine wants seconds before a zone. */
const NO_SECONDS = `^(.{16})(Z|[+-])`
const MICROS = { s: 1_000_000, ms: 1_000, us: 1 } as const
/** Epoch times beyond 285,000 years are not times. */
const MAX_EPOCH_US = 9_000_000_000_000_000_000n

/**
 * `helper`: an expression over the raw text, computed once for each row; `value`: the value or NULL, over raw text and
 * helper. `value` is NULL for a raw NULL.
 */
export const valueLayers = (column: Column, raw: string, helper: string): { helper: string | null; value: string } => {
  const quoted = `starts_with(${raw}, '"')`
  const inside = `substr(${raw}, 2, length(${raw}) - 2)`
  switch (kindOf(column)) {
    case 'any':
      return { helper: null, value: column.type === 'JSON' ? `${raw}::JSON` : raw }
    case 'integer': {
      const cast = (text: string): string => `TRY_CAST(${text} AS ${column.type})`
      return {
        helper: cast(raw),
        value: `CASE WHEN ${helper}::VARCHAR = ${raw} THEN ${helper} WHEN ${quoted} AND ${cast(inside)}::VARCHAR = ${inside} THEN ${cast(inside)} END`,
      }
    }
    case 'double': {
      const cast = `TRY_CAST(${inside} AS DOUBLE)`
      return {
        helper: `TRY_CAST(${raw} AS DOUBLE)`,
        value: `CASE WHEN ${raw} < ':' AND isfinite(${helper}) THEN ${helper} + 0.0::DOUBLE WHEN ${quoted} AND regexp_full_match(${inside}, '${NUMBER}') AND isfinite(${cast}) THEN ${cast} + 0.0::DOUBLE END`,
      }
    }
    case 'decimal': {
      const { precision, scale } = decimalParts(column.type)!
      const decimal = `TRY_CAST(${helper} AS ${column.type})`
      const whole = precision === scale ? '0' : `(0|[1-9][0-9]{0,${precision - scale - 1}})`
      const fraction = scale === 0 ? '([.]0+)?' : `([.][0-9]{1,${scale}}0*)?`
      return {
        helper: `TRY_CAST(${raw} AS DOUBLE)`,
        value: `CASE WHEN ${raw} < ':' AND abs(${helper}) < 1e${15 - scale} AND ${decimal}::DOUBLE = ${helper} THEN ${decimal} WHEN ${quoted} AND regexp_full_match(${inside}, '-?${whole}${fraction}') THEN TRY_CAST(${inside} AS ${column.type}) END`,
      }
    }
    case 'boolean':
      return {
        helper: null,
        value: `CASE WHEN ${raw} IN ('true', '"true"') THEN true WHEN ${raw} IN ('false', '"false"') THEN false END`,
      }
    case 'date':
      return {
        helper: `TRY_CAST(${raw} AS DATE)`,
        value: `CASE WHEN ${helper}::VARCHAR = ${raw} AND strlen(${raw}) = 10 THEN ${helper} END`,
      }
    case 'uuid':
      return {
        helper: `TRY_CAST(${raw} AS UUID)`,
        value: `CASE WHEN ${helper}::VARCHAR = lower(${raw}) THEN ${helper} END`,
      }
    case 'time': {
      // Common shapes by mask, the others by regular expression; and only what has the shape is cast. (A text with the name
      // of a zone would change how the engine reads the *other* rows of its vector: duckdb 1.5.6 keeps the zone for the next.)
      const shapes = ['Z', '.___Z', '.______Z'].map((end) => `${raw} LIKE '____-__-__T__:__:__${end}'`)
      const common = `${raw} >= '0' AND ${raw} < ':' AND (${shapes.join(' OR ')}) AND NOT contains(${raw}, ' ')`
      return {
        helper: `CASE WHEN ${common} THEN ${raw} WHEN regexp_full_match(${raw}, '${ISO}') THEN regexp_replace(${raw}, '${NO_SECONDS}', '\\1:00\\2') END`,
        value: `TRY_CAST(${helper} AS TIMESTAMPTZ)`,
      }
    }
    case 'epoch': {
      const factor = MICROS[column.unit!]
      const limit = MAX_EPOCH_US / BigInt(factor)
      const text = `trim(${raw}, '"')`
      const whole = `TRY_CAST(${text} AS BIGINT)`
      return {
        helper: whole,
        value: `CASE WHEN ${helper}::VARCHAR = ${text} AND ${helper} BETWEEN -${limit} AND ${limit} THEN make_timestamptz(${helper} * ${factor}) WHEN ${raw} < ':' AND abs(TRY_CAST(${raw} AS DOUBLE) * ${factor}::DOUBLE) < 9e15 THEN make_timestamptz(round(TRY_CAST(${raw} AS DOUBLE) * ${factor}::DOUBLE)::BIGINT) END`,
      }
    }
  }
}

/** What a column takes, in the words of a dead letter. */
export const expectedOf = (column: Column): string => {
  const range = integerRange(column.type)
  if (range) return `${column.type}: a whole number from ${range.min} to ${range.max}`
  switch (kindOf(column)) {
    case 'decimal': {
      const { precision, scale } = decimalParts(column.type)!
      return `${column.type}: at most ${precision - scale} digits before the point and ${scale} after; numbers of more than 15 digits as a string`
    }
    case 'double':
      return 'DOUBLE: a finite number'
    case 'boolean':
      return 'BOOLEAN: true or false'
    case 'date':
      return 'DATE: a day that exists, as "2024-05-31"'
    case 'uuid':
      return 'UUID: 36 characters, as "550e8400-e29b-41d4-a716-446655440000"'
    case 'time':
      return 'TIMESTAMPTZ: an ISO-8601 time that exists, as "2024-05-31T13:45:00Z"'
    case 'epoch':
      return `TIMESTAMPTZ: a number, the ${{ s: 'seconds', ms: 'milliseconds', us: 'microseconds' }[column.unit!]} since 1970`
    default:
      return `${column.type}: any JSON value`
  }
}
