/**
 * Reading request bodies. Invariant: never more than `bodyBytes` (+ one chunk) of a body are held, whatever it claims or
 * inflates to, and every byte held is reserved in the budget that all requests share.
 */
import { finished, Readable } from 'node:stream'
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

/** A buffer is taken at once for what a client declares, but for no more than this: it may not send it. */
const TRUSTED_BYTES = 1024 * 1024

/**
 * The whole body, unzipped when it is gzip (by `gzip`, or by its first two bytes, which no JSON text has), and ended by
 * a newline (one is added if need be). `declared`: bytes that it says to have, 0 if unknown. `held` is told of every byte
 * that counts against the budget. A body of several chunks lies in the buffer that was last taken of `buffers`, which is
 * the caller's to give back. Throws WEIR_INGEST_TOO_LARGE, _RATIO, _BAD_GZIP, _ABORTED, _OVERLOAD; whatever it throws, it
 * holds nothing any more. The rest of a stream is left unread, for who wants to read on; any other source is ended.
 */
export const readBody = async (
  source: AsyncIterable<Uint8Array> | Uint8Array,
  gzip: boolean,
  declared: number,
  limits: BodyLimits,
  budget: Budget,
  held: (bytes: number) => void,
  buffers: Buffers,
): Promise<Buffer> => {
  const take = (bytes: number): void => {
    if (!budget.reserve(bytes)) throw overload(budget.limit)
    held(bytes)
  }
  const inflated = async (zipped: Readable): Promise<Buffer> => {
    const plain = Readable.from(inflate(zipped, limits), { objectMode: false })
    try {
      return endWithNewline(await collect(plain, 0, limits, take, buffers))
    } finally {
      plain.destroy()
    }
  }
  if (source instanceof Uint8Array) {
    if (gzip || isGzip(source)) return inflated(Readable.from([source]))
    if (source.byteLength > limits.bodyBytes) throw tooLarge(limits.bodyBytes)
    take(source.byteLength)
    return endWithNewline({ bytes: bufferOf(source), hasRoom: false })
  }
  const stream = source instanceof Readable ? source : Readable.from(source)
  try {
    if (gzip) return await inflated(stream)
    const body = await collect(stream, declared, limits, take, buffers)
    return isGzip(body.bytes) ? await inflated(Readable.from([body.bytes])) : endWithNewline(body)
  } finally {
    if (stream !== source) stream.destroy()
  }
}

const isGzip = (bytes: Uint8Array): boolean => bytes.byteLength >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b

/** `hasRoom`: the byte behind them is theirs too. */
type Collected = { bytes: Buffer; hasRoom: boolean }

/** All of a stream. Each chunk is copied as it comes, so that it dies young; an only one is taken as it is. */
const collect = async (
  stream: Readable,
  declared: number,
  limits: BodyLimits,
  take: (bytes: number) => void,
  buffers: Buffers,
): Promise<Collected> => {
  let only: Uint8Array | undefined
  let whole: Buffer | undefined
  let total = 0
  const add = (chunk: Uint8Array, at: number): void => {
    const needed = at + chunk.byteLength + 1
    if (whole === undefined || needed > whole.byteLength) {
      const larger = buffers.take(Math.max(needed, Math.min(declared, TRUSTED_BYTES) + 1))
      if (whole !== undefined) {
        whole.copy(larger, 0, 0, at)
        buffers.give(whole)
      }
      whole = larger
    }
    whole.set(chunk, at)
  }
  await eachChunk(stream, (chunk) => {
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
  })
  if (whole !== undefined) return { bytes: whole.subarray(0, total), hasRoom: true }
  return { bytes: only === undefined ? Buffer.alloc(0) : bufferOf(only), hasRoom: false }
}

/**
 * Calls `use` with each chunk until the stream ends. By events: an iterator's promises cost as much as the copy does. When
 * `use` throws, so does this, and the stream stands still, for whoever wants to read on.
 */
const eachChunk = (stream: Readable, use: (chunk: Uint8Array) => void): Promise<void> =>
  new Promise((resolve, reject) => {
    const done = (error?: unknown): void => {
      stopped()
      stream.off('data', data)
      if (error === undefined || error === null) {
        resolve()
        return
      }
      stream.pause()
      reject(error instanceof WeirError ? error : aborted(error))
    }
    const data = (chunk: Uint8Array): void => {
      try {
        use(chunk)
      } catch (error) {
        done(error)
      }
    }
    const stopped = finished(stream, { writable: false }, done)
    stream.on('data', data)
  })

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const endWithNewline = ({ bytes, hasRoom }: Collected): Buffer => {
  const size = bytes.byteLength
  if (bytes[size - 1] === NEWLINE) return bytes
  const ended = hasRoom ? Buffer.from(bytes.buffer, bytes.byteOffset, size + 1) : Buffer.allocUnsafe(size + 1)
  if (!hasRoom) ended.set(bytes)
  ended[size] = NEWLINE
  return ended
}

/** Chunks of the unzipped stream. zlib works only as far ahead as its small output buffer, so a bomb is met chunk by chunk. */
async function* inflate(source: Readable, limits: BodyLimits): AsyncGenerator<Uint8Array> {
  let zipped = 0
  let plain = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of source.iterator({ destroyOnReturn: false })) {
        zipped += chunk.byteLength
        yield chunk
      }
    } catch (cause) {
      throw aborted(cause)
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
