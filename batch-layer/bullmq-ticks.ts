/**
 * Schedules over BullMQ: one job scheduler per name, whatever the number of processes that register it. Invariants: an expression fires
 * at the same instants as in the embedded profile, because croner reads it here too; one tick is handled by one process, which has its
 * requests from its own settings; a tick that a process does not know is left to one that does; schedules come back when Redis lost them.
 */
import type { Job as Kept } from 'bullmq'
import type { JobRequest } from '../model/ports/scheduler.ts'
import { answers, openQueue, QUEUES, type RedisClient } from './bullmq-connection.ts'
import { workerOptions } from './bullmq-running.ts'
import { nextTime, readable } from './scheduling.ts'

export type TicksOptions = {
  /** For calls. */
  client: RedisClient
  /** For the worker; null: ticks are registered here and handled elsewhere. */
  waiting: RedisClient | null
  prefix: string
  lockMs: number
  /** How often schedules that were lost are looked for, ms. Default 60,000. */
  healMs?: number
  fire(requests: JobRequest[]): Promise<void>
  alarm(error: unknown): void
}

export type Ticks = {
  /** Registers or replaces a schedule. Throws WEIR_BATCH_EXPRESSION. */
  add(name: string, expression: string, timeZone: string, request: () => JobRequest[]): Promise<void>
  /** Removes all others. */
  retain(names: readonly string[]): Promise<void>
  close(): Promise<void>
}

/** How long a tick waits for a process that knows its name, ms. */
const UNKNOWN_MS = 60_000
const UNKNOWN_PAUSE_MS = 500
/** A schedule that is replaced at the very instant of a tick is tried again. */
const COLLISION_MS = 5_000
const COLLISION_PAUSE_MS = 50

type Known = { expression: string; timeZone: string; request(): JobRequest[] }

/** BullMQ's question when a schedule fires next. Undefined: never again. */
export const repeatStrategy = (afterMs: number, { pattern, tz }: { pattern?: string; tz?: string }) =>
  nextTime(pattern ?? '', tz ?? 'UTC', afterMs) ?? undefined

export const openTicks = async (options: TicksOptions): Promise<Ticks> => {
  const { client, waiting, prefix, healMs = 60_000, alarm } = options
  const { DelayedError, Worker } = await import('bullmq')
  const queue = await openQueue<Record<string, never>, void>(QUEUES.ticks, client, prefix, alarm, { repeatStrategy })
  const known = new Map<string, Known>()

  const tick = async (job: Kept<Record<string, never>, void>, token?: string): Promise<void> => {
    const request = known.get(job.name)?.request
    if (request !== undefined) {
      try {
        await options.fire(request())
      } catch (error) {
        alarm(error)
      }
    } else if (Date.now() < job.timestamp + (job.opts.delay ?? 0) + UNKNOWN_MS) {
      await job.moveToDelayed(Date.now() + UNKNOWN_PAUSE_MS, token)
      throw new DelayedError()
    }
  }
  const worker =
    waiting === null
      ? null
      : new Worker<Record<string, never>, void>(QUEUES.ticks, tick, {
          connection: waiting,
          prefix,
          ...workerOptions(options.lockMs),
          settings: { repeatStrategy },
        })
  worker?.on('error', alarm)
  await worker?.waitUntilReady()

  const upsert = async (name: string, pattern: string, tz: string): Promise<void> => {
    const deadline = performance.now() + COLLISION_MS
    for (;;) {
      try {
        const template = { name, data: {}, opts: { removeOnComplete: true, removeOnFail: true } }
        await queue.upsertJobScheduler(name, { pattern, tz }, template)
        return
      } catch (error) {
        if (!/already exists/.test(String(error)) || performance.now() > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, COLLISION_PAUSE_MS))
      }
    }
  }

  /** A Redis that began anew has no schedules, and what should have fired long ago never will. */
  const heal = async (): Promise<void> => {
    for (const [name, { expression, timeZone }] of known) {
      const found = await queue.getJobScheduler(name)
      if ((found?.next ?? 0) < Date.now() - healMs) await upsert(name, expression, timeZone)
    }
  }
  const healing = setInterval(() => void heal().catch(alarm), healMs)
  healing.unref()

  return {
    add: async (name, expression, timeZone, request) => {
      readable(name, expression, timeZone, () => {
        if (nextTime(expression, timeZone, Date.now()) === null) throw new Error('it never comes')
      })
      known.set(name, { expression, timeZone, request })
      await upsert(name, expression, timeZone)
    },
    retain: async (names) => {
      for (const { key } of await queue.getJobSchedulers())
        if (key !== undefined && !names.includes(key)) await queue.removeJobScheduler(key)
    },
    close: async () => {
      clearInterval(healing)
      if (waiting !== null) await worker?.close(!(await answers(waiting)))
      await queue.close()
    },
  }
}
