/** What the door says of a request. Invariant: accepted + rejectedCount = the request's events. */

import type { Position } from '../model/position.ts'
import { encodeToken } from '../model/token.ts'

/** Rejections listed in an answer; all are counted. */
export const LISTED_REJECTIONS = 1_000

export type Rejection = { index: number; code: string; reason: string }

export type Outcome = {
  accepted: number
  /** The first 1,000, by index. */
  rejected: Rejection[]
  rejectedCount: number
  /** For `atLeast`; absent when nothing was accepted. */
  token?: string
}

export const outcomeOf = (
  dataset: string,
  accepted: number,
  rejections: Rejection[],
  positions: ReadonlyMap<number, Position>,
): Outcome => {
  const [any] = positions.values()
  const token =
    any === undefined
      ? undefined
      : encodeToken({
          dataset,
          logId: any.logId,
          positions: Object.fromEntries(
            [...positions].map(([p, at]) => [String(p), { offset: at.offset, fingerprint: at.fingerprint }]),
          ),
        })
  return {
    accepted,
    rejected: rejections.slice(0, LISTED_REJECTIONS).map(({ index, code, reason }) => ({ index, code, reason })),
    rejectedCount: rejections.length,
    ...(token === undefined ? {} : { token }),
  }
}
