/**
 * Time zones, from the platform's own IANA data. All instants are whole seconds since 1970.
 * Invariant: `firstInstantAt(zone, w)` is the earliest instant whose wall clock in the zone shows `w` or later.
 */
const formats = new Map<string, Intl.DateTimeFormat>()

const formatOf = (zone: string): Intl.DateTimeFormat => {
  const known = formats.get(zone)
  if (known) return known
  const made = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  })
  formats.set(zone, made)
  return made
}

/** Regions and UTC only: fixed offsets (`+05:30`, `EST5EDT` aside) are spelled differently by the engine. */
export const knownZone = (zone: string): boolean => {
  if (zone === 'UTC') return true
  if (!/^[A-Za-z_]+(\/[A-Za-z0-9_+-]+)+$/.test(zone)) return false
  try {
    formatOf(zone)
    return true
  } catch {
    return false
  }
}

/** Seconds that the wall clock is ahead of UTC. */
export const offsetSeconds = (zone: string, instant: number): number => {
  if (zone === 'UTC') return 0
  const part: Record<string, number> = {}
  for (const { type, value } of formatOf(zone).formatToParts(instant * 1000)) part[type] = Number(value)
  const wall = Date.UTC(part.year!, part.month! - 1, part.day!, part.hour!, part.minute!, part.second!)
  return wall / 1000 - instant
}

const PROBE = 7 * 86_400

const bisect = (low: number, high: number, holds: (at: number) => boolean): number => {
  let a = low
  let b = high
  while (b - a > 1) {
    const middle = Math.floor((a + b) / 2)
    if (holds(middle)) b = middle
    else a = middle
  }
  return b
}

/** Offsets in force within `[from, to)`. */
export const offsetsWithin = (zone: string, from: number, to: number): Set<number> => {
  const offsets = new Set([offsetSeconds(zone, from)])
  if (zone !== 'UTC') for (let at = from; at < to; at += PROBE) offsets.add(offsetSeconds(zone, at))
  if (zone !== 'UTC' && to > from) offsets.add(offsetSeconds(zone, to - 1))
  return offsets
}

/** Instants inside `(from, to)` at which the offset changes. */
export const transitionsWithin = (zone: string, from: number, to: number): number[] => {
  const transitions: number[] = []
  if (zone === 'UTC') return transitions
  let at = from
  let offset = offsetSeconds(zone, at)
  while (at < to - 1) {
    const next = Math.min(at + PROBE, to - 1)
    const then = offsetSeconds(zone, next)
    if (then !== offset) {
      const before = offset
      transitions.push(bisect(at, next, (t) => offsetSeconds(zone, t) !== before))
    }
    offset = then
    at = next
  }
  return transitions
}

/** Earliest instant at which the zone's wall clock (seconds, read as if UTC) shows `wall` or later. */
export const firstInstantAt = (zone: string, wall: number): number => {
  if (zone === 'UTC') return wall
  const before = offsetSeconds(zone, wall - 93_600)
  const after = offsetSeconds(zone, wall + 93_600)
  for (const offset of before >= after ? [before, after] : [after, before])
    if (offsetSeconds(zone, wall - offset) === offset) return wall - offset
  // Skipped by the clock: the moment of the jump.
  const low = wall - Math.max(before, after) - 1
  return bisect(low, wall - Math.min(before, after), (t) => t + offsetSeconds(zone, t) >= wall)
}
