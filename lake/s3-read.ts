/** Reading objects of an S3 store: heads, bytes, streams that go on where they were cut, listings. */
import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { GetObjectCommandOutput } from '@aws-sdk/client-s3'
import type { ObjectInfo } from '../model/ports/object-store.ts'
import { compareKeys, TEMP_FOLDER } from './keys.ts'
import type { S3 } from './s3-client.ts'
import { BrokenTransfer, corrupt, Missing } from './s3-errors.ts'

/** `writer`: the token of the call that wrote it. `checksum`: the SHA-256 that the store holds of it (base64; of parts: `…-<parts>`). */
export type Head = { size: number; writer: string | undefined; checksum: string | undefined }

/** Name of the user metadata that carries the token. */
export const WRITER = 'weir-writer'

/** Null for an absent object. A HEAD's answer has no body: an absent *bucket* looks the same here. */
export const headOf = async (s3: S3, key: string, startedMs?: number): Promise<Head | null> => {
  const command = { Bucket: s3.bucket, Key: s3.prefix + key, ChecksumMode: 'ENABLED' } as const
  try {
    const found = await s3.retry(
      `looking at ${key}`,
      () => s3.client.send(new s3.sdk.HeadObjectCommand(command), s3.attempt()),
      startedMs,
    )
    return { size: found.ContentLength ?? 0, writer: found.Metadata?.[WRITER], checksum: found.ChecksumSHA256 }
  } catch (error) {
    if (error instanceof Missing) return null
    throw error
  }
}

type Body = GetObjectCommandOutput['Body']

/** The bytes of an object; null when it is absent. A missing bucket is an error. */
export const bytesOf = async (s3: S3, key: string): Promise<Uint8Array | null> => {
  try {
    return await s3.retry(`reading ${key}`, async () => {
      const command = new s3.sdk.GetObjectCommand({ Bucket: s3.bucket, Key: s3.prefix + key })
      const { Body, ContentLength } = await s3.client.send(command, s3.attempt())
      const bytes = Body === undefined ? new Uint8Array() : await whole(Body)
      if (ContentLength !== undefined && bytes.length !== ContentLength)
        throw new BrokenTransfer(`${bytes.length} of ${ContentLength} bytes came`)
      return bytes
    })
  } catch (error) {
    if (error instanceof Missing) return null
    throw error
  }
}

const chunksOf = (body: Body): AsyncIterable<Buffer> => body as Readable

const whole = async (body: Body): Promise<Uint8Array> => {
  const chunks: Buffer[] = []
  for await (const chunk of chunksOf(body)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/**
 * Streams an object of a known size through `write`, each byte once and in order: a cut stream goes on by range. Returns size and SHA-256
 * (hex) of what came. Throws WEIR_LAKE_CORRUPT when the object is absent, of another size, or was replaced while it was read.
 */
export const streamObject = async (
  s3: S3,
  key: string,
  size: number,
  write: (chunk: Buffer) => Promise<unknown> | undefined,
): Promise<{ size: number; sha256: string }> => {
  const hash = createHash('sha256')
  let received = 0
  let etag: string | undefined
  const expected = `${size} bytes`
  try {
    await s3.retry(`reading ${key}`, async (progressed) => {
      const rest = received === 0 ? {} : { Range: `bytes=${received}-` }
      const command = new s3.sdk.GetObjectCommand({ Bucket: s3.bucket, Key: s3.prefix + key, ...rest })
      const answer = await s3.client.send(command, s3.attempt())
      const total = answer.ContentRange?.split('/')[1] ?? answer.ContentLength
      etag ??= answer.ETag
      if ((total !== undefined && Number(total) !== size) || answer.ETag !== etag) {
        ;(answer.Body as Readable).destroy()
        throw corrupt(key, expected, answer.ETag === etag ? `${total} bytes` : 'another object, put there meanwhile')
      }
      // A store that does not know ranges begins anew.
      let known = answer.ContentRange === undefined ? received : 0
      for await (const chunk of chunksOf(answer.Body)) {
        const fresh = chunk.subarray(Math.min(known, chunk.length))
        known -= chunk.length - fresh.length
        await write(fresh)
        hash.update(fresh)
        received += fresh.length
        progressed()
      }
      if (received < size) throw new BrokenTransfer(`${received} of ${size} bytes came`)
    })
  } catch (error) {
    if (error instanceof Missing) throw corrupt(key, expected, 'no such object')
    throw error
  }
  return { size: received, sha256: hash.digest('hex') }
}

/** Objects under a prefix, by UTF-8 bytes of their keys, after a key. */
export const listObjects = async (s3: S3, prefix: string, after?: string): Promise<ObjectInfo[]> => {
  const out: ObjectInfo[] = []
  let token: string | undefined
  do {
    const page = await s3.retry(`listing ${prefix || 'everything'}`, () =>
      s3.client.send(
        new s3.sdk.ListObjectsV2Command({
          Bucket: s3.bucket,
          Prefix: s3.prefix + prefix,
          ...(token !== undefined
            ? { ContinuationToken: token }
            : after === undefined
              ? {}
              : { StartAfter: s3.prefix + after }),
        }),
        s3.attempt(),
      ),
    )
    for (const { Key = '', Size = 0, LastModified } of page.Contents ?? []) {
      const key = Key.slice(s3.prefix.length)
      // Folder markers of other tools end in '/'. Not every store starts exactly after the key.
      if (key.endsWith('/') || key === '' || key.startsWith(`${TEMP_FOLDER}/`)) continue
      if (after !== undefined && compareKeys(key, after) <= 0) continue
      out.push({ key, size: Size, modifiedMs: LastModified?.getTime() ?? 0 })
    }
    token = page.IsTruncated === true ? page.NextContinuationToken : undefined
  } while (token !== undefined)
  return out.sort((a, b) => compareKeys(a.key, b.key))
}
