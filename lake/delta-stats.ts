/**
 * Statistics of a data file as Delta's `stats` text, from what `COPY … RETURN_STATS` returns.
 * Invariant: bounds are never narrower than the data, and the text is valid JSON with the digits of longs and decimals
 * verbatim (JSON.stringify would round them); a bound that cannot be given safely is left out.
 */
import type { Json } from '../engine/engine.ts'
import { storedType, type TableColumn } from './delta-schema.ts'

/** One row of RETURN_STATS as the engine gives it. */
export type CopyStats = { filename: string; count: string; column_statistics: Json }

type ColumnStats = { min?: string; max?: string; null_count?: string; has_nan?: string }

const pairs = (value: Json): [string, Json][] =>
  Array.isArray(value) ? value.map((e) => [String((e as { key: Json }).key), (e as { value: Json }).value]) : []

const columnStats = (stats: Json): Map<string, ColumnStats> =>
  new Map(
    pairs(stats).map(([key, value]) => [
      key.replace(/^"|"$/g, '').replaceAll('""', '"'),
      Object.fromEntries(pairs(value)) as ColumnStats,
    ]),
  )

const TOP = '\u{10FFFF}'
const PREFIX_POINTS = 32

/** Bounds of strings: 32 code points; a cut maximum gets a tie-breaker above every possible tail. */
const stringBound = (text: string, side: 'min' | 'max'): string | null => {
  const points = [...text]
  // DuckDB itself cuts bounds at 256 bytes, perhaps inside a character.
  if (text.includes('\ufffd')) return null
  if (points.length <= PREFIX_POINTS && Buffer.byteLength(text) < 248) return JSON.stringify(text)
  const prefix = points.slice(0, PREFIX_POINTS).join('')
  if (side === 'min') return JSON.stringify(prefix)
  return points[PREFIX_POINTS] === TOP ? null : JSON.stringify(prefix + TOP)
}

const timestampBound = (text: string, side: 'min' | 'max'): string | null => {
  const match = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00$/.exec(text)
  if (!match) return null
  const fraction = (match[3] ?? '').padEnd(6, '0')
  const ms = Date.parse(`${match[1]}T${match[2]}.${fraction.slice(0, 3)}Z`)
  if (Number.isNaN(ms)) return null
  const up = side === 'max' && fraction.slice(3) !== '000' ? 1 : 0
  return JSON.stringify(new Date(ms + up).toISOString())
}

const bound = (delta: string, text: string, side: 'min' | 'max'): string | null => {
  if (delta === 'string') return stringBound(text, side)
  if (delta === 'timestamp') return timestampBound(text, side)
  if (delta === 'date') return /^\d{4}-\d\d-\d\d$/.test(text) ? JSON.stringify(text) : null
  if (delta === 'long' || delta === 'integer' || delta === 'short' || delta === 'byte' || delta.startsWith('decimal'))
    return /^-?\d+(\.\d+)?$/.test(text) ? text : null
  if (delta === 'double' || delta === 'float')
    return /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) && Number.isFinite(Number(text)) ? text : null
  return null // boolean and binary: no bounds
}

/** `{"numRecords":…,"minValues":{…},"maxValues":{…},"nullCount":{…}}`; partition columns must not be in `columns`. */
export const statsText = (copied: CopyStats, columns: TableColumn[]): string => {
  const found = columnStats(copied.column_statistics)
  const parts: Record<'min' | 'max' | 'nulls', string[]> = { min: [], max: [], nulls: [] }
  for (const column of columns) {
    const stats = found.get(column.name)
    if (!stats) continue
    const name = JSON.stringify(column.name)
    if (stats.null_count !== undefined && /^\d+$/.test(stats.null_count))
      parts.nulls.push(`${name}:${stats.null_count}`)
    const { delta } = storedType(column.type)
    if (stats.has_nan === 'true' || stats.min === undefined || stats.max === undefined) continue
    const min = bound(delta, stats.min, 'min')
    const max = bound(delta, stats.max, 'max')
    if (min !== null) parts.min.push(`${name}:${min}`)
    if (max !== null) parts.max.push(`${name}:${max}`)
  }
  const text = `{"numRecords":${BigInt(copied.count)},"minValues":{${parts.min.join(',')}},"maxValues":{${parts.max.join(',')}},"nullCount":{${parts.nulls.join(',')}}}`
  JSON.parse(text) // an invalid text makes the whole table unreadable elsewhere: fail here instead
  return text
}

export type FileBounds = { rows: number; min: Record<string, unknown>; max: Record<string, unknown> }

/** Tolerant reading of `stats`; null when absent or unusable. Longs above 2^53 lose digits: use for pruning with care only. */
export const readStats = (stats: string | undefined): FileBounds | null => {
  if (!stats) return null
  try {
    const value = JSON.parse(stats) as Record<string, unknown>
    return {
      rows: Number(value.numRecords),
      min: (value.minValues ?? {}) as Record<string, unknown>,
      max: (value.maxValues ?? {}) as Record<string, unknown>,
    }
  } catch {
    return null // a foreign engine's broken statistics only cost pruning
  }
}
