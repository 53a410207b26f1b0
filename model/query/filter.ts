/**
 * Filters of queries: checking, and printing as SQL with its NULL logic.
 * Invariant: a checked filter names dimensions of the view, its values are canonical text of the dimension's type (booleans and
 * NULL as they are), and so its SQL can neither fail nor mean anything else.
 */
import { decimalParts, integerRange } from '../decode/column-types.ts'
import { ident, literal } from '../ident.ts'
import type { ViewDimension } from '../view.ts'
import { badQuery, knownName } from './errors.ts'
import type { Filter, FilterOp, Scalar } from './query.ts'
import { parseTime } from './time.ts'

export const FILTER_OPS: readonly FilterOp[] = [
  '=',
  '!=',
  '<',
  '<=',
  '>',
  '>=',
  'in',
  'notIn',
  'isNull',
  'isNotNull',
  'contains',
  'startsWith',
]
const MAX_DEPTH = 16
const MAX_LEAVES = 500
const MAX_LIST = 10_000
const MAX_TEXT = 65_536

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

type Checked = string | boolean | null

const digits = (value: Scalar): string | null => {
  const text = typeof value === 'number' ? plainNumber(value) : typeof value === 'string' ? value : null
  return text !== null && /^-?\d{1,80}(\.\d{1,80})?$/.test(text) ? text : null
}
/** A JS number without an exponent; null when it is not finite, or only an approximation of what was written. */
const plainNumber = (value: number): string | null => {
  if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) return null
  const text = String(value)
  if (!text.includes('e')) return text
  const fixed = value.toFixed(20).replace(/0+$/, '')
  return Number(fixed) === value ? fixed : null
}

const checkInteger = (type: string, value: Scalar): Checked | undefined => {
  const text = digits(value)
  if (text === null || text.includes('.')) return undefined
  const range = integerRange(type)
  const n = BigInt(text)
  const width = type === 'HUGEINT' ? { min: -(1n << 127n), max: (1n << 127n) - 1n } : range
  return width !== null && (n < width.min || n > width.max) ? undefined : String(n)
}

const checkDecimal = (parts: { precision: number; scale: number }, value: Scalar): Checked | undefined => {
  const text = digits(value)
  if (text === null) return undefined
  const negative = text.startsWith('-')
  const [whole = '', fraction = ''] = text.replace('-', '').split('.')
  const integer = whole.replace(/^0+(?=\d)/, '')
  const kept = fraction.replace(/0+$/, '')
  if (kept.length > parts.scale || (integer === '0' ? 0 : integer.length) > parts.precision - parts.scale)
    return undefined
  const body = `${integer}${parts.scale > 0 ? `.${kept.padEnd(parts.scale, '0')}` : ''}`
  return negative && /[1-9]/.test(body) ? `-${body}` : body
}

/** Canonical value of a type, or undefined when it is none. */
const canonical = (type: string, value: Scalar, zone: string): Checked | undefined => {
  if (value === null) return null
  const decimal = decimalParts(type)
  if (decimal) return checkDecimal(decimal, value)
  if (integerRange(type) !== null || type === 'HUGEINT') return checkInteger(type, value)
  switch (type) {
    case 'BOOLEAN':
      if (typeof value === 'boolean') return value
      return value === 'true' ? true : value === 'false' ? false : undefined
    case 'DOUBLE':
    case 'FLOAT': {
      const text = typeof value === 'number' ? String(value) : digits(value)
      return text !== null && Number.isFinite(Number(text)) ? String(Number(text)) : undefined
    }
    case 'DATE': {
      if (typeof value !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(value)) return undefined
      return parseTime(value, 'UTC') === null ? undefined : value
    }
    case 'TIMESTAMPTZ': {
      const us = typeof value === 'string' ? parseTime(value, zone) : null
      return us === null ? undefined : String(us)
    }
    case 'UUID':
      return typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)
        ? value.toLowerCase()
        : undefined
    default:
      // What is not UTF-8, or holds a NUL, never reaches the engine's text.
      return typeof value === 'string' &&
        value.length <= MAX_TEXT &&
        !value.includes('\0') &&
        !/\p{Surrogate}/u.test(value)
        ? value
        : undefined
  }
}

