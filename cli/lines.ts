/** Bytes → lines, without their end. Invariant: bytes stay as they are (a broken UTF-8 line reaches the door as it was), memory is one line. */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { WeirError } from '../model/errors.ts'

const MAX_LINE = 64 * 1024 * 1024

/** Lines of a stream as slices of its chunks. Throws WEIR_CLI_LINE. */
export async function* linesOf(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer[] = []
  let held = 0
  for await (const chunk of source) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const piece = chunk.subarray(from, at)
      yield rest.length ? Buffer.concat([...rest, piece]) : piece
      rest = []
      held = 0
      from = at + 1
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from))
      held += chunk.length - from
    }
    if (held > MAX_LINE)
      throw new WeirError({
        code: 'WEIR_CLI_LINE',
        message: 'A line is longer than any event can be.',
        expected: `lines of at most ${MAX_LINE} bytes, one JSON object each`,
        next: 'send NDJSON: `jq -c ".[]" file.json` makes it of an array',
      })
  }
  if (held > 0) yield Buffer.concat(rest)
}

export const isBlank = (line: Buffer): boolean => {
  for (const byte of line) if (byte !== 32 && byte !== 9 && byte !== 13) return false
  return true
}

export type Input = { bytes: AsyncIterable<Buffer>; total: number; read(): number }

/** A file (gunzipped when it is gzip by its first bytes, whatever its name) or, for '-', stdin. `read` counts bytes of the file itself. */
export const openInput = async (path: string): Promise<Input> => {
  let read = 0
  const total = path === '-' ? 0 : (await stat(path)).size
  const raw: Readable = path === '-' ? process.stdin : createReadStream(path, { highWaterMark: 1 << 18 })
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of raw) {
      read += (chunk as Buffer).length
      yield chunk as Buffer
    }
  }
  const source = counted()
  const first = await source.next()
  async function* all(): AsyncGenerator<Buffer> {
    if (first.done) return
    yield first.value
    yield* source
  }
  const gzip = !first.done && first.value[0] === 0x1f && first.value[1] === 0x8b
  if (!gzip) return { bytes: all(), total, read: () => read }
  const { Readable: Streams, pipeline } = await import('node:stream')
  const unzip = createGunzip()
  // The reader of `unzip` sees the failure; this callback only keeps it from being thrown twice.
  pipeline(Streams.from(all()), unzip, () => undefined)
  return { bytes: unzip, total, read: () => read }
}
