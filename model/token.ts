/**
 * Tokens: what an ingest answer hands to the client, and `atLeast` of a query takes back. Opaque to clients.
 * Invariant: decode(encode(t)) = t, and whatever text comes, decoding yields a well-formed token or WEIR_MODEL_BAD_TOKEN.
 */
import { WeirError } from './errors.ts'

/** Positions that an answer must have seen: per partition, offset (exclusive) and fingerprint of the record before it. */
export type Token = {
  dataset: string
  logId: string
  positions: Record<string, { offset: number; fingerprint: string }>
}

// Partition numbers fit a byte in practice; the bounds keep a hostile token small and its numbers exact.
const MAX_TEXT = 16_384

export const encodeToken = (token: Token): string =>
  Buffer.from(
    JSON.stringify({
      v: 1,
      d: token.dataset,
      l: token.logId,
      p: Object.entries(token.positions).map(([p, at]) => [Number(p), at.offset, at.fingerprint]),
    }),
  ).toString('base64url')

/** Throws WEIR_MODEL_BAD_TOKEN for anything that `encodeToken` did not make. */
export const decodeToken = (text: string): Token => {
  const bad = (): WeirError =>
    new WeirError({
      code: 'WEIR_MODEL_BAD_TOKEN',
      message: 'This is not a token of an ingest answer.',
      expected: 'the `token` of an answer to POST /v1/events/<dataset>, unchanged',
      got: text.slice(0, 80),
      next: 'send the token as it came, or leave atLeast out',
    })
  if (text.length > MAX_TEXT || !/^[A-Za-z0-9_-]+$/.test(text)) throw bad()
  let raw: { v?: unknown; d?: unknown; l?: unknown; p?: unknown } | null
  try {
    raw = JSON.parse(Buffer.from(text, 'base64url').toString('utf8')) as typeof raw
  } catch {
    throw bad()
  }
  if (raw === null || typeof raw !== 'object' || raw.v !== 1) throw bad()
  const { d: dataset, l: logId, p: list } = raw
  if (typeof dataset !== 'string' || typeof logId !== 'string' || !Array.isArray(list)) throw bad()
  const positions: Token['positions'] = {}
  for (const item of list as unknown[]) {
    if (!Array.isArray(item) || item.length !== 3) throw bad()
    const [partition, offset, fingerprint] = item as unknown[]
    if (!Number.isSafeInteger(partition) || (partition as number) < 0) throw bad()
    if (!Number.isSafeInteger(offset) || (offset as number) < 0) throw bad()
    if (typeof fingerprint !== 'string' || !/^[0-9a-f]{0,32}$/.test(fingerprint)) throw bad()
    positions[String(partition)] = { offset: offset as number, fingerprint }
  }
  return { dataset, logId, positions }
}
