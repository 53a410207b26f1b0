/**
 * Digests of speed blocks. An epoch's digest is the XOR of its blocks' hashes: a set hash that a writer can carry on
 * from the hashes of the blocks it replaces, and that a reader recomputes from what it read (rule 16).
 */
import { createHash } from 'node:crypto'

export const EMPTY_DIGEST = '0'.repeat(32)

/** First 32 hex digits of SHA-256 over id, a zero byte and the bytes. */
export const blockHash = (id: string, bytes: Uint8Array): string =>
  createHash('sha256').update(id).update('\0').update(bytes).digest('hex').slice(0, 32)

/** XOR of two 32-digit hex strings. */
export const xorDigest = (a: string, b: string): string => {
  let out = ''
  for (let i = 0; i < 32; i += 8) {
    const word = (Number.parseInt(a.slice(i, i + 8), 16) ^ Number.parseInt(b.slice(i, i + 8), 16)) >>> 0
    out += word.toString(16).padStart(8, '0')
  }
  return out
}

export const digestOf = (hashes: Iterable<string>): string => {
  let digest = EMPTY_DIGEST
  for (const hash of hashes) digest = xorDigest(digest, hash)
  return digest
}
