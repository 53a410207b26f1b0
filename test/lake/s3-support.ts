/** A bucket of its own for a test file, on the S3-compatible store that S3_ENDPOINT names. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectS3, type S3, type S3Options } from '../../lake/s3-client.ts'
import { openS3Store, type S3StoreOptions } from '../../lake/s3-object-store.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'

export type TestBucket = {
  options: S3Options
  /** A client beside the stores: to look, and to act behind their backs. */
  s3: S3
  /** A store with a cache folder of its own, as another machine has; `options` override. */
  open(options?: Partial<S3StoreOptions>): Promise<ObjectStore>
  /** Changes a stored object behind the store's back. */
  damage(key: string, change: (bytes: Buffer) => Buffer): Promise<void>
  /** A fresh temporary folder, removed with the bucket. */
  folder(): Promise<string>
  remove(): Promise<void>
}

export const testBucket = async (endpoint: string, prefix = 'lake/'): Promise<TestBucket> => {
  const env = process.env
  const options: S3Options = {
    endpoint,
    region: env.S3_REGION ?? 'us-east-1',
    bucket: `weir-test-${crypto.randomUUID()}`,
    prefix,
    credentials: { accessKeyId: env.S3_ACCESS_KEY_ID ?? '', secretAccessKey: env.S3_SECRET_ACCESS_KEY ?? '' },
  }
  const s3 = await connectS3(options)
  const { sdk, client, bucket } = s3
  await client.send(new sdk.CreateBucketCommand({ Bucket: bucket }))
  const folders: string[] = []
  const folder = async (): Promise<string> => {
    const path = await mkdtemp(join(tmpdir(), 'weir-s3-'))
    folders.push(path)
    return path
  }
  return {
    options,
    s3,
    folder,
    open: async (more = {}) =>
      openS3Store({
        ...options,
        cacheFolder: more.cacheFolder ?? (await folder()),
        cacheBytes: 64 * 1024 * 1024,
        ...more,
      }),
    damage: async (key, change) => {
      const at = { Bucket: bucket, Key: prefix + key }
      const { Body, Metadata } = await client.send(new sdk.GetObjectCommand(at))
      const bytes = change(Buffer.from((await Body?.transformToByteArray()) ?? []))
      await client.send(new sdk.PutObjectCommand({ ...at, Metadata, Body: bytes }))
    },
    remove: async () => {
      for (;;) {
        const { Contents = [] } = await client.send(new sdk.ListObjectsV2Command({ Bucket: bucket }))
        if (Contents.length === 0) break
        const Objects = Contents.map(({ Key }) => ({ Key: Key! }))
        await client.send(new sdk.DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects } }))
      }
      const { Uploads = [] } = await client.send(new sdk.ListMultipartUploadsCommand({ Bucket: bucket }))
      for (const { Key, UploadId } of Uploads)
        await client.send(new sdk.AbortMultipartUploadCommand({ Bucket: bucket, Key: Key!, UploadId: UploadId! }))
      await client.send(new sdk.DeleteBucketCommand({ Bucket: bucket }))
      s3.close()
      for (const path of folders) await rm(path, { recursive: true, force: true })
    },
  }
}
