/** What the contract of object stores does not ask, on S3: pages, parts, other writers, leftovers, what a local copy may not hide. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { type S3Proxy, startS3Proxy } from '../support/s3-proxy.ts'
import { ROOT } from '../support/server.ts'
import { service } from '../support/services.ts'
import { type TestBucket, testBucket } from './s3-support.ts'

const endpoint = service('S3_ENDPOINT')
const PART = 5 * 1024 * 1024

describe.skipIf(endpoint === null)('an S3 store', () => {
  let bucket: TestBucket
  let proxy: S3Proxy
  const opened: ObjectStore[] = []
  const open: TestBucket['open'] = async (options = {}) => {
    const store = await bucket.open({ endpoint: proxy.endpoint, partBytes: PART, ...options })
    opened.push(store)
    return store
  }
  const publish = async (store: ObjectStore, key: string, content: Buffer) => {
    const path = await store.scratch('.parquet')
    await writeFile(path, content)
    return store.publishFile(path, key)
  }
  const uploads = async (): Promise<string[]> => {
    const { client, sdk, bucket: Bucket } = bucket.s3
    const { Uploads = [] } = await client.send(new sdk.ListMultipartUploadsCommand({ Bucket }))
    return Uploads.map((u) => u.Key!)
  }
  const getsSince = (n: number): number => proxy.seen.slice(n).filter((r) => r.method === 'GET').length

  beforeAll(async () => {
    bucket = await testBucket(endpoint!)
    proxy = await startS3Proxy(endpoint!)
  })
  afterEach(async () => {
    for (const store of opened.splice(0)) await store.close()
  })
  afterAll(async () => {
    await proxy?.close()
    await bucket?.remove()
  })

  it('lists over pages of a thousand, also from the middle', async () => {
    const store = await open()
    const keys = Array.from(
      { length: 1_150 },
      (_, i) => `pages/${i % 2 === 0 ? 'a/' : 'a-'}${String(i).padStart(5, '0')}`,
    )
    for (let i = 0; i < keys.length; i += 50)
      await Promise.all(keys.slice(i, i + 50).map((key) => store.putHint(key, Buffer.from(key))))
    const sorted = [...keys].sort()
    expect((await store.list('pages/')).map((o) => o.key)).toEqual(sorted)
    expect((await store.list('pages/', sorted[99])).map((o) => o.key)).toEqual(sorted.slice(100))
    expect((await store.list('pages/a/')).map((o) => o.key)).toEqual(sorted.filter((k) => k.startsWith('pages/a/')))
  })

  it('stays inside its prefix', async () => {
    const store = await open()
    const beside = await open({ prefix: 'beside/' })
    await store.putIfAbsent('where/a', Buffer.from('lake'))
    expect(await beside.get('where/a')).toBeNull()
    expect(await beside.list('')).toEqual([])
    expect(await beside.putIfAbsent('where/a', Buffer.from('beside'))).toBe('written')
    expect((await store.list('where/')).map((o) => o.size)).toEqual([4])
    await expect(open({ prefix: '../' })).rejects.toMatchObject({ code: 'WEIR_LAKE_KEY' })
  })

  it.each([0, 1, PART, PART + 1, 3 * PART])('publishes and reads %i bytes', async (size) => {
    const store = await open()
    const content = Buffer.alloc(size, 'rain ')
    const file = await publish(store, `sizes/${size}`, content)
    expect(file.size).toBe(size)
    expect(Buffer.compare(Buffer.from((await store.get(`sizes/${size}`))!), content)).toBe(0)
    await (await open()).localFile(`sizes/${size}`, file)
    await expect(publish(store, `sizes/${size}`, Buffer.alloc(size, 'snow '))).rejects.toMatchObject({
      code: 'WEIR_LAKE_EXISTS',
    })
    expect(Buffer.compare(Buffer.from((await store.get(`sizes/${size}`))!), content)).toBe(0)
    expect(await uploads()).toEqual([])
  })

  it('aborts what crashes left of uploads, when they are old', async () => {
    const { client, sdk, bucket: Bucket } = bucket.s3
    await client.send(new sdk.CreateMultipartUploadCommand({ Bucket, Key: 'lake/left' }))
    await client.send(new sdk.CreateMultipartUploadCommand({ Bucket, Key: 'elsewhere/left' }))
    await open()
    expect(await uploads()).toHaveLength(2)
    await open({ uploadAgeMs: -5_000 })
    expect(await uploads()).toEqual(['elsewhere/left'])
  })

  it("takes another engine's object for another's", async () => {
    const { client, sdk, bucket: Bucket } = bucket.s3
    const store = await open()
    await client.send(new sdk.PutObjectCommand({ Bucket, Key: 'lake/foreign', Body: 'same' }))
    expect(await store.putIfAbsent('foreign', Buffer.from('same'))).toBe('exists')
    expect(await store.localFile('foreign', { size: 4 })).toEqual(expect.any(String))
    await expect(store.localFile('foreign', { size: 5 })).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
  })

  it('reads a file once for all processes with its cache, and none that it wrote', async () => {
    const cacheFolder = await bucket.folder()
    const [writer, neighbour] = [await open({ cacheFolder }), await open({ cacheFolder })]
    const file = await publish(writer, 'once/f', Buffer.alloc(100_000, 'x'))
    let from = proxy.seen.length
    await writer.localFile('once/f', file)
    await neighbour.localFile('once/f', file)
    await neighbour.localFile('once/f', file)
    expect(getsSince(from)).toBe(0)
    expect(proxy.seen.slice(from).map((r) => r.method)).toEqual(['HEAD'])
    const distant = await open()
    from = proxy.seen.length
    await Promise.all([1, 2, 3].map(() => distant.localFile('once/f', file)))
    expect(getsSince(from)).toBe(1)
  })

  it('does not let a copy hide that the object is gone', async () => {
    const cacheFolder = await bucket.folder()
    const store = await open({ cacheFolder })
    const file = await publish(store, 'gone/f', Buffer.alloc(1000, 'x'))
    const { client, sdk, bucket: Bucket } = bucket.s3
    await client.send(new sdk.DeleteObjectCommand({ Bucket, Key: 'lake/gone/f' }))
    const next = await open({ cacheFolder })
    await expect(next.localFile('gone/f', file)).rejects.toMatchObject({
      code: 'WEIR_LAKE_CORRUPT',
      got: 'no such object',
    })
  })

  it('ends what is under way when it is closed', async () => {
    const store = await open({ probe: false })
    proxy.plan(() => ({ delayMs: 2_000 }))
    const reading = store.get('slow').catch((e: unknown) => e)
    await expect.poll(() => proxy.seen.at(-1)?.path).toMatch(/slow$/)
    await store.close()
    proxy.plan(() => null)
    expect(await reading).toMatchObject({ code: 'WEIR_LAKE_UNREACHABLE' })
  })

  it('is loaded in silence, and leaves the environment alone', async () => {
    const script = `
      const { connectS3 } = await import(${JSON.stringify(join(ROOT, 'lake/s3-client.ts'))})
      const before = JSON.stringify(process.env)
      const s3 = await connectS3({ region: 'us-east-1', bucket: 'none', endpoint: 'http://127.0.0.1:1' })
      s3.close()
      if (JSON.stringify(process.env) !== before) throw new Error('the environment changed')`
    const args = ['--import', 'tsx', '--input-type=module', '-e', script]
    const { stderr } = await promisify(execFile)(process.execPath, args, { cwd: ROOT })
    expect(stderr).toBe('')
  })
})
