/**
 * Carries out the jobs of one queue in this process. Invariants: a job runs only while it has its lane; a request that comes once the work
 * has begun is another job; a job is told to stop when it is cancelled from anywhere, when its lock is lost, and when this process closes:
 * then it goes back to the queue for another process.
 */
import type { Worker } from 'bullmq'
import { WeirError } from '../model/errors.ts'
import type { JobRunner } from '../model/ports/scheduler.ts'
import type { RedisClient } from './bullmq-connection.ts'
import { failed, fractionOf, type JobData, type JobQueue, type JobResult, type KeptJob } from './bullmq-job.ts'
import type { Lanes } from './bullmq-lanes.ts'
import { cancelled, laneOf, refused, within } from './scheduling.ts'

export type WorkerOptions = {
  queue: JobQueue
  lanes: Lanes
  client: RedisClient
  prefix: string
  runner: JobRunner
  concurrency: number
  lockMs: number
  alarm(error: unknown): void
}

export type JobWorker = {
  /** Takes no more; what runs may end within the time, then is told to stop and goes back to the queue. */
  close(drainMs: number): Promise<void>
}

/** How long a parked job sleeps if nobody wakes it. */
const PARKED_MS = 15_000
/** How often a running job is looked up, to see that it was cancelled. */
const LOOK_MS = 500
const PROGRESS_MS = 100
/** How often a job may lose its process before it counts as what ends them. */
export const STALLED_COUNT = 3
/** Pause after a failed fetch: BullMQ's own 15 s would make a short absence of Redis a long one. */
export const FETCH_RETRY_MS = 1_000

/** Why a running job was told to stop. */
type Stop = 'cancelled' | 'lost' | 'closing'
type Running = { stop(why: Stop): void; ended: Promise<void> }

export const openJobWorker = async (options: WorkerOptions): Promise<JobWorker> => {
  const { DelayedError, UnrecoverableError, WaitingError, Worker } = await import('bullmq')
  const { queue, lanes, runner, alarm } = options
  const running = new Map<string, Running>()
  let isClosing = false

  const wake = async (id: string | null): Promise<void> => {
    // One that is not parked yet looks once more itself; one that was cancelled is gone.
    if (id !== null) await (await queue.getJob(id))?.promote().catch(() => undefined)
  }

  /** Whether the job has its lane; else it is parked. */
  const enter = async (job: KeptJob, token: string): Promise<boolean> => {
    const lane = laneOf(job.data.request)
    const { order } = job.data
    let holder = await lanes.take(lane, job.id!, order)
    if (holder !== job.id && (await queue.getJobState(holder)) !== 'active')
      holder = await lanes.take(lane, job.id!, order, holder)
    if (holder === job.id) return true
    await job.moveToDelayed(Date.now() + PARKED_MS, token)
    if ((await lanes.holder(lane)) === null) await wake(job.id!)
    return false
  }

  /** The work itself; tells why it was stopped, if it was. */
  const carryOut = async (job: KeptJob): Promise<{ result: JobResult } | { error: unknown; why: Stop | null }> => {
    const abort = new AbortController()
    let why: Stop | null = null
    let end = (): void => undefined
    const ended = new Promise<void>((resolve) => {
      end = resolve
    })
    const stop = (reason: Stop): void => {
      why ??= reason
      abort.abort(cancelled())
    }
    running.set(job.id!, { stop, ended })
    const look = async (): Promise<void> => {
      const now = await queue.getJob(job.id!)
      if (now === undefined) stop('lost')
      else if (now.data.cancelledAt !== undefined) stop('cancelled')
    }
    const looking = setInterval(() => void look().catch(alarm), LOOK_MS)
    const progress = reporter((fraction) => job.updateProgress(fraction), fractionOf(job), alarm)
    try {
      return { result: await runner(job.data.request, { signal: abort.signal, progress: progress.report }) }
    } catch (error) {
      return { error, why }
    } finally {
      clearInterval(looking)
      await progress.stop()
      running.delete(job.id!)
      end()
    }
  }

  const processor = async (job: KeptJob, token = ''): Promise<JobResult> => {
    const fail = async (error: unknown, isFinal: boolean): Promise<never> => {
      await job.updateProgress(failed(job, error))
      const message = error instanceof Error ? error.message : String(error)
      throw isFinal ? new UnrecoverableError(message) : new Error(message, { cause: error })
    }
    if (job.data.cancelledAt !== undefined) return fail(cancelled(), true)
    if (!(await enter(job, token))) throw new DelayedError()
    try {
      await job.removeDeduplicationKey()
      const done = await carryOut(job)
      if ('result' in done) return done.result
      if (done.why === 'closing') {
        await job.moveToWait(token)
        throw new WaitingError()
      }
      if (done.why === 'cancelled') return await fail(cancelled(done.error), true)
      return await fail(done.error, !(done.error instanceof WeirError && done.error.retryable === true))
    } finally {
      await wake(await lanes.release(laneOf(job.data.request), job.id!))
    }
  }

  const worker: Worker<JobData, JobResult> = new Worker<JobData, JobResult>(queue.name, processor, {
    connection: options.client,
    prefix: options.prefix,
    concurrency: options.concurrency,
    lockDuration: options.lockMs,
    stalledInterval: options.lockMs,
    maxStalledCount: STALLED_COUNT,
    runRetryDelay: FETCH_RETRY_MS,
  })
  worker.on('error', alarm)
  worker.on('lockRenewalFailed', (ids) => {
    for (const id of ids) running.get(id)?.stop('lost')
  })
  await worker.waitUntilReady()

  return {
    close: async (drainMs) => {
      if (isClosing) return
      isClosing = true
      await worker.pause(true)
      const left = (): Promise<unknown> => Promise.all([...running.values()].map((r) => r.ended))
      let isIdle = await within(left(), drainMs)
      if (!isIdle) {
        for (const one of running.values()) one.stop('closing')
        isIdle = await within(left(), drainMs)
      }
      if (!isIdle)
        alarm(refused('A job did not stop when it was told to.', 'another process runs it again; nothing is half-done'))
      await worker.close(!isIdle)
    },
  }
}

/** Tells of progress now and then: it only grows, and the last word is never lost behind an older one. */
const reporter = (write: (fraction: number) => Promise<void>, from: number, alarm: (error: unknown) => void) => {
  let best = from
  let told = from
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> = Promise.resolve()
  const flush = (): void => {
    timer = undefined
    if (best <= told) return
    told = best
    writing = writing.then(() => write(told)).catch(alarm)
  }
  return {
    report: (fraction: number): void => {
      best = Math.max(best, Math.min(1, fraction))
      timer ??= setTimeout(flush, PROGRESS_MS)
    },
    stop: async (): Promise<void> => {
      clearTimeout(timer)
      flush()
      await writing
    },
  }
}
