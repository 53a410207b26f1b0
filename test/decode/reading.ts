/**
 * An independent reading of the type table (docs/decisions/type-table.md): bytes in, verdict and values out, in plain
 * TypeScript: an own JSON tokenizer, BigInt arithmetic, no engine. It is written from the table, not from the decoder.
 */
import type { Column, Dataset } from '../../model/dataset.ts'

export type Node =
  | { kind: 'null' }
  | { kind: 'boolean'; value: boolean }
  | { kind: 'number'; text: string }
  | { kind: 'string'; value: string }
  | { kind: 'array'; items: Node[] }
  /** `raw`: key and value as they were written. */
  | { kind: 'object'; members: [string, Node][]; raw?: [string, string][] }

class Malformed extends Error {}

/** JSON as the engine's parser takes it: strict, but for trailing commas and for NaN and Infinity (any case). */
export const parseJson = (text: string): Node => {
  let i = 0
  const fail = (): never => {
    throw new Malformed(`at ${i} of ${text.slice(0, 60)}`)
  }
  const blanks = (): void => {
    while (i < text.length && ' \t\r\n'.includes(text[i]!)) i++
  }
  const string = (): string => {
    i++
    let out = ''
    for (;;) {
      if (i >= text.length) fail()
      const c = text[i]!
      if (c === '"') {
        i++
        return out
      }
      if (c < ' ') fail()
      if (c !== '\\') {
        out += c
        i++
        continue
      }
      const e = text[i + 1] ?? ''
      const simple = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }[e]
      if (simple !== undefined) {
        out += simple
        i += 2
        continue
      }
      if (e !== 'u') fail()
      const unit = (at: number): number => {
        const hex = text.slice(at, at + 4)
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) fail()
        return Number.parseInt(hex, 16)
      }
      const high = unit(i + 2)
      i += 6
      if (high >= 0xdc00 && high <= 0xdfff) fail()
      if (high >= 0xd800 && high <= 0xdbff) {
        if (text.slice(i, i + 2) !== '\\u') fail()
        const low = unit(i + 2)
        if (low < 0xdc00 || low > 0xdfff) fail()
        i += 6
        out += String.fromCharCode(high, low)
      } else out += String.fromCharCode(high)
    }
  }
  const value = (): Node => {
    blanks()
    const c = text[i]
    if (c === '{') {
      i++
      const members: [string, Node][] = []
      const raw: [string, string][] = []
      for (;;) {
        blanks()
        if (text[i] === '}') {
          i++
          return { kind: 'object', members, raw }
        }
        if (text[i] !== '"') fail()
        const keyAt = i
        const key = string()
        const rawKey = text.slice(keyAt, i)
        blanks()
        if (text[i] !== ':') fail()
        i++
        blanks()
        const valueAt = i
        members.push([key, value()])
        raw.push([rawKey, text.slice(valueAt, i)])
        blanks()
        if (text[i] === ',') i++
        else if (text[i] !== '}') fail()
      }
    }
    if (c === '[') {
      i++
      const items: Node[] = []
      for (;;) {
        blanks()
        if (text[i] === ']') {
          i++
          return { kind: 'array', items }
        }
        items.push(value())
        blanks()
        if (text[i] === ',') i++
        else if (text[i] !== ']') fail()
      }
    }
    if (c === '"') return { kind: 'string', value: string() }
    for (const [word, node] of [
      ['true', { kind: 'boolean', value: true }],
      ['false', { kind: 'boolean', value: false }],
      ['null', { kind: 'null' }],
    ] as [string, Node][])
      if (text.startsWith(word, i)) {
        i += word.length
        return node
      }
    const odd = /^-?(?:nan|infinity|inf)/i.exec(text.slice(i, i + 9))
    if (odd) {
      i += odd[0].length
      return { kind: 'number', text: odd[0] }
    }
    const number = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/.exec(text.slice(i))
    if (!number) return fail()
    i += number[0].length
    if (/[0-9.eE]/.test(text[i] ?? '')) fail()
    return { kind: 'number', text: number[0] }
  }
  const node = value()
  blanks()
  if (i < text.length) fail()
  return node
}

export type Reading =
  | { kind: 'unreadable'; code: string }
  | { kind: 'dead'; code: string; column: string | null }
  | { kind: 'good'; values: (Value | null)[]; extra: string | null }
export type Value =
  | { is: 'integer' | 'micros'; value: bigint }
  | { is: 'decimal'; unscaled: bigint }
  | { is: 'double'; value: number }
  | { is: 'boolean'; value: boolean }
  | { is: 'text'; value: string }
  | { is: 'json'; node: Node }

const MISFIT = Symbol('misfit')

const BITS: Record<string, [bigint, bigint]> = {
  TINYINT: [-128n, 127n],
  SMALLINT: [-32768n, 32767n],
  INTEGER: [-2147483648n, 2147483647n],
  BIGINT: [-9223372036854775808n, 9223372036854775807n],
  UTINYINT: [0n, 255n],
  USMALLINT: [0n, 65535n],
  UINTEGER: [0n, 4294967295n],
  UBIGINT: [0n, 18446744073709551615n],
}

