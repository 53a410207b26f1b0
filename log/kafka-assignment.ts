/**
 * Spreading partitions over workers with Kafka's group protocol, and nothing else: no offset is fetched, committed or reset.
 * Two owners for a moment are normal (a member that lost its session learns it late); the compare-and-set of the stores decides.
 * Invariant: `onRevoked` has ended for a partition before this member joins again, so it hands over what it gives up.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Cluster, openCluster } from './kafka-cluster.ts'
import type { Address } from './kafka-connections.ts'
import { KAFKA, refusalOf, toWeirError } from './kafka-errors.ts'
import { decodeAssignment, encodeAssignment, encodeSubscription, spread } from './kafka-group.ts'
import type { KafkaBroker } from './kafka-internals.ts'
import { addressOf, type KafkaClientOptions, openKafkaConnections } from './kafka-log.ts'

/** Partitions by dataset, ascending. */
export type Assignment = Record<string, number[]>

export type GroupOptions = KafkaClientOptions & {
  groupId: string
  datasets: string[]
  /** Topic of a dataset; default: its name. */
  topicOf?: (dataset: string) => string
  /** This member owns these now; all that it owns, not only what is new; nothing, where there are more members than partitions. */
  onAssigned(assignment: Assignment): void | Promise<void>
  /** It owns nothing any more; resolves when what runs has been handed over. Bounded by `rebalanceTimeoutMs`. */
  onRevoked(): void | Promise<void>
  /** Told of each failure that the loop then gets over by itself. */
  onError?(error: Error): void
  /** A member that is silent for this long is dead; default 6,000. */
  sessionTimeoutMs?: number
  /** How long members may take to hand over; default 10,000. */
  rebalanceTimeoutMs?: number
  /** How often the leader looks for added partitions; default 5,000. */
  lookMs?: number
}

export type Group = {
  /** What this member owns; empty between two assignments. */
  assignment(): Assignment
  /** Leaves at once, so that others take over without waiting for the session to end. */
  close(): Promise<void>
}

const { notCoordinator: NOT_COORDINATOR } = KAFKA
const LONGEST_PAUSE_MS = 5_000
const FIRST_PAUSE_MS = 100

