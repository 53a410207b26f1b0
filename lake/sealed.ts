/**
 * Small JSON objects with their own digest: one line of JSON, then the SHA-256 of that line.
 * Invariant: a flipped bit or a truncation anywhere in a sealed object is an error, never another value.
 */
import { createHash } from 'node:crypto'
import { WeirError } from '../model/errors.ts'

/** SHA-256 (hex) of a value's JSON line: the name of its exact content. */
export const sealHash = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex')

/** The stored bytes of a value, and its hash. */
export const sealWithHash = (value: { formatVersion: number }): { bytes: Uint8Array; hash: string } => {
  const line = JSON.stringify(value)
  const hash = createHash('sha256').update(line).digest('hex')
  return { bytes: Buffer.from(`${line}\n${hash}\n`), hash }
}

export const seal = (value: { formatVersion: number }): Uint8Array => sealWithHash(value).bytes

/** The value and its hash. Throws WEIR_LAKE_CORRUPT, or WEIR_LAKE_FORMAT for a newer formatVersion. */
export const unsealWithHash = <T extends { formatVersion: number }>(
  bytes: Uint8Array,
  key: string,
): { value: T; hash: string } => {
  const text = Buffer.from(bytes).toString('utf8')
  const end = text.indexOf('\n')
  const line = text.slice(0, Math.max(end, 0))
  const hash = createHash('sha256').update(line).digest('hex')
  if (text.slice(end + 1) !== `${hash}\n`)
    throw new WeirError({
      code: 'WEIR_LAKE_CORRUPT',
      message: `The stored object ${key} is not what was written.`,
      expected: 'one line of JSON and its SHA-256',
      got: `${bytes.length} bytes whose digest differs`,
      next: 'restore the object from a copy of the lake',
    })
  const value = JSON.parse(line) as T
  if (value.formatVersion !== 1)
    throw new WeirError({
      code: 'WEIR_LAKE_FORMAT',
      message: `The stored object ${key} has a format of a newer release.`,
      expected: 'formatVersion 1',
      got: String(value.formatVersion),
      next: 'start the release that wrote it, or a later one',
    })
  return { value, hash }
}

export const unseal = <T extends { formatVersion: number }>(bytes: Uint8Array, key: string): T =>
  unsealWithHash<T>(bytes, key).value