const isWhole = (text: string): boolean => /^-?\d+$/.test(text)
const isNumber = (text: string): boolean => /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text)

const readInteger = (node: Node, [least, greatest]: [bigint, bigint]): Value | typeof MISFIT => {
  const text = node.kind === 'number' ? node.text : node.kind === 'string' ? node.value : ''
  if (!isWhole(text)) return MISFIT
  // A string says it as it would be printed: no leading zeros, no -0.
  if (node.kind === 'string' && BigInt(text).toString() !== text) return MISFIT
  const value = BigInt(text)
  return value >= least && value <= greatest ? { is: 'integer', value } : MISFIT
}

const readDouble = (node: Node): Value | typeof MISFIT => {
  const text = node.kind === 'number' ? node.text : node.kind === 'string' ? node.value : ''
  if (!isNumber(text)) return MISFIT
  const value = Number(text)
  return Number.isFinite(value) ? { is: 'double', value: value === 0 ? 0 : value } : MISFIT
}

const readDecimal = (node: Node, precision: number, scale: number): Value | typeof MISFIT => {
  const limit = 10n ** BigInt(precision)
  if (node.kind === 'string') {
    const found = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?$/.exec(node.value)
    if (!found) return MISFIT
    let fraction = found[3] ?? ''
    while (fraction.length > scale && fraction.endsWith('0')) fraction = fraction.slice(0, -1)
    if (fraction.length > scale) return MISFIT
    const unscaled = BigInt(found[2]! + fraction.padEnd(scale, '0'))
    if (unscaled >= limit) return MISFIT
    return { is: 'decimal', unscaled: found[1] ? -unscaled : unscaled }
  }
  if (node.kind !== 'number' || !isNumber(node.text)) return MISFIT
  const value = Number(node.text)
  if (!(Math.abs(value) < Number(`1e${15 - scale}`))) return MISFIT
  const near = BigInt(Math.round(value * Number(`1e${scale}`)))
  for (const unscaled of [near, near - 1n, near + 1n])
    if (Number(`${unscaled}e-${scale}`) === value)
      return (unscaled < 0n ? -unscaled : unscaled) < limit ? { is: 'decimal', unscaled } : MISFIT
  return MISFIT
}

/** Days since 1970 of a day that exists, else null. */
const dayNumber = (year: number, month: number, day: number): number | null => {
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  return date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day
    ? Math.round(date.getTime() / 86_400_000)
    : null
}

const readTime = (text: string): bigint | null => {
  const found =
    /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)?)?$/.exec(text)
  if (!found) return null
  const [, y, mo, d, h = '0', mi = '0', s = '0', fraction = '', zone = 'Z'] = found
  const day = dayNumber(Number(y), Number(mo), Number(d))
  if (day === null || Number(mi) > 59 || Number(s) > 59) return null
  // 24:00 is the midnight that ends a day, and nothing after it.
  if (Number(h) > 24 || (h === '24' && (Number(mi) > 0 || Number(s) > 0 || Number(fraction || '0') > 0))) return null
  let offset = 0
  if (zone !== 'Z') {
    const hours = Number(zone.slice(1, 3))
    const minutes = Number(zone.slice(3).replace(':', '') || '0')
    if (hours > 23 || minutes > 59) return null
    offset = (zone[0] === '-' ? -1 : 1) * (hours * 60 + minutes)
  }
  const seconds = BigInt(day) * 86_400n + BigInt(Number(h) * 3600 + (Number(mi) - offset) * 60 + Number(s))
  return seconds * 1_000_000n + BigInt(fraction.padEnd(6, '0').slice(0, 6))
}

const readEpoch = (node: Node, unit: 's' | 'ms' | 'us'): Value | typeof MISFIT => {
  const factor = { s: 1_000_000n, ms: 1_000n, us: 1n }[unit]
  const text = node.kind === 'number' ? node.text : node.kind === 'string' ? node.value : ''
  if (isWhole(text) && (node.kind === 'number' || BigInt(text).toString() === text)) {
    const value = BigInt(text) * factor
    if (value >= -9_000_000_000_000_000_000n && value <= 9_000_000_000_000_000_000n) return { is: 'micros', value }
  }
  if (node.kind !== 'number' || !isNumber(text)) return MISFIT
  const micros = Number(text) * Number(factor)
  if (!(Math.abs(micros) < 9e15)) return MISFIT
  // Halves go away from zero.
  return { is: 'micros', value: BigInt(Math.sign(micros) * Math.round(Math.abs(micros))) }
}

