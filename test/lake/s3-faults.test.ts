/** The S3 store behind a proxy that answers 409, 412, 500, 503, loses replies, cuts, stalls and delays (fault 15 of PROMISES, rule 10). */
import { writeFile } from 'node:fs/promises'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { S3StoreOptions } from '../../lake/s3-object-store.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { type Fault, type FaultPlan, noFaults, type S3Proxy, seededFaults, startS3Proxy } from '../support/s3-proxy.ts'
import { service } from '../support/services.ts'
import { type TestBucket, testBucket } from './s3-support.ts'

const endpoint = service('S3_ENDPOINT')
const bytes = (text: string): Buffer => Buffer.from(text)
const PART = 5 * 1024 * 1024
const ANY: Fault[] = [409, 412, 500, 503, 'cut-before', 'cut-after', 'cut-body', { delayMs: 20 }]
const UNKNOWN: Fault[] = [409, 412, 500, 503, 'cut-before', 'cut-after', 'late']

describe.skipIf(endpoint === null)('an S3 store that fails', () => {
  let bucket: TestBucket
  let proxy: S3Proxy
  const opened: ObjectStore[] = []
  /** Through the proxy. */
  const open = async (options: Partial<S3StoreOptions> = {}): Promise<ObjectStore> => {
    const store = await bucket.open({ endpoint: proxy.endpoint, probe: false, partBytes: PART, pauseMs: 4, ...options })
    opened.push(store)
    return store
  }
  /** Faults for the first requests of a method, in order; then none. */
  const first = (method: string, ...faults: Fault[]): FaultPlan => {
    const left = [...faults]
    return (r) => (r.method === method ? (left.shift() ?? null) : null)
  }
  const since = (n: number, method: string): S3Proxy['seen'] => proxy.seen.slice(n).filter((r) => r.method === method)

  beforeAll(async () => {
    bucket = await testBucket(endpoint!)
    proxy = await startS3Proxy(endpoint!)
  })
  afterEach(async () => {
    proxy.plan(noFaults)
    await proxy.flush()
    for (const store of opened.splice(0)) await store.close()
  })
  afterAll(async () => {
    await proxy?.close()
    await bucket?.remove()
  })

  describe('putIfAbsent', () => {
    it.each<Fault>(UNKNOWN)('knows its own write after %s', async (fault) => {
      const store = await open()
      proxy.plan(first('PUT', fault))
      expect(await store.putIfAbsent(`own/${fault}`, bytes('mine'))).toBe('written')
      expect(await store.putIfAbsent(`own/${fault}`, bytes('mine'))).toBe('exists')
    })

    it.each<Fault>(UNKNOWN)("does not take another writer's equal bytes for its own after %s", async (fault) => {
      const [store, other] = [await open(), await open()]
      expect(await other.putIfAbsent(`equal/${fault}`, bytes('same'))).toBe('written')
      proxy.plan(first('PUT', fault))
      expect(await store.putIfAbsent(`equal/${fault}`, bytes('same'))).toBe('exists')
    })

    it('does not send again what was done, and reads back before it sends again', async () => {
      const store = await open()
      let from = proxy.seen.length
      proxy.plan(first('PUT', 'cut-after'))
      expect(await store.putIfAbsent('again/done', bytes('x'))).toBe('written')
      expect(since(from, 'PUT')).toHaveLength(1)
      from = proxy.seen.length
      const [puts, heads] = [first('PUT', 'cut-before'), first('HEAD', 503, 'cut-before')]
      proxy.plan((r) => puts(r) ?? heads(r))
      expect(await store.putIfAbsent('again/not', bytes('x'))).toBe('written')
      expect(proxy.seen.slice(from).map((r) => r.method)).toEqual(['PUT', 'HEAD', 'HEAD', 'HEAD', 'PUT'])
    })

    it('keeps one winner when an attempt that was given up lands late', async () => {
      const [store, other] = [await open({ attemptMs: 400 }), await open()]
      proxy.plan(first('PUT', { delayMs: 1500 }))
      const from = proxy.seen.length
      const slow = store.putIfAbsent('late/a', bytes('slow'))
      await expect.poll(() => since(from, 'PUT').length).toBeGreaterThan(0)
      const outcomes = [await slow, await other.putIfAbsent('late/a', bytes('quick'))]
      expect(outcomes).toEqual(['written', 'exists'])
      // The delayed request meets the condition, too.
      await expect.poll(() => since(from, 'PUT').every((r) => r.status !== undefined), { timeout: 10_000 }).toBe(true)
      expect(await store.get('late/a')).toEqual(bytes('slow'))
    })

    it('has one winner among 8 writers in each of 100 rounds full of faults', async () => {
      const writers = await Promise.all(Array.from({ length: 8 }, () => open()))
      proxy.plan(seededFaults(41, 0.4, [...UNKNOWN, 'late', 'cut-after']))
      for (let round = 0; round < 100; round++) {
        const key = `race/${round}`
        // In every third round all write the same.
        const content = (i: number): Buffer => bytes(round % 3 === 0 ? 'same' : `writer ${i}`)
        const outcomes = await Promise.all(writers.map((w, i) => w.putIfAbsent(key, content(i))))
        const winner = outcomes.indexOf('written')
        expect(outcomes.filter((o) => o === 'written')).toHaveLength(1)
        expect(outcomes.filter((o) => o === 'exists')).toHaveLength(7)
        expect(await writers[0]!.get(key)).toEqual(content(winner))
      }
      await proxy.flush()
      const lost = proxy.seen.filter((r) => r.method === 'PUT' && (r.fault === 'cut-after' || r.fault === 'late'))
      expect(lost.length).toBeGreaterThan(100)
    })

    it('gives up at the deadline, and says so without secrets', async () => {
      const { accessKeyId = '' } = bucket.options.credentials ?? {}
      const secretAccessKey = 'very-secret-indeed'
      const store = await open({ deadlineMs: 300, credentials: { accessKeyId, secretAccessKey } })
      proxy.plan(() => 503)
      const failed: unknown = await store.putIfAbsent('never', bytes('x')).catch((e: unknown) => e)
      expect(failed).toMatchObject({ code: 'WEIR_LAKE_UNREACHABLE', retryable: true })
      proxy.plan(noFaults)
      const refused: unknown = await store.get('never').catch((e: unknown) => e)
      expect(refused).toMatchObject({ code: 'WEIR_LAKE_ACCESS', retryable: false })
      // A store answers a wrong signature with the text that was to be signed, and the client's error holds the whole request.
      for (const error of [failed, refused])
        expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/very-secret|AWS4-HMAC|authorization/i)
    })
  })

  describe('reading', () => {
    it.each<Fault>([500, 503, 'cut-before', 'cut-after', 'cut-body', 'stall'])(
      'is done again after %o',
      async (fault) => {
        const store = await open({ attemptMs: 500 })
        for (const key of ['a', 'b', 'c']) await store.putIfAbsent(`read/${fault}/${key}`, bytes(key))
        proxy.plan(first('GET', fault, fault))
        expect(await store.get(`read/${fault}/a`)).toEqual(bytes('a'))
        proxy.plan(first('GET', fault, fault))
        expect((await store.list(`read/${fault}/`)).map((o) => o.key.at(-1))).toEqual(['a', 'b', 'c'])
        proxy.plan(first('GET', fault, fault))
        expect(await store.get(`read/${fault}/none`)).toBeNull()
      },
    )

    it('goes on where a file was cut, and finds what was flipped on the way', async () => {
      const store = await open({ attemptMs: 3000 })
      const path = await store.scratch('.parquet')
      await writeFile(path, Buffer.alloc(3_000_000, 'weir '))
      const file = await store.publishFile(path, 'files/cut')
      const reader = await open({ attemptMs: 3000 })
      const from = proxy.seen.length
      proxy.plan(first('GET', 'cut-body', 'stall', 'cut-body'))
      await reader.localFile('files/cut', file)
      const ranges = since(from, 'GET').map((r) => Number(/\d+/.exec(r.range ?? '0')?.[0]))
      expect(ranges).toHaveLength(4)
      expect(ranges).toEqual([...ranges].sort((a, b) => a - b))
      expect(ranges[3]).toBeGreaterThan(2_000_000)

      const third = await open()
      proxy.plan(first('GET', 'flip'))
      await third.localFile('files/cut', file)
      const fourth = await open()
      proxy.plan((r) => (r.method === 'GET' ? 'flip' : null))
      await expect(fourth.localFile('files/cut', file)).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
    })
  })

  describe('publishFile', () => {
    it.each([1_000_000, 2 * PART + 12_345])(
      'publishes %i bytes through any faults, whole or not at all',
      async (size) => {
        const content = Buffer.alloc(size, 'water ')
        for (let seed = 1; seed <= 6; seed++) {
          const key = `published/${size}/${seed}`
          const store = await open()
          const path = await store.scratch('.parquet')
          await writeFile(path, content)
          proxy.plan(seededFaults(seed, 0.35, ANY))
          let done = false
          const publishing = store.publishFile(path, key).finally(() => {
            done = true
          })
          // Whoever looks meanwhile sees nothing, or all of it.
          const looker = await bucket.open({ probe: false })
          opened.push(looker)
          while (!done) {
            const [found] = await looker.list(`published/${size}/${seed}`.slice(0, -1)).catch(() => [])
            if (found) expect(found.size).toBe(size)
            const seen = await looker.get(key)
            if (seen !== null) expect(seen.length).toBe(size)
          }
          const file = await publishing
          proxy.plan(noFaults)
          expect(file.size).toBe(size)
          await looker.localFile(key, file)
        }
        const { Uploads = [] } = await bucket.s3.client.send(
          new bucket.s3.sdk.ListMultipartUploadsCommand({ Bucket: bucket.options.bucket }),
        )
        // Only where the answer to the beginning of an upload was lost; those are aborted a day later.
        const lost = proxy.seen.filter((r) => r.method === 'POST' && r.query.startsWith('uploads') && r.fault !== null)
        expect(Uploads.length).toBeLessThanOrEqual(lost.length)
      },
    )

    it('names no file whose upload did not arrive as it was', async () => {
      const store = await open({ deadlineMs: 300 })
      const path = await store.scratch('.parquet')
      await writeFile(path, 'z'.repeat(1000))
      // The write is answered, and the store has nothing.
      proxy.plan((r) => (r.method === 'PUT' ? 200 : null))
      await expect(store.publishFile(path, 'files/unsent')).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
    })
  })

  it('is not opened when the store overwrites in spite of the condition', async () => {
    let puts = 0
    proxy.plan((r) => (r.method === 'PUT' && ++puts === 2 ? 200 : null))
    await expect(open({ probe: true })).rejects.toMatchObject({ code: 'WEIR_LAKE_STORE' })
    proxy.plan(noFaults)
    await expect(open({ probe: true })).resolves.toBeDefined()
    await expect(open({ probe: true, bucket: 'weir-no-such-bucket' })).rejects.toMatchObject({
      code: 'WEIR_LAKE_ACCESS',
      next: expect.stringContaining('create the bucket'),
    })
  })
})
