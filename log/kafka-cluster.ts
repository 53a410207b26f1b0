/**
 * Which broker leads what, and trying again until the leader answers.
 * Invariant: a topic's id comes with its partitions and leaders from one answer, and no topic is used before `admit` let it in.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { WeirError } from '../model/errors.ts'
import type { Address, Connections, Request } from './kafka-connections.ts'
import { KAFKA, KafkaRefusal, mayRetry, toWeirError } from './kafka-errors.ts'
import type { KafkaBroker } from './kafka-internals.ts'
import { type ClusterMetadata, metadataRequest } from './kafka-requests.ts'
import { closed, unknownPartition } from './log-errors.ts'

export type Topic = {
  topic: string
  topicId: string
  /** Cluster id and topic id: a topic made again under the same name has another one. */
  logId: string
  /** In ascending order. */
  partitions: number[]
  leaders: Map<number, Address>
  /** When it was read, monotonic ms. */
  readAt: number
}

export type Cluster = {
  /** The topic as known for at most `maxAgeMs`, else asked anew; null: there is none. Tries until `giveUpMs`. */
  topic(topic: string, maxAgeMs: number): Promise<Topic | null>
  /** Runs `use` against the partition's leader, again after a failure that may pass. Throws unknown partition, retryable unreachable. */
  onLeader<T>(topic: string, partition: number, what: string, use: (leader: Leader) => Promise<T>): Promise<T>
  /** Runs `use` against the controller (KRaft: any broker, which passes it on). */
  onController<T>(what: string, use: (broker: KafkaBroker) => Promise<T>): Promise<T>
  /** Runs `use` against any broker that answers. */
  onAny<T>(what: string, use: (broker: KafkaBroker) => Promise<T>): Promise<T>
  /** Addresses of all brokers that are known. */
  addresses(): Address[]
}

export type Leader = {
  topic: Topic
  send<T>(request: Request<T>): Promise<T>
  lend<T>(use: (broker: KafkaBroker) => Promise<T>): Promise<T>
}

export type ClusterOptions = {
  brokers: Address[]
  /** How long to go on trying. */
  giveUpMs: number
  /** Called for each topic id before its first use, and each minute while its metadata are asked for; throws to keep it out. */
  admit(topic: string): Promise<void>
  isOpen(): boolean
}

const FIRST_PAUSE_MS = 20
const LONGEST_PAUSE_MS = 500
const ADMITTED_MS = 60_000

export const openCluster = (connections: Connections, options: ClusterOptions): Cluster => {
  const topics = new Map<string, Topic>()
  const asking = new Map<string, Promise<Topic | null>>()
  /** When each topic id was let in. */
  const admitted = new Map<string, number>()
  let known: ClusterMetadata['brokers'] = []
  let controllerId = -1

  const addresses = (): Address[] => {
    const all = [...known, ...options.brokers].map(({ host, port }) => ({ host, port }))
    return all.filter((a, i) => all.findIndex((b) => b.host === a.host && b.port === a.port) === i)
  }

  /** Asks one broker after the other. */
  const metadata = async (names: string[]): Promise<ClusterMetadata> => {
    let failure: unknown
    for (const address of addresses()) {
      try {
        const answer = await connections.send(address, metadataRequest(names))
        if (answer.brokers.length > 0) known = answer.brokers
        controllerId = answer.controllerId
        return answer
      } catch (error) {
        if (!mayRetry(error)) throw error
        failure = error
      }
    }
    throw failure
  }

  /** Runs `work` until it succeeds, fails for good, or the time is over. */
  const insist = async <T>(what: string, work: (attempt: number) => Promise<T>): Promise<T> => {
    const deadline = performance.now() + options.giveUpMs
    for (let attempt = 0, pause = FIRST_PAUSE_MS; ; attempt++, pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      if (!options.isOpen()) throw closed()
      try {
        return await work(attempt)
      } catch (error) {
        if (!options.isOpen()) throw closed()
        const isFinal = error instanceof WeirError || !mayRetry(error) || performance.now() + pause > deadline
        if (isFinal) throw toWeirError(error, what)
      }
      await sleep(pause)
    }
  }

  const ask = async (name: string): Promise<Topic | null> => {
    const { clusterId, brokers, topics: answers } = await metadata([name])
    const found = answers.find((t) => t.topic === name)
    if (found === undefined || found.error === KAFKA.unknownTopic) {
      topics.delete(name)
      return null
    }
    // Partitions that have no leader at the moment come with an error of their own; the topic is there all the same.
    if (found.error !== KAFKA.none && found.partitions.length === 0)
      throw new KafkaRefusal(found.error, `topic ${name}`)
    if (performance.now() - (admitted.get(found.topicId) ?? Number.NEGATIVE_INFINITY) > ADMITTED_MS) {
      await options.admit(name)
      admitted.set(found.topicId, performance.now())
    }
    const leaders = new Map<number, Address>()
    for (const { partition, leader } of found.partitions) {
      const broker = brokers.find((b) => b.nodeId === leader)
      if (broker !== undefined) leaders.set(partition, { host: broker.host, port: broker.port })
    }
    const topic: Topic = {
      topic: name,
      topicId: found.topicId,
      logId: `${clusterId}.${found.topicId}`,
      partitions: found.partitions.map((p) => p.partition),
      leaders,
      readAt: performance.now(),
    }
    topics.set(name, topic)
    return topic
  }

  /** One question per topic at a time; who comes while it runs shares its answer only if that cannot be too old for them. */
  const lookUp = async (name: string, maxAgeMs: number): Promise<Topic | null> => {
    const cached = topics.get(name)
    if (cached !== undefined && performance.now() - cached.readAt <= maxAgeMs) return cached
    const running = asking.get(name)
    if (running !== undefined && maxAgeMs > 0) return running
    const asked = ask(name).finally(() => {
      if (asking.get(name) === asked) asking.delete(name)
    })
    asking.set(name, asked)
    return asked
  }

  return {
    topic: (name, maxAgeMs) => insist(`topic ${name}`, (attempt) => lookUp(name, attempt === 0 ? maxAgeMs : 0)),
    onLeader: (name, partition, what, use) => {
      let missing = 0
      return insist(what, async (attempt) => {
        const topic = await lookUp(name, attempt === 0 ? Number.POSITIVE_INFINITY : 0)
        if (topic === null || !topic.partitions.includes(partition)) {
          // A broker may hear of a new topic a moment later than another one.
          if (++missing > 4) throw unknownPartition(name, partition)
          throw new KafkaRefusal(KAFKA.unknownTopic, `${name}/${partition}`)
        }
        const address = topic.leaders.get(partition)
        if (address === undefined) throw new KafkaRefusal(5, `the leader of ${name}/${partition}`)
        return use({
          topic,
          send: (request) => connections.send(address, request),
          lend: (ask) => connections.lend(address, ask),
        })
      })
    },
    onController: (what, use) =>
      insist(what, async () => {
        await metadata([])
        const controller = known.find((b) => b.nodeId === controllerId) ?? known[0]
        if (controller === undefined) throw new KafkaRefusal(5, 'the controller')
        return connections.lend(controller, use)
      }),
    onAny: (what, use) =>
      insist(what, async (attempt) => {
        const all = addresses()
        return connections.lend(all[attempt % all.length]!, use)
      }),
    addresses,
  }
}
