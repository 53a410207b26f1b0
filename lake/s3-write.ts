/**
 * Writing objects of an S3 store so that each key has one winner.
 * Invariant: each call marks what it writes with a token of its own, as user metadata that becomes visible with the object. Whatever an
 * attempt's fate, the token that is found under the key tells who won; equal bytes of two writers never make two winners.
 */
import { createHash, randomUUID } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import type { S3 } from './s3-client.ts'
import { corrupt, existsAlready, unreachable } from './s3-errors.ts'
import { headOf, streamObject, WRITER } from './s3-read.ts'

/** Parts under way at a time. */
const LANES = 4
/** S3's bound. */
const MAX_PARTS = 10_000

const sha256Of = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
/** PUT of bytes already in memory takes a Buffer without a copy. */
const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/**
 * Runs a conditional write until it is known who holds the key. An answer 200 is ours. Anything else that does not refuse for good (412,
 * 409, 5xx, a cut, a time-out) is followed by a look at the key, and the write is sent again only once the key is known to be absent:
 * also a 412, since our own earlier attempt, or a proxy that repeats requests, may have made it. A late attempt that lands after all
 * meets the same condition and carries the same token.
 */
const conditionally = async (
  s3: S3,
  key: string,
  token: string,
  write: () => Promise<unknown>,
): Promise<'written' | 'exists'> => {
  const what = `writing ${key}`
  const startedMs = performance.now()
  for (let attempt = 1; ; attempt++) {
    try {
      await write()
      return 'written'
    } catch (error) {
      const failure = s3.failed(what, error)
      const found = await headOf(s3, key, startedMs)
      if (found !== null) return found.writer === token ? 'written' : 'exists'
      // The upload that was to be completed is gone: nothing to send again.
      if (failure === 'missing' || !(await s3.backoff(attempt, startedMs))) throw unreachable(s3.where, what, error)
    }
  }
}

export const putOnce = (
  s3: S3,
  key: string,
  bytes: Uint8Array,
  token: string = randomUUID(),
): Promise<'written' | 'exists'> => {
  const command = {
    Bucket: s3.bucket,
    Key: s3.prefix + key,
    Body: asBuffer(bytes),
    IfNoneMatch: '*',
    ChecksumSHA256: sha256Of(bytes).toString('base64'),
    Metadata: { [WRITER]: token },
  }
  return conditionally(s3, key, token, () =>
    s3.client.send(new s3.sdk.PutObjectCommand(command), s3.attempt(bytes.length)),
  )
}

export const overwrite = async (s3: S3, key: string, bytes: Uint8Array): Promise<void> => {
  const command = { Bucket: s3.bucket, Key: s3.prefix + key, Body: asBuffer(bytes) }
  await s3.retry(`writing ${key}`, () => s3.client.send(new s3.sdk.PutObjectCommand(command), s3.attempt(bytes.length)))
}

export const remove = async (s3: S3, key: string): Promise<void> => {
  await s3.retry(`deleting ${key}`, () =>
    s3.client.send(new s3.sdk.DeleteObjectCommand({ Bucket: s3.bucket, Key: s3.prefix + key }), s3.attempt()),
  )
}

const readPart = async (file: FileHandle, at: number, length: number): Promise<Buffer> => {
  const buffer = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, at + filled)
    if (bytesRead === 0) throw new Error(`a file that is being published became shorter, at ${at + filled}`)
    filled += bytesRead
  }
  return buffer
}

/** SHA-256 of the content (hex), and as the store tells it (of parts: over their digests). */
type Sent = { outcome: 'written' | 'exists'; sha256: string; checksum: string }

const abort = async (s3: S3, Key: string, UploadId: string): Promise<void> => {
  const command = new s3.sdk.AbortMultipartUploadCommand({ Bucket: s3.bucket, Key, UploadId })
  // What stays is removed when a store is opened a day later.
  await s3.client.send(command, s3.attempt()).catch(() => undefined)
}

