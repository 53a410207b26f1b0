/** Redis goes away under a batch process and comes back, with what it had or with nothing. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openBullMqBoard } from '../../batch-layer/bullmq-board.ts'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { openBullMqShardRunner } from '../../batch-layer/bullmq-shard-runner.ts'
import { openBullMqShardWorker } from '../../batch-layer/bullmq-shard-worker.ts'
import type { Scheduler } from '../../model/ports/scheduler.ts'
import { openRedisServer, type RedisServer } from '../speed-layer/redis-server.ts'
import { memoryObjects } from '../support/memory-object-store.ts'
import { service } from '../support/services.ts'
import { until } from './bullmq-support.ts'

describe.skipIf(service('REDIS_URL') === null)('BullMQ scheduler, Redis away', () => {
  let server: RedisServer
  let scheduler: Scheduler
  let calls: { view: string; signal: AbortSignal; end(): void }[] = []
  beforeEach(async () => {
    calls = []
    server = await openRedisServer()
    scheduler = await openBullMqScheduler({
      connection: { url: server.url },
      work: true,
      healMs: 300,
      drainMs: 500,
      alarm: () => undefined,
      runner: ({ view }, { signal }) =>
        new Promise((resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
          calls.push({ view, signal, end: () => resolve({ view }) })
        }),
    })
  })
  afterEach(async () => {
    await scheduler.close()
    await server.remove()
  })
  const started = (n: number) => until(async () => calls.length >= n, `start ${n}`)
  const done = (id: string) => until(async () => (await scheduler.job(id))?.state === 'done', `the end of ${id}`)

  it('keeps what ended meanwhile, runs nothing twice, and says that it cannot be asked', async () => {
    const a = await scheduler.submit({ view: 'a', action: 'extend' })
    await started(1)
    const b = await scheduler.submit({ view: 'a', action: 'extend' })
    await server.kill()
    calls[0]!.end()
    await expect(scheduler.submit({ view: 'x', action: 'extend' })).rejects.toMatchObject({ code: 'WEIR_BATCH_REDIS' })
    await server.start('kept')
    await done(a)
    await started(2)
    calls[1]!.end()
    await done(b)
    expect(calls).toHaveLength(2)
  })

  it('begins anew with one that lost everything', async () => {
    await scheduler.schedule('often', 'every 1 seconds', 'UTC', () => [{ view: 'v', action: 'extend' }])
    await started(1)
    await server.start('none')
    await until(async () => calls[0]!.signal.aborted, 'the stop')
    await started(2)
    const [job] = await scheduler.jobs(1)
    calls[1]!.end()
    await done(job!.id)
  })

  it('closes in time while it is away', async () => {
    const common = { connection: { url: server.url }, engineVersion: '1', drainMs: 500, alarm: () => undefined }
    const objects = await memoryObjects()
    const others = [
      await openBullMqShardRunner({ ...common, store: objects.open() }),
      await openBullMqShardWorker({ ...common, run: async () => null }),
      await openBullMqBoard(common),
    ]
    await scheduler.submit({ view: 'a', action: 'extend' })
    await started(1)
    await server.kill()
    await scheduler.close()
    for (const one of others) await one.close()
    await objects.remove()
  }, 20_000)
})
