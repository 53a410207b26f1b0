/**
 * The jobs that a worker of BullMQ runs in this process. Invariant: each is told to stop when it was cancelled from anywhere, when it is
 * no longer this process' (its lock was lost, its record is gone), and when the process closes; it is told once, and why is kept.
 */
import type { Job, Worker } from 'bullmq'
import { answers, type RedisClient } from './bullmq-connection.ts'
import { cancelled, refused, within } from './scheduling.ts'

export type Stop = 'cancelled' | 'lost' | 'closing'
export type Ran<T> = { result: T } | { error: unknown; why: Stop | null }
export type RunContext = { signal: AbortSignal; progress(fraction: number): void }

export type RunningJobs = {
  /** Does the work; never rejects. */
  run<T>(job: Job, from: number, work: (context: RunContext) => Promise<T>): Promise<Ran<T>>
  /** Takes no more; what runs may end within the time, then is told to stop and may end within it again. */
  close(drainMs: number): Promise<void>
}

/** How often a job may lose its process before it counts as what ends them. */
export const STALLED_COUNT = 3
/** How often a running job is looked up, to see that it was cancelled. */
const LOOK_MS = 500
const PROGRESS_MS = 100

/**
 * Options of every worker. A job whose process died is taken over when its lock is out and somebody looks: looking three times
 * as often as locks last makes that 40 s at most instead of 60. BullMQ's own pause of 15 s after a failed fetch would make a short
 * absence of Redis a long one.
 */
export const workerOptions = (lockMs: number) => ({
  lockDuration: lockMs,
  stalledInterval: Math.ceil(lockMs / 3),
  maxStalledCount: STALLED_COUNT,
  runRetryDelay: 1_000,
})

/** `client`: the worker's; `look` tells what has become of a job meanwhile. */
export const openRunning = (
  worker: Worker,
  client: RedisClient,
  look: (id: string) => Promise<'cancelled' | 'gone' | 'fine'>,
  alarm: (error: unknown) => void,
): RunningJobs => {
  const running = new Map<string, { stop(why: Stop): void; ended: Promise<void> }>()
  worker.on('error', alarm)
  worker.on('lockRenewalFailed', (ids) => {
    for (const id of ids) running.get(id)?.stop('lost')
  })
  const left = (): Promise<unknown> => Promise.all([...running.values()].map((r) => r.ended))

  return {
    run: async (job, from, work) => {
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
      const check = async (): Promise<void> => {
        const now = await look(job.id!)
        if (now !== 'fine') stop(now === 'gone' ? 'lost' : 'cancelled')
      }
      const looking = setInterval(() => void check().catch(alarm), LOOK_MS)
      const progress = reporter((fraction) => job.updateProgress(fraction), from, alarm)
      try {
        return { result: await work({ signal: abort.signal, progress: progress.report }) }
      } catch (error) {
        return { error, why }
      } finally {
        clearInterval(looking)
        await progress.stop()
        running.delete(job.id!)
        end()
      }
    },
    close: async (drainMs) => {
      await worker.pause(true)
      let isIdle = await within(left(), drainMs)
      if (!isIdle) {
        for (const one of running.values()) one.stop('closing')
        isIdle = await within(left(), drainMs)
      }
      if (!isIdle)
        alarm(refused('A job did not stop when it was told to.', 'another process runs it again; nothing is half-done'))
      await worker.close(!isIdle || !(await answers(client)))
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
