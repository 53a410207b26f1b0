/** A look at the job queues from outside, for `weir doctor`. Invariant: nothing is written, not even that somebody looked. */
import type { RedisPlace } from '../model/redis-place.ts'
import { checkedPrefix, connect, hangUp, QUEUES } from './bullmq-connection.ts'

export type QueueCounts = { waiting: number; active: number; failed: number }

/** Jobs of both queues by their state, as BullMQ's own scripts count them. Throws WEIR_BATCH_REDIS, WEIR_BATCH_PREFIX, and what Redis refuses. */
export const countJobs = async (connection: RedisPlace, prefix: string): Promise<QueueCounts> => {
  const checked = checkedPrefix(prefix)
  const { Queue } = await import('bullmq')
  const client = await connect(connection, 'calls', () => undefined)
  const countIn = async (name: string): Promise<Record<string, number>> => {
    const queue = new Queue(name, { connection: client, prefix: checked, skipMetasUpdate: true })
    queue.on('error', () => undefined)
    try {
      return await queue.getJobCounts('waiting', 'active', 'failed')
    } finally {
      await queue.close()
    }
  }
  try {
    const counts = await Promise.all([QUEUES.short, QUEUES.long].map(countIn))
    const sum = (state: keyof QueueCounts): number => counts.reduce((n, c) => n + (c[state] ?? 0), 0)
    return { waiting: sum('waiting'), active: sum('active'), failed: sum('failed') }
  } finally {
    hangUp(client)
  }
}
