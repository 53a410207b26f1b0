/**
 * The codecs of Kafka's record batches: gzip by Node, the others in plain JavaScript, loaded when first met.
 * Invariant: no more than `maxBytes` are unpacked, whatever the packed bytes claim.
 */
import { createRequire } from 'node:module'
import { promisify } from 'node:util'
import { gunzip, gzip } from 'node:zlib'

const require = createRequire(import.meta.url)
const gunzipAsync = promisify(gunzip)
const gzipAsync = promisify(gzip)

export const GZIP = 1

const once = <T>(load: () => T): (() => T) => {
  let value: T | undefined
  return () => (value ??= load())
}
type Snappy = { uncompress(bytes: Uint8Array, maxBytes: number): Uint8Array }
type Lz4 = { decompressBound(bytes: Uint8Array): number; decompress(bytes: Uint8Array, maxBytes: number): Uint8Array }
type Zstd = { Decompress: new (take: (chunk: Uint8Array) => void) => { push(bytes: Uint8Array, final: boolean): void } }
const snappy = once(() => require('snappyjs') as Snappy)
const lz4 = once(() => require('lz4js') as Lz4)
const zstd = once(() => require('fzstd') as Zstd)

/** Java's snappy stream (xerial): magic, two versions, then blocks with their length before each. librdkafka writes plain snappy. */
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0])
const XERIAL_HEADER = 16

const tooLong = (maxBytes: number): RangeError => new RangeError(`more than ${maxBytes} bytes`)

const unsnappy = (packed: Buffer, maxBytes: number): Buffer => {
  if (!packed.subarray(0, XERIAL.byteLength).equals(XERIAL)) return Buffer.from(snappy().uncompress(packed, maxBytes))
  const blocks: Uint8Array[] = []
  let left = maxBytes
  for (let at = XERIAL_HEADER; at < packed.byteLength; ) {
    const length = packed.readInt32BE(at)
    const block = snappy().uncompress(packed.subarray(at + 4, at + 4 + length), left)
    left -= block.byteLength
    blocks.push(block)
    at += 4 + length
  }
  return Buffer.concat(blocks)
}

const unlz4 = (packed: Buffer, maxBytes: number): Buffer => {
  // The bound counts whole blocks (64 KiB as clients write them), so the last one may reach over the limit.
  const bound = lz4().decompressBound(packed)
  if (bound > maxBytes + 4 * 1024 * 1024) throw tooLong(maxBytes)
  return Buffer.from(lz4().decompress(packed, bound))
}

const unzstd = (packed: Buffer, maxBytes: number): Buffer => {
  const chunks: Uint8Array[] = []
  let bytes = 0
  const stream = new (zstd().Decompress)((chunk) => {
    bytes += chunk.byteLength
    if (bytes > maxBytes) throw tooLong(maxBytes)
    chunks.push(chunk)
  })
  stream.push(packed, true)
  return Buffer.concat(chunks)
}

/** Unpacks a batch's records. Throws when they are damaged, too long, or the codec is not known. */
export const unpack = async (codec: number, packed: Buffer, maxBytes: number): Promise<Buffer> => {
  switch (codec) {
    case 0:
      return packed
    case GZIP:
      return gunzipAsync(packed, { maxOutputLength: maxBytes })
    case 2:
      return unsnappy(packed, maxBytes)
    case 3:
      return unlz4(packed, maxBytes)
    case 4:
      return unzstd(packed, maxBytes)
    default:
      throw new RangeError(`codec ${codec}`)
  }
}

export const packGzip = (bytes: Buffer): Promise<Buffer> => gzipAsync(bytes)