const EXPECTED: Record<string, string> = {
  BOOLEAN: 'true or false',
  DATE: 'a date such as "2026-11-24"',
  TIMESTAMPTZ: 'an RFC 3339 time such as "2026-11-24T10:00:00Z"',
  UUID: 'a UUID as text',
  DOUBLE: 'a number',
  VARCHAR: 'text in quotes',
}
const expectedOf = (type: string): string => {
  const decimal = decimalParts(type)
  if (decimal) return `a number with at most ${decimal.scale} digits after the point (${type})`
  const range = integerRange(type)
  if (range) return `a whole number from ${range.min} to ${range.max} (quoted when beyond 2^53)`
  return EXPECTED[type] ?? `a value of type ${type}, as text`
}

const checkValue = (dimension: ViewDimension, value: Scalar, zone: string): Checked => {
  const checked = canonical(dimension.type, value, zone)
  if (checked !== undefined) return checked
  throw badQuery('VALUE', `${show(value)} is no value of ${dimension.name}.`, {
    expected: expectedOf(dimension.type),
    got: show(value),
    next: `write the value as the column's type says`,
  })
}

const comparison = (
  filter: { column: string; op: FilterOp; value?: Scalar | Scalar[] },
  d: ViewDimension,
  zone: string,
): Filter => {
  const { op, column } = filter
  const value = filter.value
  if (op === 'isNull' || op === 'isNotNull') {
    if (value === undefined) return { column, op }
    throw badQuery('FILTER', `${op} takes no value.`, { got: show(value), next: 'leave `value` out' })
  }
  if (op === 'in' || op === 'notIn') {
    if (!Array.isArray(value) || value.length === 0 || value.length > MAX_LIST)
      throw badQuery('FILTER', `${op} wants a list.`, {
        expected: `an array of 1 to ${MAX_LIST} values`,
        got: Array.isArray(value) ? `${value.length} values` : show(value),
      })
    return { column, op, value: value.map((v) => checkValue(d, v, zone)) }
  }
  if (value === undefined || Array.isArray(value))
    throw badQuery('FILTER', `${op} wants one value.`, {
      expected: expectedOf(d.type),
      got: show(value),
      next: 'for several values use in or notIn',
    })
  if ((op === 'contains' || op === 'startsWith') && d.type !== 'VARCHAR')
    throw badQuery('FILTER', `${op} looks into text, and ${column} is ${d.type}.`, {
      expected: 'a dimension of type VARCHAR',
      got: d.type,
      next: 'use =, <, >, in …',
    })
  if (d.type === 'BOOLEAN' && !['=', '!='].includes(op))
    throw badQuery('FILTER', `${op} does not suit the BOOLEAN ${column}.`, { expected: '= or !=', got: op })
  return { column, op, value: checkValue(d, value, zone) }
}

export type FilterNames = {
  dimensions: ViewDimension[]
  measures: string[]
  bucket: string | null
  /** Zone of times without an offset. */
  zone: string
}