/** In parts, each sent again as often as it takes; the file is read once, so that what is hashed is what was sent. */
const sendParts = async (
  s3: S3,
  key: string,
  token: string,
  file: FileHandle,
  size: number,
  partBytes: number,
): Promise<Sent> => {
  const at = { Bucket: s3.bucket, Key: s3.prefix + key }
  const { UploadId = '' } = await s3.retry(`beginning an upload of ${key}`, () =>
    s3.client.send(
      new s3.sdk.CreateMultipartUploadCommand({ ...at, ChecksumAlgorithm: 'SHA256', Metadata: { [WRITER]: token } }),
      s3.attempt(),
    ),
  )
  const parts: { PartNumber: number; ETag: string | undefined; ChecksumSHA256: string }[] = []
  const digests: Buffer[] = []
  const whole = createHash('sha256')
  const underWay = new Set<Promise<void>>()
  const sendPart = async (PartNumber: number, bytes: Buffer): Promise<void> => {
    const part = {
      ...at,
      UploadId,
      PartNumber,
      Body: bytes,
      ChecksumSHA256: digests[PartNumber - 1]!.toString('base64'),
    }
    const { ETag } = await s3.retry(`sending part ${PartNumber} of ${key}`, () =>
      s3.client.send(new s3.sdk.UploadPartCommand(part), s3.attempt(bytes.length)),
    )
    parts[PartNumber - 1] = { PartNumber, ETag, ChecksumSHA256: part.ChecksumSHA256 }
  }
  try {
    const length = Math.max(partBytes, Math.ceil(size / MAX_PARTS))
    for (let from = 0; from < size; from += length) {
      const bytes = await readPart(file, from, Math.min(length, size - from))
      whole.update(bytes)
      const n = digests.push(sha256Of(bytes))
      const sent = sendPart(n, bytes).finally(() => underWay.delete(sent))
      sent.catch(() => undefined) // seen by the race or the end below, whichever comes first
      underWay.add(sent)
      if (underWay.size >= LANES) await Promise.race(underWay)
    }
    await Promise.all(underWay)
    const complete = { ...at, UploadId, IfNoneMatch: '*', MultipartUpload: { Parts: parts } }
    const outcome = await conditionally(s3, key, token, () =>
      s3.client.send(new s3.sdk.CompleteMultipartUploadCommand(complete), s3.attempt(size / 16)),
    )
    if (outcome === 'exists') await abort(s3, at.Key, UploadId)
    const checksum = `${sha256Of(Buffer.concat(digests)).toString('base64')}-${digests.length}`
    return { outcome, sha256: whole.digest('hex'), checksum }
  } catch (error) {
    await Promise.allSettled(underWay)
    await abort(s3, at.Key, UploadId)
    throw error
  }
}

const sendWhole = async (s3: S3, key: string, token: string, file: FileHandle, size: number): Promise<Sent> => {
  const bytes = await readPart(file, 0, size)
  const digest = sha256Of(bytes)
  const outcome = await putOnce(s3, key, bytes, token)
  return { outcome, sha256: digest.toString('hex'), checksum: digest.toString('base64') }
}

/**
 * Puts a file under a key that must be absent (else WEIR_LAKE_EXISTS), and returns only after the store's own size and SHA-256 of it, or
 * where it tells none its bytes, were compared with what was read from the file.
 */
export const publish = async (
  s3: S3,
  key: string,
  path: string,
  partBytes: number,
): Promise<{ size: number; sha256: string }> => {
  const token = randomUUID()
  const file = await open(path, 'r')
  let sent: Sent
  let size: number
  try {
    size = (await file.stat()).size
    sent =
      size > partBytes
        ? await sendParts(s3, key, token, file, size, partBytes)
        : await sendWhole(s3, key, token, file, size)
  } finally {
    await file.close()
  }
  if (sent.outcome === 'exists') throw existsAlready(key)
  const stored = await headOf(s3, key)
  const told = stored?.checksum ?? (await streamObject(s3, key, size, () => undefined)).sha256
  const expected = stored?.checksum === undefined ? sent.sha256 : sent.checksum
  if (stored?.size !== size || told !== expected)
    throw corrupt(key, `${size} bytes, SHA-256 ${expected}`, `${stored?.size ?? 'no'} bytes, SHA-256 ${told}`)
  return { size, sha256: sent.sha256 }
}
