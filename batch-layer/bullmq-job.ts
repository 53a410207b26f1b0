/**
 * What BullMQ keeps of a job, and the job record that people are shown. Invariant: each field of a kept job has one writer: `data` whoever
 * submits or cancels, `progress` the worker that runs it; so no writer loses what another wrote.
 */
import type { Job as Kept, Queue } from 'bullmq'
import type { Job, JobRequest } from '../model/ports/scheduler.ts'
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

/** Of a job that failed: how far it came, and why it did not go on. A running job has a number. */
type Failure = { fraction: number; error: NonNullable<Job['error']> }

export const newId = (request: JobRequest): string => `${kindOf(request)}-${crypto.randomUUID()}`
/** The queue that a job id belongs to; null if it is none of ours. */
export const kindOfId = (id: string): LaneKind | null =>
  (/^(short|long)-[\da-f-]{36}$/.exec(id)?.[1] ?? null) as LaneKind

export const fractionOf = ({ progress }: KeptJob): number =>
  typeof progress === 'number' ? progress : ((progress as Partial<Failure> | null)?.fraction ?? 0)

export const failed = (job: KeptJob, error: unknown): Failure => ({
  fraction: fractionOf(job),
  error: failureOf(error),
})

const iso = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : new Date(ms).toISOString())

/** `isRunning`: an active job that has its lane; without it, it is about to wait for the lane. */
export const shown = (kept: KeptJob, state: string, isRunning: boolean): Job => {
  const { request, cancelledAt } = kept.data
  const job: Job = {
    id: kept.id!,
    view: request.view,
    action: request.action,
    state: 'queued',
    progress: fractionOf(kept),
  }
  const startedAt = iso(kept.processedOn)
  const began = startedAt === undefined ? {} : { startedAt }
  if (state === 'active' && isRunning) return { ...job, ...began, state: 'running' }
  if (state === 'completed')
    return { ...job, ...began, state: 'done', progress: 1, finishedAt: iso(kept.finishedOn)!, result: kept.returnvalue }
  if (state === 'failed') {
    const error = (kept.progress as Partial<Failure> | null)?.error ?? {
      code: 'WEIR_BATCH_STALLED',
      message: `The processes that ran the job ended (${kept.failedReason}).`,
      next: 'look for what ended them (memory, a full disk); then submit it again',
    }
    return { ...job, ...began, state: 'failed', finishedAt: iso(kept.finishedOn)!, error }
  }
  if (cancelledAt !== undefined)
    return { ...job, state: 'failed', finishedAt: cancelledAt, error: failureOf(cancelled()) }
  return job
}
