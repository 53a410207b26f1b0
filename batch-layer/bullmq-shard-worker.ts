/**
 * Carries out shards of recomputes that any batch process has put on the queue. Each batch process has one of these.
 * Invariant: what a shard reads and writes, and its result, lie in the lake's store; only the plan of it goes through Redis.
 */

import { promisify } from 'node:util'
import { inflateRaw } from 'node:zlib'
import type { Job as Kept } from 'bullmq'
import type { RedisPlace } from '../model/redis-place.ts'
import { checkedPrefix, connect, DEFAULT_PREFIX, hangUp, openQueue, shardQueue } from './bullmq-connection.ts'
import { type Errors, failed, fractionOf } from './bullmq-job.ts'
import { openRunning, type RunContext, workerOptions } from './bullmq-running.ts'
import { cancelled } from './scheduling.ts'

export type ShardData = {
  formatVersion: 1
  /** Where the result is recorded. */
  recordKey: string
  /** The encoded job, deflated, as base64: 1.2 kB, and 100 bytes for each file that it reads. */
  job: string
  /** Set by a runner that gives up. */
  cancelled?: true
}
type KeptShard = Kept<ShardData, null>

export type ShardQueueOptions = {
  connection: RedisPlace
  prefix?: string
  /** Version of the engine (`engine.version`): results of another one are of no use, so each has a queue of its own. */
  engineVersion: string
  /** How long a shard belongs to a process that gives no sign, ms; then another one takes it. Default 30,000. */
  lockMs?: number
  alarm?(error: unknown): void
}

export type ShardWorkerOptions = ShardQueueOptions & {
  /** Carries out an encoded shard (see `decodeJob`), in a child process, and resolves once the result is recorded (`runShard` does). */
  run(encodedJob: string, context: RunContext): Promise<unknown>
  /** Shards at a time in this process. Default 1. */
  concurrency?: number
  /** How long `close` lets running shards go on before it hands them on, ms. Default 5,000. */
  drainMs?: number
}

const inflate = promisify(inflateRaw)
export const warnOfShards = (error: unknown): void => process.emitWarning(String(error), { code: 'WEIR_BATCH_ALARM' })

export const openBullMqShardWorker = async (options: ShardWorkerOptions): Promise<{ close(): Promise<void> }> => {
  const { connection, concurrency = 1, drainMs = 5_000, lockMs = 30_000, alarm = warnOfShards } = options
  const prefix = checkedPrefix(options.prefix ?? DEFAULT_PREFIX)
  const { DelayedError, UnrecoverableError, WaitingError, Worker } = await import('bullmq')
  const errors: Errors = { DelayedError, UnrecoverableError, WaitingError }
  const name = shardQueue(options.engineVersion)
  const client = await connect(connection, 'worker', alarm)
  const queue = await openQueue<ShardData, null>(name, client, prefix, alarm)

  const processor = async (job: KeptShard, token = ''): Promise<null> => {
    if (job.data.cancelled) return failed(errors, job, token, { error: cancelled(), why: 'cancelled' })
    const encoded = (await inflate(Buffer.from(job.data.job, 'base64'))).toString('utf8')
    const ran = await running.run(job, fractionOf(job), (context) => options.run(encoded, context))
    return 'result' in ran ? null : failed(errors, job, token, ran)
  }
  const worker = new Worker<ShardData, null>(name, processor, {
    connection: client,
    prefix,
    concurrency,
    autorun: false,
    ...workerOptions(lockMs),
  })
  const look = async (id: string) => {
    const now = await queue.getJob(id)
    return now === undefined ? 'gone' : now.data.cancelled ? 'cancelled' : 'fine'
  }
  const running = openRunning(worker, client, look, alarm)
  await worker.waitUntilReady()
  void worker.run().catch(alarm)
  return {
    close: async () => {
      await running.close(drainMs)
      await queue.close()
      hangUp(client)
    },
  }
}
