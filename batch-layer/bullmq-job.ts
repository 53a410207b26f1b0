/**
 * What BullMQ keeps of a job, and the job record that people are shown. Invariant: each field of a kept job has one writer: `data` whoever
 * submits or cancels, `progress` the worker that runs it; so no writer loses what another wrote.
 */
import type { Job as Kept, Queue } from 'bullmq'
import { WeirError } from '../model/errors.ts'
import type { Job, JobRequest } from '../model/ports/scheduler.ts'
import type { Stop } from './bullmq-running.ts'
import { cancelled, failureOf, kindOf, type LaneKind } from './scheduling.ts'

export type JobData = {
  formatVersion: 1
  request: JobRequest
  /** Place among all jobs by the time of submission, µs; only for showing the newest first. */
  order: number
  /** Set by whoever cancels; the job ends when a worker sees it. ISO time. */
  cancelledAt?: string
}
export type JobResult = Record<string, unknown>
export type JobQueue = Queue<JobData, JobResult, string, JobData, JobResult, string>
export type KeptJob = Kept<JobData, JobResult>
export type JobQueues = Record<LaneKind, JobQueue>

export const newId = (request: JobRequest): string => `${kindOf(request)}-${crypto.randomUUID()}`
/** The queue that a job id belongs to; null if it is none of ours. */
export const kindOfId = (id: string): LaneKind | null =>
  (/^(short|long)-[\da-f-]{36}$/.exec(id)?.[1] as LaneKind | undefined) ?? null

/** Of a job that failed: how far it came, and why it did not go on. Of one that runs, `progress` is a number. */
type Failure = { fraction: number; error: NonNullable<Job['error']>; isRetryable: boolean }

export const fractionOf = ({ progress }: Pick<Kept, 'progress'>): number =>
  typeof progress === 'number' ? progress : ((progress as Partial<Failure> | null)?.fraction ?? 0)

/** What a failed job died of. Without a word from its worker, that one was ended. */
export const failureOfKept = (kept: Pick<Kept, 'progress' | 'failedReason'>): Omit<Failure, 'fraction'> => {
  const { error, isRetryable } = (kept.progress ?? {}) as Partial<Failure>
  return error !== undefined
    ? { error, isRetryable: isRetryable === true }
    : {
        isRetryable: true,
        error: {
          code: 'WEIR_BATCH_STALLED',
          message: `The processes that ran the job ended (${kept.failedReason}).`,
          next: 'look for what ended them (memory, a full disk); then submit it again',
        },
      }
}

export type Errors = Pick<typeof import('bullmq'), 'DelayedError' | 'UnrecoverableError' | 'WaitingError'>

/** What a worker does with a job that did not come to its end: back to the queue, another try, or failed. Always throws. */
export const failed = async (
  { UnrecoverableError, WaitingError }: Errors,
  job: Kept,
  token: string,
  { error: thrown, why }: { error: unknown; why: Stop | null },
): Promise<never> => {
  if (why === 'closing') {
    await job.moveToWait(token)
    throw new WaitingError()
  }
  // Whoever has the job now writes its record; BullMQ lets us change nothing without the lock.
  if (why === 'lost') throw new UnrecoverableError('another process has the job')
  const error = why === 'cancelled' ? cancelled(thrown) : thrown
  const isRetryable = error instanceof WeirError && error.retryable === true
  const failure: Failure = { fraction: fractionOf(job), error: failureOf(error), isRetryable }
  await job.updateProgress(failure)
  const { message } = failure.error
  throw isRetryable && why !== 'cancelled' ? new Error(message, { cause: error }) : new UnrecoverableError(message)
}

const iso = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : new Date(ms).toISOString())

/** `isRunning`: an active job that has its lane; without it, it is about to wait for the lane. */
export const shown = (kept: KeptJob, state: string, isRunning: boolean): Job => {
  const { request, cancelledAt } = kept.data
  const { view, action } = request
  const job: Job = { id: kept.id!, view, action, state: 'queued', progress: fractionOf(kept) }
  const startedAt = iso(kept.processedOn)
  const began = startedAt === undefined ? {} : { startedAt }
  const ended = { ...began, finishedAt: iso(kept.finishedOn)! }
  if (state === 'active' && isRunning) return { ...job, ...began, state: 'running' }
  if (state === 'completed') return { ...job, ...ended, state: 'done', progress: 1, result: kept.returnvalue }
  if (state === 'failed') return { ...job, ...ended, state: 'failed', error: failureOfKept(kept).error }
  if (cancelledAt !== undefined)
    return { ...job, state: 'failed', finishedAt: cancelledAt, error: failureOf(cancelled()) }
  return job
}