const readValue = (column: Column, node: Node): Value | null | typeof MISFIT => {
  if (node.kind === 'null') return null
  const { type } = column
  const decimal = /^DECIMAL\((\d+),(\d+)\)$/.exec(type)
  if (decimal) return readDecimal(node, Number(decimal[1]), Number(decimal[2]))
  if (BITS[type]) return readInteger(node, BITS[type])
  switch (type) {
    case 'VARCHAR':
      return node.kind === 'string' ? { is: 'text', value: node.value } : { is: 'json', node }
    case 'JSON':
      return { is: 'json', node }
    case 'DOUBLE':
      return readDouble(node)
    case 'BOOLEAN':
      if (node.kind === 'boolean') return { is: 'boolean', value: node.value }
      if (node.kind === 'string' && (node.value === 'true' || node.value === 'false'))
        return { is: 'boolean', value: node.value === 'true' }
      return MISFIT
    case 'DATE': {
      const found = node.kind === 'string' ? /^(\d{4})-(\d\d)-(\d\d)$/.exec(node.value) : null
      if (!found || found[1] === '0000') return MISFIT
      return dayNumber(Number(found[1]), Number(found[2]), Number(found[3])) === null
        ? MISFIT
        : { is: 'text', value: found[0] }
    }
    case 'UUID':
      return node.kind === 'string' && /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(node.value)
        ? { is: 'text', value: node.value.toLowerCase() }
        : MISFIT
    case 'TIMESTAMPTZ': {
      if (column.unit !== undefined) return readEpoch(node, column.unit)
      const value = node.kind === 'string' ? readTime(node.value) : null
      return value === null ? MISFIT : { is: 'micros', value }
    }
    default:
      throw new Error(`no type ${type}`)
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** What one event (a line without its line break) is. */
export const readEvent = (dataset: Dataset, bytes: Uint8Array): Reading => {
  let first = 0
  while (bytes[first] === 32 || bytes[first] === 9 || bytes[first] === 13) first++
  if (bytes[first] !== 123) return { kind: 'unreadable', code: 'WEIR_DECODE_NOT_OBJECT' }
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return { kind: 'unreadable', code: 'WEIR_DECODE_UTF8' }
  }
  let node: Node
  try {
    node = parseJson(text)
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    return { kind: 'unreadable', code: 'WEIR_DECODE_JSON' }
  }
  if (node.kind !== 'object') return { kind: 'unreadable', code: 'WEIR_DECODE_NOT_OBJECT' }
  const declared = new Set(dataset.columns.map((c) => c.name))
  const fields = new Map<string, Node>()
  const unknown: string[] = []
  for (const [i, [key, value]] of node.members.entries()) {
    if (!declared.has(key)) unknown.push(node.raw![i]!.join(':'))
    else if (fields.has(key)) return { kind: 'unreadable', code: 'WEIR_DECODE_KEY_TWICE' }
    else fields.set(key, value)
  }
  const values: (Value | null)[] = []
  for (const column of dataset.columns) {
    const value = readValue(column, fields.get(column.name) ?? { kind: 'null' })
    if (value === MISFIT) return { kind: 'dead', code: 'WEIR_DECODE_TYPE', column: column.name }
    const required = column.required || column.name === dataset.id || column.name === dataset.eventTime
    if (value === null && required) return { kind: 'dead', code: 'WEIR_DECODE_MISSING', column: column.name }
    if (column.name === dataset.eventTime && value?.is === 'micros') {
      const { from, to } = dataset.eventTimeRangeUs
      if (value.value < from || value.value >= to)
        return { kind: 'dead', code: 'WEIR_DECODE_EVENT_TIME', column: column.name }
    }
    values.push(value)
  }
  if (unknown.length > 0 && dataset.extra === 'reject')
    return { kind: 'dead', code: 'WEIR_DECODE_UNKNOWN_FIELD', column: null }
  return { kind: 'good', values, extra: unknown.length > 0 ? `{${unknown.join(',')}}` : null }
}

/** Whether two nodes are the same value, numbers compared as the engine keeps them: whole ones exactly, others as doubles. */
export const sameNode = (a: Node, b: Node): boolean => {
  if (a.kind !== b.kind) return false
  switch (a.kind) {
    case 'null':
      return true
    case 'boolean':
    case 'string':
      return a.value === (b as typeof a).value
    case 'number': {
      const [x, y] = [a.text, (b as typeof a).text]
      if (isWhole(x) && isWhole(y)) return BigInt(x) === BigInt(y)
      if (!isNumber(x) || !isNumber(y)) return x.toLowerCase().slice(0, 4) === y.toLowerCase().slice(0, 4)
      return Number(x) === Number(y)
    }
    case 'array': {
      const other = (b as typeof a).items
      return a.items.length === other.length && a.items.every((item, i) => sameNode(item, other[i]!))
    }
    case 'object': {
      const other = (b as typeof a).members
      return (
        a.members.length === other.length &&
        a.members.every(([key, item], i) => key === other[i]![0] && sameNode(item, other[i]![1]))
      )
    }
  }
}
