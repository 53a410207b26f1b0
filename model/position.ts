/**
 * Positions in a log, and cuts: vectors of them.
 * Invariant: two positions are the same place in the same history iff log id, offset and fingerprint are equal.
 */

export type Position = {
  /** Identity of the log's incarnation; a log that was deleted and made again has another one. */
  logId: string
  /** Exclusive: the next offset to be read. Counts records, not events. */
  offset: number
  /** 16 hex digits that identify the *append* of the last record before `offset`; '' at the log's very beginning. */
  fingerprint: string
  /** Effective append time (ms) of that record: the running maximum of append times in the partition; 0 at the beginning. */
  effectiveMs: number
}

/** Partition → position. Partitions are decimal strings so that the vector is plain JSON. */
export type Cut = Record<string, Position>

export const genesis = (logId: string): Position => ({ logId, offset: 0, fingerprint: '', effectiveMs: 0 })

export const samePosition = (a: Position, b: Position): boolean =>
  a.logId === b.logId && a.offset === b.offset && a.fingerprint === b.fingerprint

/** Vector of exclusive offsets as answers and tokens print it, e.g. `{"0":"123"}`. */
export const offsetsOf = (cut: Cut): Record<string, string> =>
  Object.fromEntries(
    Object.keys(cut)
      .sort((a, b) => Number(a) - Number(b))
      .map((p) => [p, String(cut[p]!.offset)]),
  )
