/** Seeded random numbers (mulberry32): the same seed gives the same events on every machine. */
export type Random = {
  /** [0, 1) */
  next(): number
  /** Whole number in [from, to). */
  int(from: number, to: number): number
  chance(p: number): boolean
  pick<T>(list: readonly T[]): T
  /** Like pick, but the first ones come most often. */
  skewed<T>(list: readonly T[]): T
}

export const random = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  const int = (from: number, to: number): number => from + Math.floor(next() * (to - from))
  return {
    next,
    int,
    chance: (p) => next() < p,
    pick: (list) => list[int(0, list.length)]!,
    skewed: (list) => list[Math.floor(next() ** 2 * list.length)]!,
  }
}
