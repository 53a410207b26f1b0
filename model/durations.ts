/** Lengths of time as people write them in definitions: `90 seconds`, `1 hour`, `7 days`. */
const UNITS: Record<string, number> = {
  millisecond: 1,
  second: 1_000,
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
}

/** Milliseconds of `<n> <unit>`, or null. */
export const parseDuration = (text: string): number | null => {
  const found = /^\s*(\d{1,9})\s*(millisecond|second|minute|hour|day|week)s?\s*$/i.exec(text)
  if (!found) return null
  return Number(found[1]) * UNITS[found[2]!.toLowerCase()]!
}
