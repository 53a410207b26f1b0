/** P19: the records of a recompute that was killed are a convenience; a damaged one does not end recomputes for ever. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { extend } from '../../batch-layer/extend.ts'
import { findJobs } from '../../batch-layer/job-record.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { runShard, type WorkerRunner } from '../../batch-layer/shard.ts'
import { rng } from '../support/orders.ts'
import { byHour, openWorld, type World } from './support.ts'

let w: World
beforeEach(async () => {
  w = await openWorld({ views: [byHour] })
  await adoptViews(w.ctx, w.views)
})
afterEach(() => w.close())

it.each([
  ['jobs/recompute/', '/job.json'],
  ['jobs/recompute/', '/shard-0.json'],
  ['parts/by_hour/1111111111111111/shard-', '.parquet'],
])('damage in %s…%s', async (start, end) => {
  const random = rng(9)
  for (let i = 0; i < 2; i++) {
    await w.append(random, 10)
    await w.speedUp()
    await extend(w.ctx, byHour)
  }
  const dying: WorkerRunner = async ([job]) => {
    await runShard({ store: w.store, engine: w.engine, now: () => w.now }, job!)
    throw new Error('killed')
  }
  const killed = recompute(
    w.other((c) => ({ ...c, runWorker: dying })),
    byHour,
    { shardBytes: 1 },
  )
  await expect(killed).rejects.toThrow('killed')
  const { key } = (await w.store.list('')).find((o) => o.key.startsWith(start) && o.key.endsWith(end))!
  const bytes = Buffer.from((await w.store.get(key))!)
  bytes[30]! ^= 1
  await w.store.delete(key)
  await w.store.putIfAbsent(key, bytes)
  expect(await recompute(w.ctx, byHour)).toMatchObject({ outcome: 'published', resumed: false, differing: 0 })
  expect(await findJobs(w.store, byHour)).toEqual([])
})
