/**
 * Scheduler over BullMQ: jobs and schedules are kept in Redis, any number of processes work on them. Invariants: as those of the
 * scheduler in the process (croner-scheduler.ts), over all processes; a job that lost its process is run again by another; closing a
 * process ends none but its own jobs, and hands those on.
 *
 * Queues `short` and `long` hold jobs, `ticks` what schedules fire. Records of ended jobs are kept up to a number per queue and outcome.
 */

import type { Job, JobRequest, JobRunner, Scheduler } from '../model/ports/scheduler.ts'
import type { RedisPlace } from '../model/redis-place.ts'
import { asked, checkedPrefix, connect, DEFAULT_PREFIX, hangUp, openQueue, QUEUES } from './bullmq-connection.ts'
import { type JobData, type JobQueues, type JobResult, kindOfId, newId, shown } from './bullmq-job.ts'
import { openLanes } from './bullmq-lanes.ts'
import { openJobList } from './bullmq-list.ts'
import type { RunningJobs } from './bullmq-running.ts'
import { openTicks } from './bullmq-ticks.ts'
import { openJobWorker } from './bullmq-worker.ts'
import { keyOf, kindOf, type LaneKind, laneOf, refused } from './scheduling.ts'

export type BullMqSchedulerOptions = {
  connection: RedisPlace
  /** Begins every key; the braces keep all of them in one slot of a Cluster. */
  prefix?: string
  runner: JobRunner
  /** Whether this process runs jobs; else it only submits, looks and cancels. */
  work: boolean
  /** Jobs at a time in this process (settings.batch.jobs), and as many over whole histories beside them. Default 1. */
  concurrent?: number
  /** Names of all schedules that the settings have: others are removed. Left out: none is. */
  schedules?: readonly string[]
  /** Ended jobs that are kept, per queue and outcome. Default 500. */
  keep?: number
  /** Jobs that may wait; more are refused. Default 1,000. */
  queue?: number
  /** How long `close` lets running jobs go on before it hands them on, ms. Default 5,000. */
  drainMs?: number
  /** How often a job that failed retryably is tried in all. Default 3. */
  attempts?: number
  /** Pause before the second try, ms; doubled before each further one. Default 1,000. */
  backoffMs?: number
  /** How long a job belongs to a process that gives no sign, ms; then another one takes it. Default 30,000. */
  lockMs?: number
  /** How often schedules that Redis has lost are looked for, ms. Default 60,000. */
  healMs?: number
  alarm?(error: unknown): void
}

export const openBullMqScheduler = async (options: BullMqSchedulerOptions): Promise<Scheduler> => {
  const { connection, runner, concurrent = 1, keep = 500, queue: most = 1_000, drainMs = 5_000 } = options
  const { attempts = 3, backoffMs = 1_000, lockMs = 30_000 } = options
  const alarm = options.alarm ?? ((error) => process.emitWarning(String(error), { code: 'WEIR_BATCH_SCHEDULE' }))
  const prefix = checkedPrefix(options.prefix ?? DEFAULT_PREFIX)
  const client = await connect(connection, 'calls', alarm)
  const waiting = options.work ? await connect(connection, 'worker', alarm) : null
  const queues: JobQueues = {
    short: await openQueue<JobData, JobResult>(QUEUES.short, client, prefix, alarm),
    long: await openQueue<JobData, JobResult>(QUEUES.long, client, prefix, alarm),
  }
  const kinds = Object.keys(queues) as LaneKind[]
  const lanes = openLanes(client, prefix)
  const list = openJobList(queues, lanes, keep)
  let isOpen = true
  let last = 0

  const checkOpen = (): void => {
    if (!isOpen) throw refused('The scheduler is closed.', 'send the request again after the restart')
  }

  const submit = async (request: JobRequest): Promise<string> => {
    const counts = await Promise.all(kinds.map((kind) => queues[kind].getJobCountByTypes('wait', 'delayed')))
    if (counts.reduce((a, b) => a + b, 0) >= most)
      throw refused(`${most} jobs are waiting already.`, 'wait for some of them to end')
    last = Math.max(last + 1, Date.now() * 1_000)
    const data: JobData = { formatVersion: 1, request, order: last }
    const added = await queues[kindOf(request)].add(`${request.action} ${request.view}`, data, {
      jobId: newId(request),
      deduplication: { id: keyOf(request) },
      attempts,
      backoff: { type: 'exponential', delay: backoffMs },
      removeOnComplete: { count: keep },
      removeOnFail: { count: keep },
    })
    return added.id!
  }

  /** Whether an equal request waits, or its lane is taken: a schedule never piles up. */
  const isBusy = async (request: JobRequest): Promise<boolean> => {
    const queue = queues[kindOf(request)]
    if ((await queue.getDeduplicationJobId(keyOf(request))) !== null) return true
    const holder = await lanes.holder(laneOf(request))
    return holder !== null && (await queue.getJobState(holder)) === 'active'
  }

  const find = async (id: string): Promise<Job | null> => {
    const kind = kindOfId(id)
    if (kind === null) return null
    // The state first: a record that is read after it has all that the state promises.
    const state = await queues[kind].getJobState(id)
    const kept = await queues[kind].getJob(id)
    if (kept === undefined) return null
    return shown(kept, state, state === 'active' && (await lanes.holder(laneOf(kept.data.request))) === id)
  }

  const cancel = async (id: string): Promise<boolean> => {
    const kind = kindOfId(id)
    const kept = kind === null ? undefined : await queues[kind].getJob(id)
    if (kept === undefined || kept.finishedOn !== undefined || kept.data.cancelledAt !== undefined) return false
    await kept.updateData({ ...kept.data, cancelledAt: new Date().toISOString() })
    await kept.removeDeduplicationKey()
    // One that sleeps is ended by the next worker that has time.
    if (await kept.isDelayed()) await kept.promote().catch(() => undefined)
    return true
  }

  const ticks = await openTicks({
    client,
    waiting,
    prefix,
    lockMs,
    ...(options.healMs === undefined ? {} : { healMs: options.healMs }),
    alarm,
    fire: async (requests) => {
      for (const request of requests) if (!(await isBusy(request))) await submit(request)
    },
  })
  if (options.schedules !== undefined) await asked(connection, () => ticks.retain(options.schedules!))
  const workers: Pick<RunningJobs, 'close'>[] = []
  if (waiting !== null)
    for (const kind of kinds) {
      const common = { client: waiting, prefix, runner, concurrency: concurrent, lockMs, alarm }
      // A lane is left when Redis is there again, however long that takes: what the job did is not to be done twice.
      workers.push(await openJobWorker({ ...common, queue: queues[kind], lanes: openLanes(waiting, prefix) }))
    }

  return {
    schedule: async (name, expression, timeZone, request) => {
      checkOpen()
      await asked(connection, () => ticks.add(name, expression, timeZone, request))
    },
    submit: async (request) => {
      checkOpen()
      return asked(connection, () => submit(request))
    },
    job: (id) => asked(connection, () => find(id)),
    jobs: (limit) => asked(connection, () => list(limit)),
    cancel: (id) => asked(connection, () => cancel(id)),
    close: async () => {
      if (!isOpen) return
      isOpen = false
      await ticks.close()
      await Promise.all(workers.map((worker) => worker.close(drainMs)))
      for (const kind of kinds) await queues[kind].close()
      for (const one of [client, waiting]) if (one !== null) hangUp(one)
    },
  }
}
