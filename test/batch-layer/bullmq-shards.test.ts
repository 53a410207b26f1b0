/** Recomputes whose shards run on several processes over BullMQ, and jobs that run twice at once: the published cells equal plain SQL. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { connect, shardQueue } from '../../batch-layer/bullmq-connection.ts'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { openBullMqShardRunner, type ShardRunnerOptions } from '../../batch-layer/bullmq-shard-runner.ts'
import { openBullMqShardWorker, type ShardWorkerOptions } from '../../batch-layer/bullmq-shard-worker.ts'
import { extend } from '../../batch-layer/extend.ts'
import { findJobs } from '../../batch-layer/job-record.ts'
import { createJobRunner } from '../../batch-layer/jobs.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { decodeJob, runShard, type WorkerRunner } from '../../batch-layer/shard.ts'
import { WeirError } from '../../model/errors.ts'
import type { JobAction, Scheduler } from '../../model/ports/scheduler.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import { rng } from '../support/orders.ts'
import { newPrefix, removeKeys, SERVERS, startChild, until } from './bullmq-support.ts'
import { byHour, openWorld, type TestView, type World } from './support.ts'

for (const { name, connection } of SERVERS)
  describe.skipIf(connection === null)(`recompute over BullMQ, ${name}`, () => {
    const server = connection as RedisPlace
    let w: World
    let prefix = ''
    let closers: { close(): Promise<void> }[] = []
    let random = rng(0)
    /** Who ran which shard. */
    let ran: { by: string; recordKey: string }[] = []
    beforeEach(async () => {
      prefix = newPrefix()
      closers = []
      ran = []
      random = rng(41)
      w = await openWorld()
      await adoptViews(w.ctx, w.views)
    })
    afterEach(async () => {
      for (const one of closers.reverse()) await one.close()
      await removeKeys(server, prefix)
      await w.close()
    })
    const grow = async (rounds: number): Promise<void> => {
      for (let i = 0; i < rounds; i++) {
        await w.append(random, 10)
        await w.speedUp()
        for (const view of w.views) expect((await extend(w.ctx, view)).outcome).toBe('published')
      }
    }
    const exact = async (view: TestView): Promise<void> => {
      const pointer = await w.published(view)
      expect([view.name, await w.differing(view, pointer, pointer.cut)]).toEqual([view.name, 0])
    }
    const common = () => ({
      connection: server,
      prefix,
      engineVersion: w.engine.version,
      alarm: (error: unknown) => w.alarms.push(error as World['alarms'][number]),
    })
    const worker = async (by: string, run?: ShardWorkerOptions['run'], more: Partial<ShardWorkerOptions> = {}) => {
      const own = w.objects.open()
      const opened = await openBullMqShardWorker({
        ...common(),
        run: async (encoded, context) => {
          ran.push({ by, recordKey: decodeJob(encoded).recordKey })
          return run
            ? run(encoded, context)
            : runShard({ store: own, engine: w.engine, now: () => w.now, signal: context.signal }, decodeJob(encoded))
        },
        ...more,
      })
      closers.push(opened)
      return opened
    }
    const runner = async (more: Partial<ShardRunnerOptions> = {}): Promise<WorkerRunner> => {
      const opened = await openBullMqShardRunner({ ...common(), store: w.objects.open(), backoffMs: 20, ...more })
      closers.push(opened)
      return opened.run
    }
    /** In shards of one file each; merges are small and run in the asking process, as everywhere. */
    const recomputed = (runWorker: WorkerRunner, signal?: AbortSignal) =>
      recompute(
        w.other((c) => ({ ...c, runWorker })),
        byHour,
        { shardBytes: 1, signal },
      )

    it('spreads shards over the processes, and little goes through Redis', async () => {
      await grow(3)
      const client = await connect(server, 'calls', () => undefined)
      let most = 0
      const measured = async (encoded: string, { signal }: { signal: AbortSignal }) => {
        const id = (await client.lrange(`${prefix}:${shardQueue(w.engine.version)}:active`, 0, 0))[0]
        const kept = await client.hgetall(`${prefix}:${shardQueue(w.engine.version)}:${id}`)
        most = Math.max(most, JSON.stringify(kept).length)
        return runShard({ store: w.objects.open(), engine: w.engine, now: () => w.now, signal }, decodeJob(encoded))
      }
      try {
        for (const by of ['a', 'b']) await worker(by, measured)
        const seen: number[] = []
        const run = await runner()
        const counted: WorkerRunner = (jobs, context) =>
          run(jobs, { ...context, onProgress: (done, total) => seen.push(done / total) })
        const done = await recomputed(counted)
        expect(done).toMatchObject({ outcome: 'published', differing: 0, resumed: false })
        expect(done.shards).toBeGreaterThan(3)
        expect(seen).toEqual(Array.from({ length: done.shards }, (_, n) => (n + 1) / done.shards))
        expect(new Set(ran.map((r) => r.by))).toEqual(new Set(['a', 'b']))
        expect(new Set(ran.map((r) => r.recordKey)).size).toBe(ran.length)
        expect(most).toBeLessThan(4_000)
        await exact(byHour)
        expect(w.alarms).toEqual([])
      } finally {
        client.disconnect()
      }
    })

    it('gives the shard of a process that was killed to another one', async () => {
      await grow(2)
      const child = startChild('shards', server, prefix, w.engine.version)
      try {
        const going = recomputed(await runner())
        const taken = await until(async () => child.said[0], 'the start in the child')
        child.kill()
        await worker('b', undefined, { lockMs: 1_000 })
        expect(await going).toMatchObject({ outcome: 'published', differing: 0 })
        expect(ran.map((r) => `running ${r.recordKey}`)).toContain(taken)
        await exact(byHour)
      } finally {
        child.kill()
      }
    })

    it('goes on when the queue is lost, and a result that nobody told of counts', async () => {
      await grow(2)
      let isFirst = true
      const losing: ShardWorkerOptions['run'] = async (encoded, { signal }) => {
        const env = { store: w.objects.open(), engine: w.engine, now: () => w.now, signal }
        if (isFirst) {
          isFirst = false
          await removeKeys(server, prefix)
        }
        return runShard(env, decodeJob(encoded))
      }
      await worker('a', losing)
      expect(await recomputed(await runner({ lookMs: 200 }))).toMatchObject({ outcome: 'published', differing: 0 })
      expect(isFirst).toBe(false)
      await exact(byHour)
    })

    it('fails with what a shard failed of, tries again what may succeed, and is continued', async () => {
      await grow(2)
      const odd = (retryable: boolean) =>
        new WeirError({ code: 'WEIR_TEST_ODD', message: 'odd', next: 'try', retryable })
      let fails = true
      let tries = 0
      await worker('a', async (encoded, { signal }) => {
        if (++tries === 1) throw odd(true)
        if (fails && tries > 2) throw odd(false)
        const env = { store: w.objects.open(), engine: w.engine, now: () => w.now, signal }
        return runShard(env, decodeJob(encoded))
      })
      const run = await runner()
      await expect(recomputed(run)).rejects.toMatchObject({ code: 'WEIR_TEST_ODD', next: 'try', retryable: false })
      expect(await findJobs(w.store, byHour)).toHaveLength(1)
      fails = false
      expect(await recomputed(run)).toMatchObject({ outcome: 'published', resumed: true, differing: 0 })
      await exact(byHour)
    })

    it('stops shards when the recompute is cancelled, in time when nobody takes them', async () => {
      await grow(2)
      const abort = new AbortController()
      let stopped = 0
      await worker(
        'a',
        (_encoded, { signal }) =>
          new Promise((_resolve, reject) =>
            signal.addEventListener('abort', () => {
              stopped++
              reject(signal.reason)
            }),
          ),
      )
      const going = recomputed(await runner(), abort.signal)
      await until(async () => ran.length === 1, 'the first shard')
      abort.abort(new Error('enough'))
      await expect(going).rejects.toThrow('enough')
      await until(async () => stopped === 1, 'the stop')
      expect(ran).toHaveLength(1)

      const alone = await runner({ shardMs: 300, engineVersion: 'of another release' })
      await expect(recomputed(alone)).rejects.toMatchObject({ code: 'WEIR_BATCH_SHARD_LATE', retryable: true })
      expect(ran).toHaveLength(1)
    })

    it.each<JobAction>(['extend', 'recompute'])('%s: a job that runs twice at once is harmless', async (action) => {
      await grow(2)
      await w.append(random, 12)
      await w.speedUp()
      const client = await connect(server, 'calls', () => undefined)
      let entered = 0
      let bothIn = (): void => undefined
      const both = new Promise<void>((resolve) => {
        bothIn = resolve
      })
      const outcomes: unknown[] = []
      await worker('shards')
      const node = async (): Promise<Scheduler> => {
        const runWorker = await runner()
        const ctx = w.other((c) => ({ ...c, runWorker }))
        await ctx.versions.refresh()
        const carryOut = createJobRunner(ctx)
        const opened = await openBullMqScheduler({
          ...common(),
          lockMs: 1_500,
          work: true,
          // It never hears that it lost the job, and works on, together with the one who has it now.
          runner: async (request, { progress }) => {
            if (++entered === 2) bothIn()
            await both
            const result = await carryOut(request, { signal: new AbortController().signal, progress })
            outcomes.push(result.outcome)
            return result
          },
        })
        closers.push(opened)
        return opened
      }
      try {
        const a = await node()
        await node()
        const id = await a.submit({ view: byHour.name, action })
        await until(async () => {
          if (entered === 1) await client.del(`${prefix}:${id.slice(0, id.indexOf('-'))}:${id}:lock`)
          return entered === 2
        }, 'the second run')
        await until(async () => outcomes.length >= 2 && (await a.job(id))?.state === 'done', 'both ends')
        expect(outcomes).toContain('published')
        await exact(byHour)
        await w.append(random, 5)
        await w.speedUp()
        expect((await extend(w.ctx, byHour)).outcome).toBe('published')
        await exact(byHour)
        expect(w.alarms.map((a) => a.code)).not.toContain('WEIR_BATCH_DRIFT')
      } finally {
        client.disconnect()
      }
    })
  })
