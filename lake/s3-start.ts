/** What is done when an S3 store is opened: it must show that it keeps its part of the contract, and what crashes left is removed. */
import { randomUUID } from 'node:crypto'
import { TEMP_FOLDER } from './keys.ts'
import type { S3 } from './s3-client.ts'
import { unfit } from './s3-errors.ts'
import { headOf } from './s3-read.ts'
import { putOnce, remove } from './s3-write.ts'

/**
 * Shows on an object of its own that a conditional write does not overwrite, and that user metadata is kept: a store without the first
 * would silently give one number of a chain two writers. Throws WEIR_LAKE_STORE, or WEIR_LAKE_ACCESS when a right is missing.
 */
export const probeStore = async (s3: S3): Promise<void> => {
  const key = `${TEMP_FOLDER}/probe-${randomUUID()}`
  const [first, second] = [randomUUID(), randomUUID()]
  try {
    await putOnce(s3, key, Buffer.from('1'), first)
    if ((await putOnce(s3, key, Buffer.from('2'), second)) !== 'exists')
      throw unfit(s3.where, 'conditional writes (If-None-Match: *)', 'an object that was overwritten')
    const writer = (await headOf(s3, key))?.writer
    if (writer !== first) throw unfit(s3.where, 'user metadata that is kept with an object', `${writer ?? 'none'}`)
  } catch (error) {
    await remove(s3, key).catch(() => undefined)
    throw error
  }
  await remove(s3, key)
}

/** Aborts uploads in parts that were begun over `ageMs` ago: their writers are gone, and their parts are paid for. */
export const abortOldUploads = async (s3: S3, ageMs: number): Promise<number> => {
  const { ListMultipartUploadsCommand, AbortMultipartUploadCommand } = s3.sdk
  let aborted = 0
  let marker: { KeyMarker?: string; UploadIdMarker?: string } = {}
  for (;;) {
    const command = { Bucket: s3.bucket, Prefix: s3.prefix, ...marker }
    const page = await s3.retry('listing unfinished uploads', () =>
      s3.client.send(new ListMultipartUploadsCommand(command), s3.attempt()),
    )
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Initiated === undefined || Date.now() - Initiated.getTime() < ageMs) continue
      await s3.client
        .send(new AbortMultipartUploadCommand({ Bucket: s3.bucket, Key, UploadId }), s3.attempt())
        .then(() => aborted++)
        .catch((error: unknown) => s3.failed('aborting an unfinished upload', error))
    }
    if (page.IsTruncated !== true) return aborted
    marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
  }
}
