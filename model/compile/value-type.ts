/**
 * Types of scalar expressions, with the bounds that declared widths give to exact numbers.
 * Invariant: an exact number's value, times 10^scale, always lies within `[lo, hi]`; arithmetic that keeps to these
 * bounds cannot overflow, whatever the events contain.
 */
import { decimalParts, integerRange } from '../decode/column-types.ts'

export type Kind =
  | 'BOOLEAN'
  | 'INTEGER'
  | 'DECIMAL'
  | 'DOUBLE'
  | 'VARCHAR'
  | 'DATE'
  | 'TIMESTAMPTZ'
  | 'TIMESTAMP'
  | 'INTERVAL'
  | 'UUID'
  | 'JSON'
  | 'NULL'

export type ValueType = {
  kind: Kind
  /** The engine's type text. */
  sql: string
  /** Bounds of the unscaled value; 0 for kinds that are not exact numbers. */
  lo: bigint
  hi: bigint
  scale: number
  /** Of a time: at least a thousand years from both ends of the calendar, so that calendar arithmetic cannot leave it. */
  bounded?: boolean
}

export const HUGE = { lo: -(1n << 127n), hi: (1n << 127n) - 1n }
const pow10 = (n: number): bigint => 10n ** BigInt(n)
export const abs = (n: bigint): bigint => (n < 0n ? -n : n)
// biome-ignore lint/complexity/useMathMinMax: Math.max takes no bigint
export const max = (...values: bigint[]): bigint => values.reduce((a, b) => (a > b ? a : b))
// biome-ignore lint/complexity/useMathMinMax: Math.min takes no bigint
export const min = (...values: bigint[]): bigint => values.reduce((a, b) => (a < b ? a : b))

export const plain = (kind: Kind, sql: string = kind): ValueType => ({ kind, sql, lo: 0n, hi: 0n, scale: 0 })

export const BOOLEAN = plain('BOOLEAN')
export const DOUBLE = plain('DOUBLE')
export const VARCHAR = plain('VARCHAR')

/** Null: a type that expressions of a view cannot have. */
export const valueType = (sql: string): ValueType | null => {
  const range = sql === 'HUGEINT' ? { min: HUGE.lo, max: HUGE.hi } : integerRange(sql)
  if (range) return { kind: 'INTEGER', sql, lo: range.min, hi: range.max, scale: 0 }
  const decimal = decimalParts(sql)
  if (decimal) {
    const hi = pow10(decimal.precision) - 1n
    return { kind: 'DECIMAL', sql, lo: -hi, hi, scale: decimal.scale }
  }
  const kinds: Kind[] = ['BOOLEAN', 'DOUBLE', 'VARCHAR', 'DATE', 'TIMESTAMPTZ', 'TIMESTAMP', 'INTERVAL', 'UUID', 'JSON']
  const kind = kinds.find((k) => k === sql)
  return kind ? plain(kind) : null
}

export const isExact = (t: ValueType): boolean => t.kind === 'INTEGER' || t.kind === 'DECIMAL'
export const isNumber = (t: ValueType): boolean => isExact(t) || t.kind === 'DOUBLE'

/** Decimal digits that the bounds need, at least 1. */
export const digitsOf = (lo: bigint, hi: bigint): number => max(abs(lo), abs(hi)).toString().length

/** Smallest of INTEGER, BIGINT, HUGEINT that holds all the numbers; null when none does. */
export const integerFor = (...bounds: bigint[]): string | null => {
  const lo = min(...bounds)
  const hi = max(...bounds)
  for (const sql of ['INTEGER', 'BIGINT']) {
    const range = integerRange(sql)!
    if (lo >= range.min && hi <= range.max) return sql
  }
  return lo >= HUGE.lo && hi <= HUGE.hi ? 'HUGEINT' : null
}

export const integerType = (sql: string, lo: bigint, hi: bigint): ValueType => {
  const own = valueType(sql)!
  return { ...own, lo: max(lo, own.lo), hi: min(hi, own.hi) }
}

