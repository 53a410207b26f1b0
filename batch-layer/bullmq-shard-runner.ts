/**
 * Runs the shards of a recompute on all batch processes: puts them on a queue, and waits for their results.
 * Invariant: the queue only spreads work. A shard is done when its result is recorded in the lake's store and not before, so that a lost
 * event, a lost queue or a shard that ran twice changes nothing.
 *
 * Decision: docs/decisions/bullmq-recompute-flow.md.
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { deflateRaw } from 'node:zlib'
import { WeirError } from '../model/errors.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { answers, checkedPrefix, connect, DEFAULT_PREFIX, hangUp, openQueue, shardQueue } from './bullmq-connection.ts'
import { failureOfKept } from './bullmq-job.ts'
import { type ShardData, type ShardQueueOptions, warnOfShards } from './bullmq-shard-worker.ts'
import { cancelled } from './scheduling.ts'
import { encodeJob, recordedShard, type ShardJob, type ShardResult, type WorkerRunner } from './shard.ts'

export type ShardRunnerOptions = ShardQueueOptions & {
  /** The lake's store: the same for all batch processes. */
  store: ObjectStore
  /** Shards on the queue at a time; bounds what Redis holds. Default 64. */
  outstanding?: number
  /** Longest wait for a shard, ms, from when it was put on the queue. Default 6 hours. */
  shardMs?: number
  /** How often a shard that failed retryably is tried in all, default 3, and the pause before the second try, ms, default 1,000. */
  attempts?: number
  backoffMs?: number
  /** How often the queue is looked at if no event comes, ms. Default 5,000. */
  lookMs?: number
}

/** Ended shards that BullMQ keeps, for people to see. */
const KEEP = { count: 200 }
/** How often a shard is put on the queue: a queue may be lost, and a leftover be in the way. */
const ADDS = 4
const HOUR_MS = 3_600_000

const deflate = promisify(deflateRaw)
/** One name per shard of one recompute: whoever continues it asks for the same one. */
const idOf = (recordKey: string): string => `shard-${createHash('sha256').update(recordKey).digest('hex').slice(0, 32)}`

const late = (recordKey: string, ms: number): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_SHARD_LATE',
    message: `A shard was not done in time: ${recordKey}`,
    expected: `a result within ${Math.round(ms / 1_000)} s`,
    next: 'look whether batch processes of this release run; what is done already is kept, the next recompute goes on from it',
    retryable: true,
  })

export const openBullMqShardRunner = async (
  options: ShardRunnerOptions,
): Promise<{ run: WorkerRunner; close(): Promise<void> }> => {
  const { connection, store, outstanding = 64, shardMs = 6 * HOUR_MS, attempts = 3, backoffMs = 1_000 } = options
  const { lookMs = 5_000, alarm = warnOfShards } = options
  const prefix = checkedPrefix(options.prefix ?? DEFAULT_PREFIX)
  const { QueueEvents } = await import('bullmq')
  const name = shardQueue(options.engineVersion)
  const client = await connect(connection, 'calls', alarm)
  const waiting = await connect(connection, 'worker', alarm)
  const queue = await openQueue<ShardData, null>(name, client, prefix, alarm)
  const events = new QueueEvents(name, { connection: waiting, prefix })
  events.on('error', alarm)
  const wakers = new Map<string, Set<() => void>>()
  const wake = ({ jobId }: { jobId: string }): void => {
    for (const one of wakers.get(jobId) ?? []) one()
  }
  events.on('completed', wake)
  events.on('failed', wake)
  await events.waitUntilReady()

  /** Until something is told of the shard, or it is time to look. */
  const told = async (id: string, ms: number, signal: AbortSignal): Promise<void> => {
    let done = (): void => undefined
    const woken = new Promise<void>((resolve) => {
      done = resolve
    })
    const timer = setTimeout(done, ms)
    const mine = wakers.get(id) ?? new Set()
    wakers.set(id, mine.add(done))
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
    await woken
    clearTimeout(timer)
    signal.removeEventListener('abort', done)
    mine.delete(done)
    if (mine.size === 0) wakers.delete(id)
  }

  const add = async (id: string, job: ShardJob): Promise<void> => {
    const packed = (await deflate(encodeJob(job))).toString('base64')
    const data: ShardData = { formatVersion: 1, recordKey: job.recordKey, job: packed }
    await queue.add(`${job.kind} ${job.view.name}`, data, {
      jobId: id,
      attempts,
      backoff: { type: 'exponential', delay: backoffMs },
      removeOnComplete: KEEP,
      removeOnFail: KEEP,
    })
  }

  /** Takes a shard that nobody wants any more off the queue, or has it stopped. */
  const giveUp = async (id: string): Promise<void> => {
    const kept = await queue.getJob(id)
    if (kept === undefined || kept.finishedOn !== undefined) return
    try {
      await kept.remove()
    } catch {
      // It runs: its worker looks.
      await kept.updateData({ ...kept.data, cancelled: true }).catch(() => undefined)
    }
  }

  const runOne = async (job: ShardJob, signal: AbortSignal): Promise<ShardResult> => {
    const id = idOf(job.recordKey)
    const deadline = performance.now() + shardMs
    for (let adds = 0; ; ) {
      signal.throwIfAborted()
      if (performance.now() > deadline) throw late(job.recordKey, shardMs)
      const kept = await queue.getJob(id)
      const state = kept === undefined ? 'none' : await kept.getState()
      if (adds > 0 && !['none', 'unknown', 'completed', 'failed'].includes(state)) {
        await told(id, Math.min(lookMs, Math.max(1, deadline - performance.now())), signal)
        continue
      }
      const done = await recordedShard(store, job.recordKey)
      if (done !== null) return done
      const failure = state === 'failed' ? failureOfKept(kept!) : null
      // What failed before we asked, or because another runner gave up, is asked for again.
      const isOurs = failure !== null && adds > 0 && failure.error.code !== cancelled().code
      if (failure !== null && (isOurs || adds >= ADDS))
        throw new WeirError({ ...failure.error, retryable: failure.isRetryable })
      if (adds >= ADDS) throw late(job.recordKey, shardMs)
      if (state === 'failed' || state === 'completed') await kept!.remove().catch(() => undefined)
      // With the same id it is there but once, whoever else asks for it.
      await add(id, job)
      adds++
    }
  }

  const run: WorkerRunner = async (jobs, { signal: outer, onProgress }) => {
    const stop = new AbortController()
    const signal = outer === undefined ? stop.signal : AbortSignal.any([outer, stop.signal])
    const results: ShardResult[] = new Array(jobs.length)
    const open = new Set<string>()
    let next = 0
    let done = 0
    const lane = async (): Promise<void> => {
      while (next < jobs.length) {
        const n = next++
        const id = idOf(jobs[n]!.recordKey)
        open.add(id)
        results[n] = await runOne(jobs[n]!, signal)
        open.delete(id)
        onProgress?.(++done, jobs.length)
      }
    }
    const lanes = Array.from({ length: Math.min(outstanding, jobs.length) }, () =>
      lane().catch((error: unknown) => {
        stop.abort(error)
        throw error
      }),
    )
    const ended = await Promise.allSettled(lanes)
    if (ended.every((one) => one.status === 'fulfilled')) return results
    for (const id of open) await giveUp(id).catch(alarm)
    // The first error stopped the others.
    throw signal.reason
  }

  return {
    run,
    close: async () => {
      const isThere = await answers(waiting)
      const closing = events.close().catch(alarm)
      await (isThere ? closing : events.getBackend().close(true))
      await queue.close()
      for (const one of [client, waiting]) hangUp(one)
    },
  }
}