/** Checks and canonicalises. Throws WEIR_MODEL_QUERY_FILTER, _NAME, _VALUE. */
export const checkFilters = (filters: Filter[], names: FilterNames): Filter[] => {
  let leaves = 0
  const list = (inner: unknown, what: string, depth: number): Filter[] => {
    if (!Array.isArray(inner) || inner.length === 0)
      throw badQuery('FILTER', `${what} wants filters.`, {
        expected: 'an array of at least one filter',
        got: show(inner),
      })
    return inner.map((f) => check(f as Filter, depth + 1))
  }
  const check = (filter: Filter, depth: number): Filter => {
    if (depth > MAX_DEPTH || ++leaves > MAX_LEAVES)
      throw badQuery('FILTER', 'The filters are too many or too deep.', {
        expected: `at most ${MAX_LEAVES} filters, nested at most ${MAX_DEPTH} deep`,
        next: 'use in for long lists of values',
      })
    if (filter === null || typeof filter !== 'object')
      throw badQuery('FILTER', 'A filter is an object.', { expected: '{ "column", "op", "value" }', got: show(filter) })
    const keys = Object.keys(filter)
    const nested = ['or', 'and', 'not'].find((k) => k in filter)
    const strange = keys.find((k) => (nested === undefined ? !['column', 'op', 'value'].includes(k) : k !== nested))
    if (strange !== undefined)
      throw badQuery('FILTER', `A filter has no ${show(strange)}${nested === undefined ? '' : ` beside ${nested}`}.`, {
        expected: '{ "column", "op", "value" }, { "or": [ … ] }, { "and": [ … ] } or { "not": … }',
        got: show(filter),
      })
    if ('or' in filter) return { or: list(filter.or, 'or', depth) }
    if ('and' in filter) return { and: list(filter.and, 'and', depth) }
    if ('not' in filter) return { not: check(filter.not, depth + 1) }
    const { column, op } = filter
    if (!FILTER_OPS.includes(op))
      throw badQuery('FILTER', `There is no operator ${show(op)}.`, { expected: FILTER_OPS.join(' '), got: show(op) })
    if (column === names.bucket)
      throw badQuery('FILTER', `${column} is the view's bucket.`, {
        expected: 'a dimension',
        got: column,
        next: 'use timeRange: { from, to } or { last }',
      })
    if (names.measures.includes(column))
      throw badQuery('FILTER', `${column} is a measure; filters choose rows by dimensions.`, {
        expected: names.dimensions.map((d) => d.name).join(', ') || 'no filter: the view has no dimensions',
        got: column,
        next: 'order by the measure and set a limit, or filter the answer',
      })
    knownName(
      'dimension',
      String(column),
      names.dimensions.map((d) => d.name),
    )
    return comparison(filter, names.dimensions.find((d) => d.name === column)!, names.zone)
  }
  return filters.map((f) => check(f, 1))
}

const valueSql = (type: string, value: Scalar): string => {
  if (value === null) return `CAST(NULL AS ${type})`
  if (typeof value === 'boolean') return value ? 'true' : 'false'
  if (type === 'TIMESTAMPTZ') return `make_timestamptz(${BigInt(value)}::BIGINT)`
  return `CAST(${literal(String(value))} AS ${type})`
}

const SIMPLE: Partial<Record<FilterOp, string>> = { '=': '=', '!=': '<>', '<': '<', '<=': '<=', '>': '>', '>=': '>=' }

/** SQL of a checked filter over columns named as the dimensions. */
export const filterSql = (filter: Filter, dimensions: ViewDimension[]): string => {
  if ('or' in filter) return `(${filter.or.map((f) => filterSql(f, dimensions)).join(' OR ')})`
  if ('and' in filter) return `(${filter.and.map((f) => filterSql(f, dimensions)).join(' AND ')})`
  if ('not' in filter) return `(NOT ${filterSql(filter.not, dimensions)})`
  const { column, op, value } = filter
  const type = dimensions.find((d) => d.name === column)!.type
  const name = ident(column)
  if (op === 'isNull') return `(${name} IS NULL)`
  if (op === 'isNotNull') return `(${name} IS NOT NULL)`
  if (op === 'in' || op === 'notIn') {
    const list = (value as Scalar[]).map((v) => valueSql(type, v)).join(', ')
    return `(${name} ${op === 'in' ? 'IN' : 'NOT IN'} (${list}))`
  }
  if (op === 'contains') return `contains(${name}, ${valueSql(type, value as Scalar)})`
  if (op === 'startsWith') return `starts_with(${name}, ${valueSql(type, value as Scalar)})`
  return `(${name} ${SIMPLE[op]} ${valueSql(type, value as Scalar)})`
}
