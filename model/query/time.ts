/**
 * Instants in queries: microseconds since 1970 as bigint, RFC 3339 as text.
 * Invariant: `parseTime(formatTime(t)) = t`.
 */
import { firstInstantAt } from './zone.ts'

const TIME = /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?\s*(Z|z|[+-]\d{2}:\d{2})?)?$/

/** µs of an RFC 3339 time; a date, or a time without offset, is the wall clock of `zone`. Null when it is no time. */
export const parseTime = (text: string, zone: string): bigint | null => {
  const found = TIME.exec(text.trim())
  if (!found) return null
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', offset] = found
  const fields = [year, month, day, hour, minute, second].map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  const wallMs = Date.UTC(fields[0], fields[1] - 1, fields[2], fields[3], fields[4], fields[5])
  const date = new Date(wallMs)
  // Years below 100 are read as 19xx by Date.UTC, and days that do not exist roll over: neither is a time.
  if (Number.isNaN(wallMs) || date.toISOString().slice(0, 19) !== `${year}-${month}-${day}T${hour}:${minute}:${second}`)
    return null
  const micros = BigInt(fraction.padEnd(6, '0'))
  if (offset === undefined) return BigInt(firstInstantAt(zone, wallMs / 1000)) * 1_000_000n + micros
  if (/^z$/i.test(offset)) return BigInt(wallMs) * 1000n + micros
  const [hours, minutes] = offset.slice(1).split(':').map(Number) as [number, number]
  if (hours > 23 || minutes > 59) return null
  const shift = BigInt((hours * 60 + minutes) * 60_000) * (offset.startsWith('-') ? -1n : 1n)
  return (BigInt(wallMs) - shift) * 1000n + micros
}

export const floorMod = (value: bigint, by: bigint): bigint => ((value % by) + by) % by

/** RFC 3339 in UTC; a fraction only where there is one. */
export const formatTime = (us: bigint): string => {
  const fraction = floorMod(us, 1_000_000n)
  const text = new Date(Number((us - fraction) / 1000n)).toISOString().slice(0, 19)
  return fraction === 0n ? `${text}Z` : `${text}.${String(fraction).padStart(6, '0')}Z`
}