/** Joins in the background and stays joined, whatever happens to the brokers, until it is closed. */
export const joinGroup = async (options: GroupOptions): Promise<Group> => {
  const { groupId, sessionTimeoutMs = 6_000, rebalanceTimeoutMs = 10_000, lookMs = 5_000 } = options
  const topicOf = options.topicOf ?? ((dataset) => dataset)
  const topics = new Map(options.datasets.map((dataset) => [topicOf(dataset), dataset]))
  const stop = new AbortController()
  const connections = openKafkaConnections(options)
  const cluster: Cluster = openCluster(connections, {
    brokers: options.brokers.map(addressOf),
    giveUpMs: 5_000,
    admit: async () => undefined,
    isOpen: () => !stop.signal.aborted,
  })
  let owned: Assignment = {}
  let memberId = ''
  let generation = -1
  let coordinator: Address | undefined

  const ask = async <T>(use: (broker: KafkaBroker) => Promise<T>, waitMs = 0): Promise<T> => {
    if (coordinator === undefined) {
      const found = await cluster.onAny(`the coordinator of group ${groupId}`, (broker) =>
        broker.findGroupCoordinator({ groupId, coordinatorType: 0 }),
      )
      coordinator = { host: found.coordinator.host, port: found.coordinator.port }
    }
    return connections.lend(coordinator, use, waitMs)
  }

  const beat = (generationId: number): Promise<unknown> =>
    ask((broker) => broker.heartbeat({ groupId, groupGenerationId: generationId, memberId }))

  /** Runs `work` with heartbeats beside it: who hands over slowly is not dead. */
  const beating = async (generationId: number, work: () => void | Promise<void>): Promise<void> => {
    const timer = setInterval(() => void beat(generationId).catch(() => undefined), sessionTimeoutMs / 4)
    try {
      await work()
    } catch (error) {
      options.onError?.(error instanceof Error ? error : new Error(String(error)))
    } finally {
      clearInterval(timer)
    }
  }

  const revoke = async (): Promise<void> => {
    if (Object.keys(owned).length === 0) return
    owned = {}
    await beating(generation, () => options.onRevoked())
  }

  /** Partitions of all topics, as the leader of the group sees them. */
  const allPartitions = async (): Promise<Map<string, number[]>> => {
    const found = new Map<string, number[]>()
    for (const topic of topics.keys()) found.set(topic, (await cluster.topic(topic, 0))?.partitions ?? [])
    return found
  }

  /** Joins, shares out when leading, and stays until the group has to be joined again. */
  const session = async (): Promise<void> => {
    const metadata = encodeSubscription([...topics.keys()])
    const joined = await ask(
      (broker) =>
        broker.joinGroup({
          groupId,
          memberId,
          sessionTimeout: sessionTimeoutMs,
          rebalanceTimeout: rebalanceTimeoutMs,
          groupProtocols: [{ name: 'weir-spread', metadata }],
        }),
      rebalanceTimeoutMs + sessionTimeoutMs,
    )
    memberId = joined.memberId
    const { generationId } = joined
    generation = generationId
    const isLeader = joined.leaderId === memberId
    const partitions = isLeader ? await allPartitions() : new Map<string, number[]>()
    const shares = spread(joined.members.map((m) => m.memberId).sort(), partitions)
    const { memberAssignment } = await ask(
      (broker) =>
        broker.syncGroup({
          groupId,
          generationId,
          memberId,
          groupAssignment: isLeader
            ? [...shares].map(([id, share]) => ({ memberId: id, memberAssignment: encodeAssignment(share) }))
            : [],
        }),
      rebalanceTimeoutMs + sessionTimeoutMs,
    )
    owned = {}
    for (const [topic, share] of decodeAssignment(memberAssignment)) {
      const dataset = topics.get(topic)
      if (dataset !== undefined && share.length > 0) owned[dataset] = share
    }
    // Also when there is nothing for this member: it has its answer, and lets go of what it had before.
    await beating(generationId, () => options.onAssigned(owned))
    await stay(generationId, isLeader ? partitions : undefined)
  }

  /** Heartbeats until the group rebalances, or, for the leader, until a topic has other partitions than it shared out. */
  const stay = async (generationId: number, shared: Map<string, number[]> | undefined): Promise<void> => {
    let lookAt = performance.now() + lookMs
    let heardAt = performance.now()
    for (;;) {
      await sleep(sessionTimeoutMs / 4, undefined, { signal: stop.signal })
      try {
        await beat(generationId)
        heardAt = performance.now()
      } catch (error) {
        // A coordinator that is away for less than a session changes nothing: it still counts this member in.
        const isSilent = refusalOf(error) === undefined || refusalOf(error) === NOT_COORDINATOR
        if (!isSilent || performance.now() - heardAt > sessionTimeoutMs) throw error
        coordinator = undefined
        continue
      }
      if (shared === undefined || performance.now() < lookAt) continue
      lookAt = performance.now() + lookMs
      const now = await allPartitions()
      if ([...now].some(([topic, partitions]) => partitions.length !== shared.get(topic)?.length)) return
    }
  }

  const run = async (): Promise<void> => {
    let pause = FIRST_PAUSE_MS
    while (!stop.signal.aborted) {
      const startedAt = performance.now()
      try {
        await session()
      } catch (error) {
        if (stop.signal.aborted) break
        const code = refusalOf(error)
        if (code === KAFKA.unknownMember || code === KAFKA.illegalGeneration) memberId = ''
        if (code !== KAFKA.rebalanceInProgress && code !== KAFKA.unknownMember && code !== KAFKA.illegalGeneration) {
          coordinator = undefined
          options.onError?.(toWeirError(error, `group ${groupId}`))
          // A session that lasted has shown that all is well again.
          if (performance.now() - startedAt > LONGEST_PAUSE_MS) pause = FIRST_PAUSE_MS
          await revoke()
          await sleep(pause, undefined, { signal: stop.signal }).catch(() => undefined)
          pause = Math.min(pause * 2, LONGEST_PAUSE_MS)
          continue
        }
      }
      pause = FIRST_PAUSE_MS
      await revoke()
    }
  }

  const running = run()
  return {
    assignment: () => owned,
    close: async () => {
      if (stop.signal.aborted) return
      stop.abort()
      await revoke()
      if (memberId !== '' && coordinator !== undefined) {
        await connections.lend(coordinator, (broker) => broker.leaveGroup({ groupId, memberId })).catch(() => undefined)
      }
      await connections.close()
      await running
    },
  }
}
