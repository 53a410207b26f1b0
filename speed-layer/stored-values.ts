/**
 * Values as both speed stores keep them, in LMDB and in Redis: one format byte, a checksum, the content.
 * Invariant: what decodes is what was written under this key. Damage reads as missing (null), since all of it can be rebuilt;
 * a newer format throws.
 */
import { crc32 } from 'node:zlib'
import type { Block } from '../model/ports/speed-store.ts'
import { badFormat } from './store-errors.ts'

export type Key = (string | number)[]

const FORMAT = 1

const checksum = (key: Key, text: Buffer): number => crc32(text, crc32(JSON.stringify(key)))

/** Format byte, CRC-32 over key and text (4 bytes), JSON. */
export const encodeJson = (key: Key, value: unknown): Buffer => {
  const text = Buffer.from(JSON.stringify(value))
  const head = Buffer.alloc(5)
  head[0] = FORMAT
  head.writeUInt32LE(checksum(key, text), 1)
  return Buffer.concat([head, text])
}

/** Null when the bytes do not match their checksum. Throws WEIR_SPEED_FORMAT for a newer format that does. */
export const decodeJson = <T>(key: Key, bytes: Buffer): T | null => {
  if (bytes.byteLength < 5) return null
  const text = bytes.subarray(5)
  if (bytes.readUInt32LE(1) !== checksum(key, text)) return null
  if (bytes[0]! > FORMAT) throw badFormat(`the entry ${JSON.stringify(key)}`, bytes[0]!, FORMAT)
  return bytes[0] === FORMAT ? (JSON.parse(text.toString()) as T) : null
}

/** Format byte, the block's own hash (16 bytes), its bytes. The hash is the checksum: readers compare it (rule 16). */
export const encodeBlock = (block: Block): Buffer => {
  const value = Buffer.allocUnsafe(17 + block.bytes.byteLength)
  value[0] = FORMAT
  value.write(block.hash, 1, 'hex')
  value.set(block.bytes, 17)
  return value
}

/** Null for anything but a block of this format: a newer format shows in the header first. */
export const decodeBlock = (id: string, value: Buffer): Block | null => {
  if (value.byteLength < 17 || value[0] !== FORMAT) return null
  return { id, hash: value.toString('hex', 1, 17), bytes: value.subarray(17) }
}