export const decimalType = (precision: number, scale: number, lo: bigint, hi: bigint): ValueType => {
  const own = valueType(`DECIMAL(${precision},${scale})`)!
  return { ...own, lo: max(lo, own.lo), hi: min(hi, own.hi) }
}

/** Bounds of an exact number at a larger scale. */
export const atScale = (t: ValueType, scale: number): { lo: bigint; hi: bigint } => {
  const factor = pow10(scale - t.scale)
  return { lo: t.lo * factor, hi: t.hi * factor }
}

export const corners = (
  a: ValueType,
  b: ValueType,
  op: (x: bigint, y: bigint) => bigint,
): { lo: bigint; hi: bigint } => {
  const all = [op(a.lo, b.lo), op(a.lo, b.hi), op(a.hi, b.lo), op(a.hi, b.hi)]
  return { lo: min(...all), hi: max(...all) }
}

/** Bounds after rounding away digits of the scale (or adding zeros). */
export const rescaled = (t: ValueType, scale: number): { lo: bigint; hi: bigint } => {
  if (scale >= t.scale) return atScale(t, scale)
  const factor = pow10(t.scale - scale)
  return { lo: t.lo / factor - 1n, hi: t.hi / factor + 1n }
}

const isTime = (t: ValueType): boolean => t.kind === 'TIMESTAMPTZ' || t.kind === 'TIMESTAMP'

/** Whether every value of `from` can be cast to `to` without an error. */
export const castIsTotal = (from: ValueType, to: ValueType): boolean => {
  if (from.sql === to.sql || from.kind === 'NULL' || to.kind === 'VARCHAR') return true
  if (isExact(from) && isExact(to)) {
    const { lo, hi } = rescaled(from, to.scale)
    return lo >= to.lo && hi <= to.hi
  }
  if (isExact(from)) return to.kind === 'DOUBLE' || (from.kind === 'INTEGER' && to.kind === 'BOOLEAN')
  if (from.kind === 'BOOLEAN') return to.kind === 'INTEGER' || to.kind === 'DOUBLE'
  if (from.kind === 'TIMESTAMPTZ' || from.kind === 'TIMESTAMP')
    return to.kind === 'DATE' || (isTime(to) && from.bounded === true)
  if (from.kind === 'DATE') return isTime(to) && from.bounded === true
  return false
}

/** Bounds of a cast's result, where they are narrower than the type's own. */
export const castBounds = (from: ValueType, to: ValueType): ValueType => {
  if (from.kind === 'BOOLEAN' && to.kind === 'INTEGER') return { ...to, lo: 0n, hi: 1n }
  if (!isExact(from) || !isExact(to)) return to
  const { lo, hi } = rescaled(from, to.scale)
  return { ...to, lo: max(lo, to.lo), hi: min(hi, to.hi) }
}

/** One type that holds the values of both without an error; null when there is none. */
export const commonType = (a: ValueType, b: ValueType): ValueType | null => {
  if (a.kind === 'NULL') return b
  if (b.kind === 'NULL') return a
  if (isExact(a) && isExact(b)) {
    if (a.kind === 'INTEGER' && b.kind === 'INTEGER') {
      const lo = min(a.lo, b.lo)
      const hi = max(a.hi, b.hi)
      const sql = a.sql === b.sql ? a.sql : integerFor(lo, hi)
      return sql === null ? null : integerType(sql, lo, hi)
    }
    const scale = Math.max(a.scale, b.scale)
    const [x, y] = [atScale(a, scale), atScale(b, scale)]
    const lo = min(x.lo, y.lo)
    const hi = max(x.hi, y.hi)
    if (a.sql === b.sql) return { ...a, lo, hi }
    const precision = Math.max(digitsOf(lo, hi), scale, 1)
    return precision > 38 ? null : decimalType(precision, scale, lo, hi)
  }
  if (isNumber(a) && isNumber(b)) return DOUBLE
  return a.kind === b.kind ? { ...a, bounded: a.bounded === true && b.bounded === true } : null
}
