/**
 * Reading request bodies. Invariant: never more than `bodyBytes` (+ one chunk) of a body are held, whatever it claims or
 * inflates to, and every byte held is reserved in the budget that all requests share.
 */
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { WeirError } from '../model/errors.ts'
import type { Buffers } from './buffers.ts'
import { aborted, badGzip, badRatio, overload, tooLarge } from './errors.ts'

/** Bytes of all requests being taken in. `reserve` gives back false, and takes nothing, above the limit. */
export type Budget = { reserve(bytes: number): boolean; release(bytes: number): void; used(): number; limit: number }

export const newBudget = (limit: number): Budget => {
  let used = 0
  return {
    limit,
    reserve: (bytes) => {
      if (used + bytes > limit) return false
      used += bytes
      return true
    },
    release: (bytes) => {
      used -= bytes
    },
    used: () => used,
  }
}

export type BodyLimits = { bodyBytes: number; inflateRatio: number }

/** Output below this is never called a bomb: short repetitive bodies compress well. */
const RATIO_FREE_BYTES = 1024 * 1024
const NEWLINE = 10

/**
 * The whole body, unzipped when it is gzip (by `gzip`, or by its first two bytes, which no JSON text has), and ended by
 * a newline (one is added if need be). `held` is told of every byte that counts against the budget. A body of several
 * chunks lies in the buffer that was last taken of `buffers`, which is the caller's to give back. Throws
 * WEIR_INGEST_TOO_LARGE, _RATIO, _BAD_GZIP, _ABORTED, _OVERLOAD; whatever it throws, it holds nothing any more.
 */
export const readBody = async (
  source: AsyncIterable<Uint8Array> | Uint8Array,
  gzip: boolean,
  limits: BodyLimits,
  budget: Budget,
  held: (bytes: number) => void,
  buffers: Buffers,
): Promise<Buffer> => {
  const take = (bytes: number): void => {
    if (!budget.reserve(bytes)) throw overload(budget.limit)
    held(bytes)
  }
  if (source instanceof Uint8Array) {
    const zipped = gzip || isGzip(source)
    if (!zipped) {
      if (source.byteLength > limits.bodyBytes) throw tooLarge(limits.bodyBytes)
      take(source.byteLength)
      return endWithNewline(bufferOf(source))
    }
    return collect(inflate(only(source), limits), limits, take, buffers)
  }
  const { zipped, all } = await peek(source)
  return collect(gzip || zipped ? inflate(all, limits) : all, limits, take, buffers)
}

const isGzip = (bytes: Uint8Array): boolean => bytes.byteLength >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** Whether the first bytes (two at least, if there are so many) are those of gzip, and an iterable that begins with them. */
const peek = async (
  source: AsyncIterable<Uint8Array>,
): Promise<{ zipped: boolean; all: AsyncIterable<Uint8Array> }> => {
  const iterator = source[Symbol.asyncIterator]()
  let first: Uint8Array = new Uint8Array(0)
  while (first.byteLength < 2) {
    const next = await nextOf(iterator)
    if (next.done) break
    first = first.byteLength === 0 ? next.value : Buffer.concat([first, next.value])
  }
  const all = async function* (): AsyncGenerator<Uint8Array> {
    try {
      const chunk = first
      first = new Uint8Array(0)
      if (chunk.byteLength > 0) yield chunk
      for (;;) {
        const next = await nextOf(iterator)
        if (next.done) return
        yield next.value
      }
    } finally {
      await iterator.return?.()
    }
  }
  return { zipped: isGzip(first), all: all() }
}

const nextOf = async (iterator: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array>> => {
  try {
    return await iterator.next()
  } catch (cause) {
    throw aborted(cause)
  }
}

/** Each chunk is copied as it comes, so that it dies young; the only chunk of a small body is taken as it is. */
const collect = async (
  chunks: AsyncIterable<Uint8Array>,
  limits: BodyLimits,
  take: (bytes: number) => void,
  buffers: Buffers,
): Promise<Buffer> => {
  let only: Uint8Array | undefined
  let whole: Buffer | undefined
  let total = 0
  const add = (chunk: Uint8Array, at: number): void => {
    if (whole === undefined || at + chunk.byteLength >= whole.byteLength) {
      // One byte more than there is, for the last newline.
      const larger = buffers.take(at + chunk.byteLength + 1)
      if (whole !== undefined) {
        whole.copy(larger, 0, 0, at)
        buffers.give(whole)
      }
      whole = larger
    }
    whole.set(chunk, at)
  }
  for await (const chunk of chunks) {
    if (chunk.byteLength === 0) continue
    const at = total
    total += chunk.byteLength
    if (total > limits.bodyBytes) throw tooLarge(limits.bodyBytes)
    take(chunk.byteLength)
    if (at === 0) only = chunk
    else {
      if (only !== undefined) add(only, 0)
      only = undefined
      add(chunk, at)
    }
  }
  if (whole === undefined) return endWithNewline(only === undefined ? Buffer.alloc(0) : bufferOf(only))
  if (whole[total - 1] !== NEWLINE) whole[total++] = NEWLINE
  return whole.subarray(0, total)
}

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const endWithNewline = (bytes: Buffer): Buffer => {
  if (bytes[bytes.byteLength - 1] === NEWLINE) return bytes
  const ended = Buffer.allocUnsafe(bytes.byteLength + 1)
  ended.set(bytes)
  ended[bytes.byteLength] = NEWLINE
  return ended
}

/** Chunks of the unzipped stream. zlib works only as far ahead as its small output buffer, so a bomb is met chunk by chunk. */
async function* inflate(source: AsyncIterable<Uint8Array>, limits: BodyLimits): AsyncGenerator<Uint8Array> {
  let zipped = 0
  let plain = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      zipped += chunk.byteLength
      yield chunk
    }
  }
  const input = Readable.from(counted(), { objectMode: false, highWaterMark: 64 * 1024 })
  const gunzip = createGunzip({ chunkSize: 64 * 1024 })
  input.on('error', (error) => gunzip.destroy(error))
  input.pipe(gunzip)
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      plain += chunk.byteLength
      if (plain > RATIO_FREE_BYTES && plain > zipped * limits.inflateRatio) throw badRatio(limits.inflateRatio)
      yield chunk
    }
  } catch (error) {
    throw error instanceof WeirError ? error : badGzip(error)
  } finally {
    input.destroy()
    gunzip.destroy()
  }
}
