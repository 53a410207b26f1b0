/**
 * Who runs the batch jobs of a process: an embedded scheduler, or BullMQ on the Redis of the settings, which all processes share.
 * Invariant: a process without the batch role runs no job; with BullMQ it can still submit, look and cancel.
 */

import { openBullMqBoard } from '../batch-layer/bullmq-board.ts'
import { openBullMqScheduler } from '../batch-layer/bullmq-scheduler.ts'
import { openBullMqShardRunner } from '../batch-layer/bullmq-shard-runner.ts'
import { openBullMqShardWorker } from '../batch-layer/bullmq-shard-worker.ts'
import { openCronerScheduler } from '../batch-layer/croner-scheduler.ts'
import { decodeJob, type WorkerRunner } from '../batch-layer/shard.ts'
import { WeirError } from '../model/errors.ts'
import type { JobRunner, Scheduler } from '../model/ports/scheduler.ts'
import type { RedisPlace } from '../model/redis-place.ts'
import type { Shared } from './ports.ts'
import { redisConnection } from './servers.ts'
import { childRunner } from './worker-runner.ts'

const NOTICE_MS = 600_000

/** Actions with a schedule of their own, unless it is off. */
export const scheduledActions = ({ options }: Shared): ('extend' | 'recompute' | 'verify' | 'compact')[] =>
  (['extend', 'recompute', 'verify', 'compact'] as const).filter(
    (action) => options.project.settings.schedules[action] !== 'off',
  )

type Queues = { connection: RedisPlace; prefix: string; alarm(error: unknown): void }

/** What BullMQ says of its queues has no code; most of it comes from a Redis that was emptied or went away. */
export const queueTrouble = (cause: unknown): unknown => {
  if (cause instanceof WeirError) return cause
  const said = cause instanceof Error ? cause.message : String(cause)
  return new WeirError({
    code: 'WEIR_BATCH_QUEUES',
    message: `The job queues: ${said}`,
    next: 'nothing if Redis was emptied or restarted: schedules and waiting jobs are put back; if it repeats, see that Redis runs',
    cause,
  })
}

/** Where BullMQ keeps its queues; null: jobs are not its business here. */
const queuesOf = async ({ options, alarms }: Shared): Promise<Queues | null> => {
  const { settings } = options.project
  const connection = settings.batch.scheduler === 'embedded' ? null : await redisConnection(settings)
  if (connection === null) return null
  const alarm = (error: unknown): void => alarms.raise('batch/queues', queueTrouble(error), NOTICE_MS)
  return { connection, prefix: `{${settings.redis.prefix}}`, alarm }
}

const elsewhere = (): never => {
  throw new WeirError({
    code: 'WEIR_CLI_NO_BATCH_ROLE',
    message: 'This process does not run the batch role.',
    expected: 'a process with --role batch',
    next: 'ask the process that runs batch and serving together',
  })
}

/** For a process without the batch role and without shared queues: its jobs run elsewhere. */
const noScheduler = (): Scheduler => ({
  schedule: async () => undefined,
  submit: async () => elsewhere(),
  job: async () => null,
  jobs: async () => [],
  cancel: async () => false,
  close: async () => undefined,
})

/** `runner`: what carries jobs out here; null without the batch role. */
export const openScheduler = async (shared: Shared, runner: JobRunner | null): Promise<Scheduler> => {
  const { options, alarms, closers } = shared
  const { settings } = options.project
  const owned = <T extends { close(): Promise<void> }>(value: T): T => {
    closers.add(() => value.close())
    return value
  }
  // Running jobs are cancelled in time for the rest to close: what they did is kept, or is nowhere.
  const common = { concurrent: settings.batch.jobs, drainMs: settings.server.stopMs / 4 }
  const queues = await queuesOf(shared)
  if (queues !== null)
    return owned(
      await openBullMqScheduler({
        ...queues,
        ...common,
        runner: runner ?? (async () => elsewhere()),
        work: runner !== null,
        ...(runner === null ? {} : { schedules: scheduledActions(shared) }),
      }),
    )
  if (runner === null) return noScheduler()
  const alarm = (error: unknown): void => alarms.raise('batch/schedule', error, NOTICE_MS)
  return owned(openCronerScheduler({ ...common, runner, alarm }))
}

/** Shards of recomputes: in children of this process, or, with BullMQ, in children of all batch processes. */
export const openShardRunner = async (shared: Shared): Promise<WorkerRunner> => {
  const { options, ports, closers } = shared
  const { settings } = options.project
  const { recomputeMemory: memory, recomputeProcesses: processes } = settings.batch
  const here = childRunner({ place: ports.place, memory, processes, threads: settings.engine.threads })
  const queues = await queuesOf(shared)
  if (queues === null || !options.roles.includes('batch')) return here
  const own = { ...queues, engineVersion: ports.of('batch').engine.version }
  const worker = await openBullMqShardWorker({
    ...own,
    concurrency: processes,
    drainMs: settings.server.stopMs / 4,
    run: async (encoded, { signal }) => (await here([decodeJob(encoded)], { signal }))[0],
  })
  closers.add(() => worker.close())
  const runner = await openBullMqShardRunner({ ...own, store: ports.store })
  closers.add(() => runner.close())
  return runner.run
}

/** Bull Board over the queues; null without BullMQ. */
export const openBoard = async (shared: Shared, basePath: string) => {
  const queues = await queuesOf(shared)
  if (queues === null) return null
  const { engine } = shared.ports.of('serving')
  const board = await openBullMqBoard({ ...queues, basePath, engineVersion: engine.version })
  shared.closers.add(() => board.close())
  return board.plugin
}
