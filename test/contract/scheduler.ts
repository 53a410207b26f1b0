/** What every scheduler must promise (model/ports/scheduler.ts), as a suite to run on each implementation. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WeirError } from '../../model/errors.ts'
import type { Job, JobRequest, JobRunner, Scheduler } from '../../model/ports/scheduler.ts'

export type SchedulerFixture = {
  /** Each call opens another scheduler: on the same jobs, if they are kept outside of the process. */
  open(options: { runner: JobRunner; concurrent: number; keep?: number; drainMs?: number }): Promise<Scheduler>
  /** Whether jobs outlive the scheduler that they were given to. Then closing one ends none: its jobs go to the others. */
  jobsAreKept: boolean
  remove(): Promise<void>
}

const DEADLINE_MS = 10_000
/** Looks until the condition holds; fails at the deadline. */
const until = async <T>(look: () => Promise<T | null | undefined | false>): Promise<T> => {
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    const found = await look()
    if (found) return found
    if (performance.now() > deadline) throw new Error('the condition did not come to hold')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A runner whose jobs go on until the test lets them. */
const held = () => {
  const calls: {
    request: JobRequest
    end(result?: Record<string, unknown>): void
    fail(error: unknown): void
    progress(f: number): void
  }[] = []
  let most = 0
  let live = 0
  const runner: JobRunner = (request, { signal, progress }) =>
    new Promise((resolve, reject) => {
      most = Math.max(most, ++live)
      const done =
        <A>(act: (value: A) => void) =>
        (value: A) => {
          live--
          act(value)
        }
      signal.addEventListener('abort', () => done(reject)(signal.reason), { once: true })
      calls.push({ request, end: (r = {}) => done(resolve)(r), fail: done(reject), progress })
    })
  return { runner, calls, most: () => most }
}

const extend = (view: string, options?: Record<string, unknown>): JobRequest => ({
  view,
  action: 'extend',
  ...(options ? { options } : {}),
})

export const schedulerContract = (name: string, make: () => Promise<SchedulerFixture>): void => {
  describe(`scheduler: ${name}`, () => {
    let fixture: SchedulerFixture
    let scheduler: Scheduler | undefined
    let jobs = held()
    const open = async (concurrent: number, more: { keep?: number; drainMs?: number } = {}): Promise<Scheduler> => {
      scheduler = await fixture.open({ runner: jobs.runner, concurrent, ...more })
      return scheduler
    }
    const started = (n: number) => until(async () => jobs.calls.length >= n)
    const inState = (id: string, state: Job['state']): Promise<Job> =>
      until(async () => {
        const job = await scheduler!.job(id)
        return job?.state === state && job
      })
    beforeEach(async () => {
      jobs = held()
      fixture = await make()
    })
    afterEach(async () => {
      for (const call of jobs.calls) call.end()
      await scheduler?.close()
      scheduler = undefined
      await fixture.remove()
    })

    it('runs a job, shows its progress and keeps its result', async () => {
      const s = await open(1)
      const id = await s.submit(extend('v', { a: 1 }))
      await started(1)
      expect(jobs.calls[0]!.request).toEqual(extend('v', { a: 1 }))
      expect(await inState(id, 'running')).toMatchObject({ view: 'v', action: 'extend', progress: 0 })
      jobs.calls[0]!.progress(0.5)
      jobs.calls[0]!.progress(0.25)
      await until(async () => (await s.job(id))?.progress === 0.5)
      jobs.calls[0]!.end({ generation: 7 })
      const done = await inState(id, 'done')
      expect(done).toMatchObject({ progress: 1, result: { generation: 7 } })
      expect(Date.parse(done.finishedAt!)).toBeGreaterThanOrEqual(Date.parse(done.startedAt!))
      expect(await s.job('nothing')).toBeNull()
    })

    it('keeps what went wrong, with code and next step', async () => {
      const s = await open(1)
      const ids = [await s.submit(extend('v')), await s.submit(extend('w'))]
      await started(1)
      jobs.calls[0]!.fail(new WeirError({ code: 'WEIR_BATCH_X', message: 'no', next: 'do this' }))
      expect((await inState(ids[0]!, 'failed')).error).toMatchObject({
        code: 'WEIR_BATCH_X',
        message: 'no',
        next: 'do this',
      })
      await started(2)
      jobs.calls[1]!.fail(new TypeError('odd'))
      expect((await inState(ids[1]!, 'failed')).error).toMatchObject({ message: 'odd' })
    })

    it('has one job of a view and action at a time; equal requests that wait are one', async () => {
      const s = await open(4)
      const first = await s.submit(extend('v'))
      await started(1)
      const second = await s.submit(extend('v'))
      expect(await s.submit(extend('v'))).toBe(second)
      expect(second).not.toBe(first)
      const other = await s.submit(extend('v', { speed: false }))
      expect(other).not.toBe(second)
      await s.submit({ view: 'v', action: 'verify' })
      await s.submit(extend('w'))
      await started(3)
      // The two that came later count apart: either may be first.
      expect(jobs.calls.map((c) => `${c.request.view} ${c.request.action}`).sort()).toEqual([
        'v extend',
        'v verify',
        'w extend',
      ])
      jobs.calls[0]!.end()
      await started(4)
      expect((await s.job(second))!.state).toBe('running')
      expect((await s.job(other))!.state).toBe('queued')
      jobs.calls[3]!.end()
      await started(5)
    })

    it('runs only so many at a time', async () => {
      const s = await open(2)
      const ids = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((v) => s.submit(extend(v))))
      for (let n = 0; n < ids.length; n++) {
        await started(n + 1)
        jobs.calls[n]!.end()
      }
      for (const id of ids) await inState(id, 'done')
      expect(jobs.most()).toBeLessThanOrEqual(2)
    })

    it('lets no job over a whole history hold up an extend, nor the other way round', async () => {
      const s = await open(1)
      await s.submit({ view: 'a', action: 'recompute' })
      await started(1)
      const second = await s.submit({ view: 'b', action: 'recompute' })
      await s.submit(extend('a'))
      await started(2)
      const waits = await s.submit({ view: 'a', action: 'rollback', options: { generation: 1 } })
      expect(jobs.calls.map((c) => c.request.action)).toEqual(['recompute', 'extend'])
      expect([(await s.job(second))!.state, (await s.job(waits))!.state]).toEqual(['queued', 'queued'])
      jobs.calls[1]!.end()
      await started(3)
      expect(jobs.calls[2]!.request.action).toBe('rollback')
      jobs.calls[0]!.end()
      await started(4)
    })

    it('cancels waiting and running jobs', async () => {
      const s = await open(1)
      const [a, b] = [await s.submit(extend('a')), await s.submit(extend('b'))]
      await started(1)
      expect(await s.cancel(b)).toBe(true)
      expect((await inState(b, 'failed')).error!.code).toBe('WEIR_BATCH_CANCELLED')
      expect(await s.cancel(a)).toBe(true)
      expect((await inState(a, 'failed')).error!.code).toBe('WEIR_BATCH_CANCELLED')
      expect(await s.cancel(a)).toBe(false)
      expect(await s.cancel('nothing')).toBe(false)
      expect(jobs.calls).toHaveLength(1)
    })

    it('lists newest first, and keeps a bounded number of ended jobs', async () => {
      const s = await open(1, { keep: 3 })
      const ids: string[] = []
      for (let n = 0; n < 6; n++) {
        ids.push(await s.submit(extend(`v${n}`)))
        await started(n + 1)
        jobs.calls[n]!.end()
        await inState(ids[n]!, 'done')
      }
      expect((await s.jobs(2)).map((j) => j.id)).toEqual([ids[5], ids[4]])
      expect((await s.jobs(100)).map((j) => j.id)).toEqual([ids[5], ids[4], ids[3]])
      expect(await s.job(ids[0]!)).toBeNull()
    })

    it('fires intervals and cron expressions, without piling up behind a slow job', async () => {
      const s = await open(4)
      let asked = 0
      await s.schedule('often', 'every 1 seconds', 'UTC', () => {
        asked++
        return [extend('slow')]
      })
      await s.schedule('cron', '* * * * * *', 'Europe/Berlin', () => [{ view: 'cron', action: 'verify' }])
      await until(async () => asked >= 2 && jobs.calls.length >= 2)
      expect(jobs.calls.filter((c) => c.request.view === 'slow')).toHaveLength(1)
      expect(jobs.calls.filter((c) => c.request.view === 'cron')).toHaveLength(1)
      expect(await s.jobs(10)).toHaveLength(2)
      // The same name again replaces the schedule.
      await s.schedule('often', 'every 9 hours', 'UTC', () => [extend('never')])
      await s.schedule('cron', '0 0 1 1 *', 'UTC', () => [])
      for (const call of jobs.calls) call.end()
    })

    it('refuses expressions and zones that mean nothing', async () => {
      const s = await open(1)
      for (const [expression, zone] of [
        ['sometimes', 'UTC'],
        ['every 0 seconds', 'UTC'],
        ['61 * * * *', 'UTC'],
        ['15 3 * * *', 'Mars/Olympus'],
        ['0 0 31 2 *', 'UTC'],
      ] as const)
        await expect(s.schedule('x', expression, zone, () => [])).rejects.toMatchObject({
          code: 'WEIR_BATCH_EXPRESSION',
        })
    })

    it('close takes no more, lets running jobs end, and stops those that do not', async () => {
      const s = await open(1, { drainMs: 100 })
      const a = await s.submit(extend('a'))
      const b = await s.submit(extend('b'))
      await started(1)
      const closing = s.close()
      await expect(s.submit(extend('c'))).rejects.toMatchObject({ code: 'WEIR_BATCH_BUSY' })
      await closing
      expect(jobs.calls).toHaveLength(1)
      if (fixture.jobsAreKept) {
        // Stopped, not ended: another process runs it again, and then the one that waited.
        jobs = held()
        await open(1)
        for (const [n, id] of [a, b].entries()) {
          await started(n + 1)
          jobs.calls[n]!.end({ n })
          expect(await inState(id, 'done')).toMatchObject({ result: { n } })
        }
        expect(jobs.calls.map((c) => c.request.view)).toEqual(['a', 'b'])
        await scheduler!.close()
      } else for (const id of [a, b]) expect((await s.job(id))!.error!.code).toBe('WEIR_BATCH_CANCELLED')

      jobs = held()
      const t = await open(1)
      const id = await t.submit(extend('a'))
      await started(1)
      const ending = t.close()
      jobs.calls[0]!.end({ fine: true })
      await ending
      if (fixture.jobsAreKept) await open(1)
      expect(await scheduler!.job(id)).toMatchObject({ state: 'done', result: { fine: true } })
    })
  })
}
