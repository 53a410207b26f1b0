/** Several processes on one BullMQ: what the scheduler's contract does not see, for it has one process. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect } from '../../batch-layer/bullmq-connection.ts'
import { shown } from '../../batch-layer/bullmq-job.ts'
import { type BullMqSchedulerOptions, openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { WeirError } from '../../model/errors.ts'
import type { Job, JobRequest, Scheduler } from '../../model/ports/scheduler.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import { newPrefix, removeKeys, SERVERS, startChild, until } from './bullmq-support.ts'

const extend = (view: string): JobRequest => ({ view, action: 'extend' })
const odd = (retryable: boolean): WeirError =>
  new WeirError({ code: 'WEIR_TEST_ODD', message: 'odd', next: 'try', retryable })

type Call = { node: string; view: string; signal: AbortSignal; end(): void; fail(error: unknown): void }

for (const { name, connection } of SERVERS)
  describe.skipIf(connection === null)(`BullMQ scheduler, several processes, ${name}`, () => {
    const server = connection as RedisPlace
    let prefix = ''
    let opened: Scheduler[] = []
    let calls: Call[] = []
    let alarms: unknown[] = []
    beforeEach(() => {
      prefix = newPrefix()
      opened = []
      calls = []
      alarms = []
    })
    afterEach(async () => {
      for (const call of calls) call.end()
      await Promise.all(opened.map((s) => s.close()))
      await removeKeys(server, prefix)
    })
    const node = async (named: string, options: Partial<BullMqSchedulerOptions> = {}): Promise<Scheduler> => {
      const scheduler = await openBullMqScheduler({
        connection: server,
        prefix,
        work: true,
        backoffMs: 20,
        alarm: (error) => alarms.push(error),
        runner: ({ view }, { signal }) =>
          new Promise((resolve, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason), { once: true })
            calls.push({ node: named, view, signal, end: () => resolve({ by: named }), fail: reject })
          }),
        ...options,
      })
      opened.push(scheduler)
      return scheduler
    }
    const inState = (s: Scheduler, id: string, state: Job['state']): Promise<Job> =>
      until(async () => {
        const job = await s.job(id)
        return job?.state === state && job
      }, `${state} of ${id}`)
    const started = (n: number) => until(async () => calls.length >= n, `start ${n}`)

    it('spreads jobs over the processes, and keeps one job of a view and action at a time', async () => {
      const [a, b] = [await node('a'), await node('b')]
      const looker = await node('c', { work: false })
      const ids = [await looker.submit(extend('v')), await looker.submit(extend('w'))]
      await started(2)
      expect(calls.map((c) => c.node).sort()).toEqual(['a', 'b'])
      const again = await Promise.all([a, b, looker].map((s) => s.submit(extend('v'))))
      expect(new Set(again).size).toBe(1)
      expect(again[0]).not.toBe(ids[0])
      calls.find((c) => c.view === 'w')!.end()
      await inState(looker, ids[1]!, 'done')
      expect((await looker.jobs(10)).map((j) => [j.id, j.state])).toEqual([
        [again[0], 'queued'],
        [ids[1], 'done'],
        [ids[0], 'running'],
      ])
      expect(calls).toHaveLength(2)
      calls.find((c) => c.view === 'v')!.end()
      await started(3)
      expect(calls[2]!.view).toBe('v')
    })

    it('tells a running job to stop, and ends a waiting one, from another process', async () => {
      const [a, b] = [await node('a'), await node('b', { work: false })]
      const running = await b.submit(extend('v'))
      await started(1)
      const parked = await b.submit(extend('v'))
      const waiting = await b.submit(extend('w'))
      expect(await b.cancel(waiting)).toBe(true)
      expect(await b.cancel(parked)).toBe(true)
      expect(await b.cancel(parked)).toBe(false)
      // An equal request after that is a new job.
      const next = await b.submit(extend('w'))
      expect(next).not.toBe(waiting)
      expect(await b.cancel(running)).toBe(true)
      for (const id of [running, parked, waiting]) {
        const job = await inState(a, id, 'failed')
        expect([id, job.error!.code]).toEqual([id, 'WEIR_BATCH_CANCELLED'])
        expect(job.finishedAt).toBeDefined()
      }
      await started(2)
      calls[1]!.end()
      expect(await inState(b, next, 'done')).toMatchObject({ view: 'w' })
      expect(calls.map((c) => c.view)).toEqual(['v', 'w'])
    })

    it('tries again what failed retryably, elsewhere if need be, and nothing else', async () => {
      const a = await node('a', { attempts: 3 })
      const id = await a.submit(extend('v'))
      for (let n = 0; n < 2; n++) {
        await started(n + 1)
        calls[n]!.fail(odd(true))
      }
      await started(3)
      calls[2]!.end()
      expect(await inState(a, id, 'done')).toMatchObject({ result: { by: 'a' }, progress: 1 })

      const lost = await a.submit(extend('v'))
      for (let n = 3; n < 6; n++) {
        await started(n + 1)
        calls[n]!.fail(odd(true))
      }
      expect((await inState(a, lost, 'failed')).error).toEqual({ code: 'WEIR_TEST_ODD', message: 'odd', next: 'try' })

      const bad = await a.submit(extend('v'))
      await started(7)
      calls[6]!.fail(odd(false))
      expect((await inState(a, bad, 'failed')).error!.code).toBe('WEIR_TEST_ODD')
      expect(calls).toHaveLength(7)
    })

    it('gives the job of a process that was killed to another one', async () => {
      const child = startChild('jobs', server, prefix)
      try {
        const a = await node('a', { work: false })
        const id = await a.submit({ view: 'v', action: 'recompute' })
        await until(async () => child.said.includes('running v'), 'the start in the child')
        child.kill()
        const waits = await a.submit({ view: 'v', action: 'recompute' })
        const b = await node('b', { lockMs: 1_000 })
        await started(1)
        // Two of one lane are left: whichever begins, they do not run together, and both end.
        expect(calls).toHaveLength(1)
        calls[0]!.end()
        await started(2)
        calls[1]!.end()
        for (const one of [id, waits]) expect(await inState(b, one, 'done')).toMatchObject({ result: { by: 'b' } })
        expect(calls.map((c) => c.view)).toEqual(['v', 'v'])
      } finally {
        child.kill()
      }
    })

    it('stops a job whose lock was lost, and runs it again', async () => {
      const a = await node('a', { lockMs: 600 })
      const id = await a.submit(extend('v'))
      await started(1)
      const client = await connect(server, 'calls', () => undefined)
      try {
        await until(async () => {
          // As if this process had slept through it.
          await client.del(`${prefix}:short:${id}:lock`)
          return calls[0]!.signal.aborted
        }, 'the stop')
      } finally {
        client.disconnect()
      }
      await started(2)
      calls[1]!.end()
      await inState(a, id, 'done')
    })

    it('fires a schedule once, however many processes have it, and forgets what the settings no longer have', async () => {
      const [a, b] = [await node('a'), await node('b')]
      const asks: string[] = []
      for (const [s, by] of [
        [a, 'a'],
        [b, 'b'],
      ] as const)
        await s.schedule('often', 'every 1 seconds', 'UTC', () => {
          asks.push(`${by} ${Math.round(Date.now() / 1_000)}`)
          return [extend('v')]
        })
      // Known to one process only: the other leaves its ticks alone.
      let rare = 0
      await b.schedule('rare', '* * * * * *', 'Europe/Berlin', () => {
        rare++
        return []
      })
      await until(async () => asks.length >= 3 && rare >= 2, 'the ticks')
      expect(calls).toHaveLength(1)
      const instants = asks.map((ask) => ask.split(' ')[1])
      expect(new Set(instants).size).toBe(instants.length)

      const c = await node('c', { schedules: ['rare'] })
      const client = await connect(server, 'calls', () => undefined)
      try {
        expect(await client.zrange(`${prefix}:ticks:repeat`, 0, '-1')).toEqual(['rare'])
      } finally {
        client.disconnect()
      }
      await c.close()
      expect(alarms).toEqual([])
    })

    it('puts schedules back that Redis has lost, stops what it ran for nobody, and goes on', async () => {
      const a = await node('a', { healMs: 300 })
      await a.schedule('often', 'every 1 seconds', 'UTC', () => [extend('v')])
      await started(1)
      await removeKeys(server, prefix)
      expect(await until(async () => calls[0]!.signal.aborted, 'the stop')).toBe(true)
      await started(2)
      calls[1]!.end()
      await until(async () => (await a.jobs(10)).some((job) => job.state === 'done'), 'the end')
    })

    it('says that Redis cannot be reached, without a secret', async () => {
      const gone = { url: 'redis://someone:secret-word@127.0.0.1:1' }
      const error = await openBullMqScheduler({
        connection: gone,
        runner: async () => ({}),
        work: false,
        alarm: () => 0,
      })
        .then(() => null)
        .catch((e: unknown) => e as WeirError)
      expect(error).toMatchObject({ code: 'WEIR_BATCH_REDIS', retryable: true })
      expect(JSON.stringify({ ...error, message: error!.message, cause: String(error!.cause) })).not.toContain('secret')
      await expect(node('x', { prefix: 'weir' })).rejects.toMatchObject({ code: 'WEIR_BATCH_PREFIX' })
    })
  })

describe('the record of a job', () => {
  it('says so when a job lost its process too often', () => {
    const kept = { id: 'x', data: { request: extend('v') }, progress: 0.25, failedReason: 'stalled', finishedOn: 1 }
    expect(shown(kept as unknown as Parameters<typeof shown>[0], 'failed', false)).toMatchObject({
      state: 'failed',
      progress: 0.25,
      error: { code: 'WEIR_BATCH_STALLED' },
    })
  })
})
