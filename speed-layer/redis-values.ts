/**
 * Keys and stored values of the Redis speed store. Header and changelog entries are those of the LMDB store (format, checksum,
 * JSON); blocks and entries are deflated, since their text is repetitive and Redis writes each whole to its append-only file.
 * Invariant: all keys of one (dataset, partition) have one hash tag; what decodes is what was written, damage reads as missing.
 */
import { promisify } from 'node:util'
import { constants, deflateRaw, inflateRaw } from 'node:zlib'
import type { Block, ChangelogEntry, Epoch, Header, StoreKey } from '../model/ports/speed-store.ts'
import type { Position } from '../model/position.ts'
import { epochName } from './store-rules.ts'
import { decodeBlock, decodeJson, encodeBlock, encodeJson, type Key } from './stored-values.ts'

export type RedisKeys = {
  header: string
  index: string
  changelog: string
  /** Start of the names of all hashes of one version. */
  version(version: string): string
  /** Hash of an epoch's blocks. */
  epoch(version: string, from: Position): string
  /** A hash of blocks that are put aside; `name` is nobody else's. */
  staged(name: string): string
}

/** `prefix:{dataset/partition}:h | e | c | b:version:epoch | s:name` */
export const redisKeys = (prefix: string, k: StoreKey): RedisKeys => {
  const base = `${prefix}:{${k.dataset}/${k.partition}}:`
  const version = (name: string): string => `${base}b:${name}:`
  return {
    header: `${base}h`,
    index: `${base}e`,
    changelog: `${base}c`,
    version,
    epoch: (name, from) => version(name) + epochName(from),
    staged: (name) => `${base}s:${name}`,
  }
}

/** What the checksums of header and changelog entries stand for, beside the bytes. */
export const headerName = (k: StoreKey): Key => ['h', k.dataset, k.partition]
const changeName = (k: StoreKey): Key => ['c', k.dataset, k.partition]

const hashesOf = (keys: RedisKeys, header: Header | null, of: (epoch: Epoch) => boolean): string[] =>
  Object.entries(header?.views ?? {}).flatMap(([version, view]) =>
    view.epochs.filter(of).map((e) => keys.epoch(version, e.from)),
  )

/** Hashes of epochs that must be there, since the header says that they have blocks. */
export const neededHashes = (keys: RedisKeys, header: Header | null): string[] =>
  hashesOf(keys, header, (epoch) => epoch.blocks > 0)

/** Hashes that must not be there. */
export const emptyHashes = (keys: RedisKeys, header: Header | null): string[] =>
  hashesOf(keys, header, (epoch) => epoch.blocks === 0)

/** Those and the ones that are to be swept. */
export const namedHashes = (keys: RedisKeys, header: Header | null): string[] => [
  ...neededHashes(keys, header),
  ...Object.entries(header?.views ?? {}).flatMap(([version, view]) => view.retiring.map((e) => keys.epoch(version, e))),
]

const DEFLATED = 2
/** Below this many bytes there is nothing to gain. */
const SMALL = 256
/** Greatest value that is inflated: far above what blocks are filled to, far below what a process can hold. */
const MOST_BYTES = 1024 * 1024 * 1024
const rawDeflate = promisify<Uint8Array, { level: number }, Buffer>(deflateRaw)
const rawInflate = promisify<Uint8Array, { maxOutputLength: number }, Buffer>(inflateRaw)
const deflate = (bytes: Uint8Array): Promise<Buffer> => rawDeflate(bytes, { level: constants.Z_BEST_SPEED })
const inflate = (bytes: Uint8Array): Promise<Buffer | null> =>
  rawInflate(bytes, { maxOutputLength: MOST_BYTES }).catch(() => null)

/** Blocks deflated at a time: each takes a quarter of a megabyte of memory meanwhile. */
const AT_ONCE = 8

/** In their order, few at a time. */
export async function* encodeRedisBlocks(blocks: Block[]): AsyncGenerator<{ id: string; value: Buffer }> {
  for (let i = 0; i < blocks.length; i += AT_ONCE) {
    const some = blocks.slice(i, i + AT_ONCE)
    const values = await Promise.all(some.map(encodeRedisBlock))
    for (const [j, { id }] of some.entries()) yield { id, value: values[j]! }
  }
}

/** Format byte (1 plain, 2 deflated), the block's own hash (16 bytes), its bytes. */
const encodeRedisBlock = async (block: Block): Promise<Buffer> => {
  if (block.bytes.byteLength < SMALL) return encodeBlock(block)
  const value = encodeBlock({ ...block, bytes: await deflate(block.bytes) })
  value[0] = DEFLATED
  return value
}

/** Null for anything but a whole block: readers compare the hash with the bytes (rule 16). */
export const decodeRedisBlock = async (id: string, value: Buffer): Promise<Block | null> => {
  if (value[0] !== DEFLATED) return decodeBlock(id, value)
  if (value.byteLength < 17) return null
  const bytes = await inflate(value.subarray(17))
  return bytes === null ? null : { id, hash: value.toString('hex', 1, 17), bytes }
}

/** As in the LMDB store, or byte 2 and that deflated. */
export const encodeChange = async (k: StoreKey, entry: ChangelogEntry): Promise<Buffer> => {
  const plain = encodeJson(changeName(k), entry)
  return plain.byteLength < SMALL ? plain : Buffer.concat([Buffer.of(DEFLATED), await deflate(plain)])
}

/** Null when it is damaged. Throws WEIR_SPEED_FORMAT for a newer format. */
export const decodeChange = async (k: StoreKey, value: Buffer): Promise<ChangelogEntry | null> => {
  const plain = value[0] === DEFLATED ? await inflate(value.subarray(1)) : value
  return plain === null ? null : decodeJson<ChangelogEntry>(changeName(k), plain)
}
