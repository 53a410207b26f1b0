/**
 * Carries out the jobs of one queue in this process. Invariants: a job runs only while it has its lane; a request that comes once the work
 * has begun is another job; what this process could not end when it closed goes back to the queue, for another one.
 */
import type { JobRunner } from '../model/ports/scheduler.ts'
import type { RedisClient } from './bullmq-connection.ts'
import {
  type Errors,
  failed,
  fractionOf,
  type JobData,
  type JobQueue,
  type JobResult,
  type KeptJob,
} from './bullmq-job.ts'
import type { Lanes } from './bullmq-lanes.ts'
import { openRunning, type RunningJobs, workerOptions } from './bullmq-running.ts'
import { cancelled, laneOf } from './scheduling.ts'

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

/** How long a parked job sleeps if nobody wakes it. */
const PARKED_MS = 15_000

export const openJobWorker = async (options: WorkerOptions): Promise<Pick<RunningJobs, 'close'>> => {
  const { DelayedError, UnrecoverableError, WaitingError, Worker } = await import('bullmq')
  const errors: Errors = { DelayedError, UnrecoverableError, WaitingError }
  const { queue, lanes, runner } = options

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

  const processor = async (job: KeptJob, token = ''): Promise<JobResult> => {
    const { request, cancelledAt } = job.data
    if (cancelledAt !== undefined) return failed(errors, job, token, { error: cancelled(), why: 'cancelled' })
    if (!(await enter(job, token))) throw new DelayedError()
    try {
      await job.removeDeduplicationKey()
      const ran = await running.run(job, fractionOf(job), (context) => runner(request, context))
      return 'result' in ran ? ran.result : await failed(errors, job, token, ran)
    } finally {
      await wake(await lanes.release(laneOf(request), job.id!))
    }
  }

  const worker = new Worker<JobData, JobResult>(queue.name, processor, {
    connection: options.client,
    prefix: options.prefix,
    concurrency: options.concurrency,
    autorun: false,
    ...workerOptions(options.lockMs),
  })
  const running = openRunning(
    worker,
    options.client,
    async (id) => {
      const now = await queue.getJob(id)
      return now === undefined ? 'gone' : now.data.cancelledAt === undefined ? 'fine' : 'cancelled'
    },
    options.alarm,
  )
  await worker.waitUntilReady()
  void worker.run().catch(options.alarm)
  return running
}
