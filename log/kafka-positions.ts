/**
 * Ranges and positions of a partition, without reading it through.
 * Invariant: a position's fingerprint comes from the log's own record, or from a proof that the broker has just confirmed.
 */
import type { LogRange } from '../model/ports/event-log.ts'
import { genesis, type Position } from '../model/position.ts'
import type { Cluster } from './kafka-cluster.ts'
import type { OriginOf } from './kafka-origin.ts'
import { type PartitionView, type Proofs, viewOf } from './kafka-partition.ts'
import { provableStart } from './kafka-read.ts'

/** How old may be what we know of a topic's identity when no fetch by its id proves it. */
export const TOPIC_AGE_MS = 1000

const LOOK_MS = 1000

export type Positions = {
  /** Kafka's own first offset, whatever the origin is. */
  low(topic: string, partition: number): Promise<number>
  range(topic: string, partition: number): Promise<LogRange>
  positionAt(topic: string, partition: number, offset: number): Promise<Position | null>
  /** The last record below `offset`, clamped to the log's range; null: none. */
  recordBefore(topic: string, partition: number, offset: number): Promise<number | null>
}

/** `end` as the broker says it, where the last record below it ends, and whether holes were ever seen there. */
type Tail = { end: number; recordEnd: number; lookedAt: number; hasHoles: boolean }

export const openPositions = (cluster: Cluster, proofs: Proofs, originOf: OriginOf): Positions => {
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
    const found = last !== null ? last.offset + 1 : low <= view.origin ? 0 : Math.min(low, end)
    // The hole below the origin is no reason to look for others.
    const hasHoles = (tail?.hasHoles ?? false) || Math.max(found, view.origin) < end
    tails.set(key, { end, recordEnd: found, lookedAt: nowMs, hasHoles })
    return found
  }

  const start = async (view: PartitionView, key: string, low: number): Promise<number> => {
    const known = starts.get(key)
    if (known?.low === low) return known.start
    const found = await provableStart(view, low)
    if (found !== low || low <= view.origin) starts.set(key, { low, start: found })
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
      use(
        viewOf(leader, partition, originOf(leader.topic, partition)),
        leader.topic.logId,
        `${leader.topic.logId}/${partition}`,
      ),
    )
  }

  return {
    low: (topic, partition) => current(topic, partition, 'the start', async (view) => (await view.ends()).low),
    range: (topic, partition) =>
      current(topic, partition, 'the range', async (view, logId, key) => {
        const { low, end } = await view.ends()
        const [startOffset, endOffset] = await Promise.all([start(view, key, low), recordEnd(view, key, low, end)])
        const originOffset = view.origin > 0 ? { originOffset: view.origin } : {}
        return { logId, startOffset: Math.min(startOffset, endOffset), endOffset, ...originOffset }
      }),
    positionAt: (topic, partition, offset) =>
      current(topic, partition, 'a position', async (view, logId) => {
        if (!Number.isInteger(offset) || offset < 0) return null
        const { low, end } = await view.ends()
        const isWhole = low <= view.origin
        if (offset > end || (offset < low && !isWhole)) return null
        if (offset <= view.origin) return { ...genesis(logId), offset }
        const name = `${topic}/${partition}`
        const proof = proofs.find(name, logId, offset)
        if (proof !== undefined && (await view.hasEpoch(proof.epoch, offset))) return proof.position
        const { record, epoch } = await view.before(offset, low)
        if (record === null) return isWhole ? { ...genesis(logId), offset } : null
        const effectiveMs = await view.greatestTime(offset, record.appendTimeMs)
        const position: Position = { logId, offset, fingerprint: record.fingerprint, effectiveMs }
        proofs.keep(name, { position, epoch })
        return position
      }),
    recordBefore: (topic, partition, offset) =>
      current(topic, partition, 'a record', async (view) => {
        const { low, end } = await view.ends()
        const to = Math.min(offset, end)
        return to <= Math.max(low, view.origin) ? null : ((await view.before(to, low)).record?.offset ?? null)
      }),
  }
}
