/**
 * Scheduler in this process, with croner. Invariants: one job of a (view, action) runs at a time; equal requests that wait are one
 * job; a schedule never piles up behind a slow job; what is kept of ended jobs is bounded; close takes no more and drains; a
 * job over a whole history (recompute, verify, compact) holds up no extend, publish or roll back: they count apart.
 * Jobs live in memory: after a restart the schedules begin anew, which is harmless, since a job's work is in the stores or nowhere.
 */
import { Cron } from 'croner'
import type { Job, JobRequest, JobRunner, Scheduler } from '../model/ports/scheduler.ts'
import { cancelled, failureOf, intervalMs, keyOf, kindOf, laneOf, readable, refused, within } from './scheduling.ts'

export type CronerSchedulerOptions = {
  runner: JobRunner
  /** Jobs at a time (settings.batch.jobs), and as many over whole histories beside them. Default 1. */
  concurrent?: number
  /** Wall clock, ms; for the times that people read. */
  now?: () => number
  /** Ended jobs that are kept. Default 500. */
  keep?: number
  /** Jobs that may wait; more are refused. Default 1,000. */
  queue?: number
  /** How long `close` lets running jobs go on before it cancels them, ms. Default 5,000. */
  drainMs?: number
  /** Told of a scheduled request that could not be made. */
  alarm?(error: unknown): void
}

type Entry = { job: Job; request: JobRequest; key: string; abort: AbortController; ended: Promise<void> }
type Schedule = { stop(): void }

export const openCronerScheduler = (options: CronerSchedulerOptions): Scheduler => {
  const { runner, concurrent = 1, now = Date.now, keep = 500, queue = 1_000, drainMs = 5_000 } = options
  const alarm = options.alarm ?? ((error) => process.emitWarning(String(error), { code: 'WEIR_BATCH_SCHEDULE' }))
  const entries = new Map<string, Entry>()
  const schedules = new Map<string, Schedule>()
  let waiting: Entry[] = []
  const running = new Map<string, Entry>()
  let isOpen = true

  const time = (): string => new Date(now()).toISOString()

  const forget = (): void => {
    let over = entries.size - running.size - waiting.length - keep
    for (const [id, { job }] of entries) {
      if (over <= 0) break
      if (job.state === 'queued' || job.state === 'running') continue
      entries.delete(id)
      over--
    }
  }

  const fail = (job: Job, error: unknown): void => {
    job.state = 'failed'
    job.finishedAt = time()
    job.error = failureOf(error)
  }

  const start = (entry: Entry): void => {
    const { job, request, abort } = entry
    const lane = laneOf(request)
    running.set(lane, entry)
    job.state = 'running'
    job.startedAt = time()
    const progress = (fraction: number): void => {
      if (job.state === 'running') job.progress = Math.max(job.progress, Math.min(1, fraction))
    }
    entry.ended = (async () => {
      try {
        const result = await runner(request, { signal: abort.signal, progress })
        job.state = 'done'
        job.progress = 1
        job.result = result
        job.finishedAt = time()
      } catch (error) {
        fail(job, abort.signal.aborted ? cancelled(error) : error)
      } finally {
        running.delete(lane)
        forget()
        next()
      }
    })()
  }

  const next = (): void => {
    while (isOpen) {
      const free = { long: concurrent, short: concurrent }
      for (const { request } of running.values()) free[kindOf(request)]--
      const found = waiting.find((e) => free[kindOf(e.request)] > 0 && !running.has(laneOf(e.request)))
      if (found === undefined) return
      waiting = waiting.filter((e) => e !== found)
      start(found)
    }
  }

  const enqueue = (request: JobRequest): string => {
    if (!isOpen) throw refused('The scheduler is closed.', 'send the request again after the restart')
    const key = keyOf(request)
    const same = waiting.find((e) => e.key === key)
    if (same) return same.job.id
    if (waiting.length >= queue) throw refused(`${queue} jobs are waiting already.`, 'wait for some of them to end')
    const job: Job = {
      id: crypto.randomUUID(),
      view: request.view,
      action: request.action,
      state: 'queued',
      progress: 0,
    }
    const entry: Entry = { job, request, key, abort: new AbortController(), ended: Promise.resolve() }
    entries.set(job.id, entry)
    waiting.push(entry)
    forget()
    // Not before the caller has its id.
    queueMicrotask(next)
    return job.id
  }

  const fire = (request: () => JobRequest[]): void => {
    try {
      for (const one of request()) {
        const busy = running.has(laneOf(one)) || waiting.some((e) => e.key === keyOf(one))
        if (!busy && isOpen) enqueue(one)
      }
    } catch (error) {
      alarm(error)
    }
  }

  return {
    schedule: async (name, expression, timeZone, request) => {
      if (!isOpen) throw refused('The scheduler is closed.', 'open another one')
      const made = makeSchedule(name, expression, timeZone, () => fire(request), alarm)
      schedules.get(name)?.stop()
      schedules.set(name, made)
    },
    submit: async (request) => enqueue(request),
    job: async (id) => {
      const found = entries.get(id)
      return found ? { ...found.job } : null
    },
    jobs: async (limit) =>
      [...entries.values()]
        .reverse()
        .slice(0, Math.max(0, limit))
        .map((e) => ({ ...e.job })),
    cancel: async (id) => {
      const found = entries.get(id)
      if (found?.job.state === 'queued') {
        waiting = waiting.filter((e) => e !== found)
        fail(found.job, cancelled())
        forget()
        return true
      }
      if (found?.job.state !== 'running') return false
      found.abort.abort()
      return true
    },
    close: async () => {
      isOpen = false
      for (const one of schedules.values()) one.stop()
      schedules.clear()
      for (const entry of waiting) fail(entry.job, cancelled())
      waiting = []
      const all = [...running.values()]
      if (await within(Promise.all(all.map((e) => e.ended)), drainMs)) return
      for (const entry of all) entry.abort.abort()
      if (!(await within(Promise.all(all.map((e) => e.ended)), drainMs)))
        alarm(
          refused(
            'A job did not stop when it was cancelled.',
            'what it was doing is thrown away; nothing is half-done',
          ),
        )
    },
  }
}

/** Intervals go by a timer, which no jump of the wall clock moves; cron expressions by croner, in their zone. */
const makeSchedule = (
  name: string,
  expression: string,
  timeZone: string,
  run: () => void,
  alarm: (error: unknown) => void,
): Schedule => {
  const every = intervalMs(expression)
  if (every !== null) {
    const timer = setInterval(run, every)
    timer.unref()
    return { stop: () => clearInterval(timer) }
  }
  return readable(name, expression, timeZone, () => {
    const cron = new Cron(expression, { timezone: timeZone, unref: true, protect: true, catch: alarm }, run)
    if (cron.nextRun() === null) throw new Error('it never comes')
    return { stop: () => cron.stop() }
  })
}
