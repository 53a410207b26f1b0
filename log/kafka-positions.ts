/**
 * Ranges and positions of a partition, without reading it through.
 * Invariant: a position's fingerprint comes from the log's own record, or from a proof that the broker has just confirmed.
 */
import type { LogRange } from '../model/ports/event-log.ts'
import { genesis, type Position } from '../model/position.ts'
import type { Cluster } from './kafka-cluster.ts'
import { type PartitionView, type Proofs, viewOf } from './kafka-partition.ts'
import { provableStart } from './kafka-read.ts'

/** How old may be what we know of a topic's identity when no fetch by its id proves it. */
export const TOPIC_AGE_MS = 1000

const LOOK_MS = 1000

export type Positions = {
  range(topic: string, partition: number): Promise<LogRange>
  positionAt(topic: string, partition: number, offset: number): Promise<Position | null>
  /** The last record below `offset`, clamped to the log's range; null: none. */
  recordBefore(topic: string, partition: number, offset: number): Promise<number | null>
}

/** `end` as the broker says it, where the last record below it ends, and whether holes were ever seen there. */
type Tail = { end: number; recordEnd: number; lookedAt: number; hasHoles: boolean }

export const openPositions = (cluster: Cluster, proofs: Proofs): Positions => {
  const starts = new Map<string, { low: number; start: number }>()
  const tails = new Map<string, Tail>()

  /**
   * Below the end there may be holes only, which are no records to wait for. Looking costs a batch: it is done once a second
   * while the end moves, and each time where transactions have left holes before.
   */
  const recordEnd = async (view: PartitionView, key: string, low: number, end: number): Promise<number> => {
    const tail = tails.get(key)
    if (tail?.end === end) return tail.recordEnd
    const nowMs = performance.now()
    const isPlain = tail !== undefined && tail.recordEnd > 0 && !tail.hasHoles
    if (isPlain && end > tail.end && nowMs - tail.lookedAt < LOOK_MS) return end
    const last = end > low ? (await view.before(end, low)).record : null
    const found = last === null ? Math.min(low, end) : last.offset + 1
    tails.set(key, { end, recordEnd: found, lookedAt: nowMs, hasHoles: (tail?.hasHoles ?? false) || found < end })
    return found
  }

  const start = async (view: PartitionView, key: string, low: number): Promise<number> => {
    const known = starts.get(key)
    if (known?.low === low) return known.start
    const found = await provableStart(view, low)
    if (found !== low || low === 0) starts.set(key, { low, start: found })
    return found
  }

  /** Topics are known by name in these requests, so their identity must be of now. */
  const current = async <T>(
    topic: string,
    partition: number,
    what: string,
    use: (view: PartitionView, logId: string, key: string) => Promise<T>,
  ): Promise<T> => {
    await cluster.topic(topic, TOPIC_AGE_MS)
    return cluster.onLeader(topic, partition, `${what} of ${topic}/${partition}`, (leader) =>
      use(viewOf(leader, partition), leader.topic.logId, `${leader.topic.logId}/${partition}`),
    )
  }

  return {
    range: (topic, partition) =>
      current(topic, partition, 'the range', async (view, logId, key) => {
        const { low, end } = await view.ends()
        const [startOffset, endOffset] = await Promise.all([start(view, key, low), recordEnd(view, key, low, end)])
        return { logId, startOffset: Math.min(startOffset, endOffset), endOffset }
      }),
    positionAt: (topic, partition, offset) =>
      current(topic, partition, 'a position', async (view, logId) => {
        if (!Number.isInteger(offset) || offset < 0) return null
        const { low, end } = await view.ends()
        if (offset > end || offset < low) return null
        if (offset === 0) return genesis(logId)
        const name = `${topic}/${partition}`
        const proof = proofs.find(name, logId, offset)
        if (proof !== undefined && (await view.hasEpoch(proof.epoch, offset))) return proof.position
        const { record, epoch } = await view.before(offset, low)
        if (record === null) return low === 0 ? { ...genesis(logId), offset } : null
        const effectiveMs = await view.greatestTime(offset, record.appendTimeMs)
        const position: Position = { logId, offset, fingerprint: record.fingerprint, effectiveMs }
        proofs.keep(name, { position, epoch })
        return position
      }),
    recordBefore: (topic, partition, offset) =>
      current(topic, partition, 'a record', async (view) => {
        const { low, end } = await view.ends()
        const to = Math.min(offset, end)
        return to <= low ? null : ((await view.before(to, low)).record?.offset ?? null)
      }),
  }
}
