/** Shards of a recompute on two machines: they share Redis and an S3 store, and no folder. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { openBullMqShardRunner } from '../../batch-layer/bullmq-shard-runner.ts'
import { openBullMqShardWorker } from '../../batch-layer/bullmq-shard-worker.ts'
import { extend } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { decodeJob, runShard } from '../../batch-layer/shard.ts'
import { verify } from '../../batch-layer/verify.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { type TestBucket, testBucket } from '../lake/s3-support.ts'
import { rng } from '../support/orders.ts'
import { service } from '../support/services.ts'
import { newPrefix, removeKeys } from './bullmq-support.ts'
import { byHour, openWorld, type World } from './support.ts'

const endpoint = service('S3_ENDPOINT')
const url = service('REDIS_URL')

describe.skipIf(endpoint === null || url === null)('recompute on two machines', () => {
  const connection = { url: url! }
  const prefix = newPrefix()
  let bucket: TestBucket
  let w: World
  let engine: Engine
  const closers: { close(): Promise<void> }[] = []
  beforeAll(async () => {
    bucket = await testBucket(endpoint!)
  })
  afterAll(() => bucket?.remove())
  beforeEach(async () => {
    w = await openWorld({ store: await bucket.open(), views: [byHour] })
    engine = await openEngine({ tempDir: await bucket.folder() })
    await adoptViews(w.ctx, w.views)
  })
  afterEach(async () => {
    for (const one of closers.reverse()) await one.close()
    await engine.close()
    await w.close()
    await w.store.close()
    await removeKeys(connection, prefix)
  })

  it('hands every file over by its key', async () => {
    const random = rng(5)
    for (let i = 0; i < 2; i++) {
      await w.append(random, 10)
      await w.speedUp()
      expect((await extend(w.ctx, byHour)).outcome).toBe('published')
    }
    const common = { connection, prefix, engineVersion: w.engine.version }
    // The other machine: an engine, a cache folder and a store of its own.
    const elsewhere = await bucket.open()
    closers.push(elsewhere)
    const ran: string[] = []
    closers.push(
      await openBullMqShardWorker({
        ...common,
        run: async (encoded, { signal }) => {
          ran.push(decodeJob(encoded).kind)
          await runShard({ store: elsewhere, engine, now: () => w.now, signal }, decodeJob(encoded))
        },
      }),
    )
    const runner = await openBullMqShardRunner({ ...common, store: w.store })
    closers.push(runner)
    const ctx = w.other((c) => ({ ...c, runWorker: runner.run }))
    const done = await recompute(ctx, byHour, { shardBytes: 1 })
    expect(done).toMatchObject({ outcome: 'published', differing: 0 })
    expect(done.cells).toBeGreaterThan(10)
    expect(ran).toHaveLength(done.shards)
    expect(await verify(ctx, byHour)).toMatchObject({ differing: 0 })
    expect(w.alarms).toEqual([])
  })
})
