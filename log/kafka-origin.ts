/**
 * Origins: where topics that others had written to began when a dataset was put on them. Below an origin is a hole, as transactions
 * leave them. Decision: docs/decisions/adopted-topics.md.
 * Invariant: an origin is of one log. A topic made again under the name begins at its own beginning, as does a partition added later.
 */
import type { Origin } from '../model/ports/event-log.ts'
import type { Cluster, Topic } from './kafka-cluster.ts'

/** Where a partition begins for its dataset; 0: at its beginning. */
export type OriginOf = (topic: Topic, partition: number) => number

export type Origins = { of: OriginOf; set(topic: string, origin: Origin | undefined): void }

export const openOrigins = (): Origins => {
  const origins = new Map<string, Origin>()
  return {
    of: ({ topic, logId }, partition) => {
      const origin = origins.get(topic)
      return origin?.logId === logId ? (origin.offsets[String(partition)] ?? 0) : 0
    },
    set: (topic, origin) => {
      if (origin !== undefined) origins.set(topic, origin)
    },
  }
}

type StartOf = (topic: string, partition: number) => Promise<number>

/** The starts of a topic's partitions as they are now; null: the topic is missing, or nothing is gone from it. */
export const originNow = async (cluster: Cluster, startOf: StartOf, name: string): Promise<Origin | null> => {
  for (;;) {
    const before = await cluster.topic(name, 0)
    if (before === null) return null
    const starts = await Promise.all(
      before.partitions.map(async (p): Promise<[string, number]> => [String(p), await startOf(name, p)]),
    )
    // Starts are asked for by name: they are of this topic only if it is still the one.
    if ((await cluster.topic(name, 0))?.logId !== before.logId) continue
    const gone = starts.filter(([, start]) => start > 0)
    return gone.length === 0 ? null : { logId: before.logId, offsets: Object.fromEntries(gone) }
  }
}
