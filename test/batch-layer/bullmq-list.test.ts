/** What a list of all jobs asks of Redis: records of ended jobs are read once. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import type { Scheduler } from '../../model/ports/scheduler.ts'
import { openRedisServer, type RedisServer } from '../speed-layer/redis-server.ts'
import { service } from '../support/services.ts'
import { until } from './bullmq-support.ts'

describe.skipIf(service('REDIS_URL') === null)('the list of jobs over BullMQ', () => {
  let server: RedisServer
  const opened: Scheduler[] = []
  beforeEach(async () => {
    server = await openRedisServer()
  })
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close()
    await server.remove()
  })
  const open = async (work: boolean): Promise<Scheduler> => {
    const scheduler = await openBullMqScheduler({
      connection: { url: server.url },
      work,
      keep: 10,
      attempts: 1,
      concurrent: 4,
      runner: async ({ view }) => {
        if (view.startsWith('bad')) throw new Error(view)
        return { view }
      },
    })
    opened.push(scheduler)
    return scheduler
  }
  const reads = async (): Promise<number> =>
    Number(/cmdstat_hgetall:calls=(\d+)/.exec(await server.client.info('commandstats'))?.[1] ?? 0)

  it('reads each ended one once, and tells what became of the others', async () => {
    const worker = await open(true)
    for (let i = 0; i < 15; i++) await worker.submit({ view: `${i % 3 ? 'good' : 'bad'}-${i}`, action: 'extend' })
    await worker.submit({ view: 'good-night', action: 'recompute' })
    await until(
      async () => (await worker.jobs(100)).every((j) => j.state === 'done' || j.state === 'failed'),
      'the end',
    )
    await worker.close()
    const looker = await open(false)
    const first = await looker.jobs(100)
    expect(first).toHaveLength(16)
    expect(first.map((j) => j.state).filter((s) => s === 'failed')).toHaveLength(5)
    const waiting = await looker.submit({ view: 'good-later', action: 'extend' })
    const before = await reads()
    const again = await looker.jobs(100)
    expect(again[0]).toMatchObject({ id: waiting, state: 'queued' })
    expect(again.slice(1)).toEqual(first)
    // The one that waits, and no other.
    expect((await reads()) - before).toBe(1)
    const other = await open(true)
    await until(async () => (await looker.job(waiting))?.state === 'done', 'the last one')
    for (const limit of [1, 100]) expect((await looker.jobs(limit))[0]).toEqual((await other.jobs(limit))[0])
    // One over what Redis keeps is gone here too.
    expect((await looker.jobs(100)).map((j) => j.id)).toEqual((await other.jobs(100)).map((j) => j.id))
  })
})
