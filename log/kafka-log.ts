/**
 * The Kafka event log: one dataset is one topic, one record one message.
 * Invariant: positions are the caller's own; nothing here joins a consumer group, stores an offset or resets one.
 *
 * A log id is `<cluster id>.<topic id>`, so a topic made again under its name is another log. Decisions: docs/decisions/kafka-log.md.
 */
import type { ConnectionOptions } from 'node:tls'
import type { EventLog, NewRecord, Origin, ReadResult } from '../model/ports/event-log.ts'
import { openProducer } from './kafka-append.ts'
import { openCluster } from './kafka-cluster.ts'
import { type Address, openConnections } from './kafka-connections.ts'
import { KAFKA, refusalOf, toWeirError } from './kafka-errors.ts'
import { type KafkaSasl, loadKafkajs } from './kafka-internals.ts'
import { openOrigins, originNow } from './kafka-origin.ts'
import { openProofs } from './kafka-partition.ts'
import { openPositions, TOPIC_AGE_MS } from './kafka-positions.ts'
import { openReader } from './kafka-read.ts'
import { checkSettings, createTopic, readSettings, type TopicSettings } from './kafka-topics.ts'
import { openWaiting } from './kafka-waiting.ts'
import { badRecord, closed, unknownPartition } from './log-errors.ts'

export type KafkaClientOptions = {
  /** `host:port` of some brokers of the cluster; the others are found through them. */
  brokers: string[]
  clientId?: string
  /** True: TLS with the system's authorities; or Node's own options. */
  tls?: boolean | ConnectionOptions
  sasl?: KafkaSasl
  /** Time to open a connection, ms; default 1,000. */
  connectTimeoutMs?: number
  /** Time for an answer, on top of what the broker may wait by agreement, ms; default 3,000. */
  requestTimeoutMs?: number
  /** How long one call goes on trying before it throws WEIR_LOG_UNREACHABLE, ms; default 5,000. */
  giveUpMs?: number
  /** Connections to one broker at most; default 256 (each waiting read holds one). */
  maxConnections?: number
  /** Where a broker is reached that names itself so: for tunnels and proxies. */
  reach?: (address: Address) => Address
}

export type KafkaLogOptions = KafkaClientOptions & {
  /** Topic of a dataset; default: its name. */
  topicOf?: (dataset: string) => string
  /** Datasets that remove duplicates, hence refuse a topic with producers' times; default: none. */
  needsAppendTime?: (dataset: string) => boolean
  /** Where a dataset's topic began when the dataset was put on it; asked for at each use, since it may be found through this log. */
  originOf?: (dataset: string) => Origin | undefined
  /** Of topics that are created. Default −1: the broker's default. */
  replicationFactor?: number
  /** Of topics that are created, ms. Default −1: Weir itself trims what is archived and published, Kafka removes nothing. */
  retentionMs?: number
  /** Payload of one send, default 900,000; below the topic's max.message.bytes. */
  sendBytes?: number
  /** Bytes that may wait for their send before appends are refused with WEIR_LOG_BUSY; default 256 MiB. */
  maxPendingBytes?: number
  compression?: 'none' | 'gzip'
  /** Longest wait of one fetch, ms; default 2,000. */
  pollMs?: number
  now?: () => number
  /** Told of records from the future (WEIR_LOG_CLOCK_AHEAD), at most once a minute for each partition. */
  alarm?: (error: Error) => void
}

export type KafkaLog = EventLog & {
  origin(dataset: string): Promise<Origin | null>
  /** Settings of a dataset's topic, null when it is missing. For `weir doctor`. */
  inspect(dataset: string): Promise<TopicSettings | null>
}

const PRODUCE_TIMEOUT_MS = 5_000

/** Opens the log. Connects when first used, so it opens while the brokers are away. */
export const openKafkaLog = async (options: KafkaLogOptions): Promise<KafkaLog> => {
  let isOpen = true
  const topicOf = options.topicOf ?? ((dataset) => dataset)
  const strict = new Set<string>()
  const isStrict = (dataset: string): void => {
    if (options.needsAppendTime?.(dataset)) strict.add(topicOf(dataset))
  }
  const origins = openOrigins()
  const giveUpMs = options.giveUpMs ?? 5_000
  const addresses = options.brokers.map(addressOf)
  const connections = openKafkaConnections(options)
  const cluster = openCluster(connections, {
    brokers: addresses,
    giveUpMs,
    admit: async (topic) =>
      checkSettings(topic, await readSettings(connections, cluster.addresses(), topic), strict.has(topic)),
    isOpen: () => isOpen,
  })
  const proofs = openProofs()
  const pollMs = options.pollMs ?? 2_000
  const reader = openReader(cluster, proofs, {
    pollMs,
    now: options.now ?? Date.now,
    alarm: options.alarm ?? (() => undefined),
    originOf: origins.of,
    isOpen: () => isOpen,
  })
  const read = openWaiting(reader, pollMs)
  const positions = openPositions(cluster, proofs, origins.of)
  const append = openProducer(cluster, {
    sendBytes: options.sendBytes ?? 900_000,
    maxPendingBytes: options.maxPendingBytes ?? 256 * 1024 * 1024,
    produceTimeoutMs: PRODUCE_TIMEOUT_MS,
    compression: options.compression ?? 'none',
    now: options.now ?? Date.now,
    isOpen: () => isOpen,
  })

  /** The dataset's topic; the place where a closed log says so. */
  const topic = (dataset: string): string => {
    if (!isOpen) throw closed()
    isStrict(dataset)
    const name = topicOf(dataset)
    origins.set(name, options.originOf?.(dataset))
    return name
  }

  return {
    create: async (dataset, partitions) =>
      createTopic(
        cluster,
        {
          topic: topic(dataset),
          partitions,
          replicationFactor: options.replicationFactor ?? -1,
          retentionMs: options.retentionMs ?? -1,
        },
        giveUpMs,
      ),
    partitions: async (dataset) => (await cluster.topic(topic(dataset), TOPIC_AGE_MS))?.partitions ?? [],
    range: async (dataset, partition) => positions.range(topic(dataset), partition),
    positionAt: async (dataset, partition, offset) => positions.positionAt(topic(dataset), partition, offset),
    append: async (dataset, partition, records) => {
      const name = topic(dataset)
      checkRecords(records)
      if (records.length > 0) return append(name, partition, records)
      const { endOffset } = await positions.range(name, partition)
      const end = await positions.positionAt(name, partition, endOffset)
      if (end === null) throw unknownPartition(dataset, partition)
      return end
    },
    read: async (dataset, partition, from, limits) => {
      const nothing: ReadResult = { kind: 'records', records: [], to: from, logEndOffset: from.offset }
      const work = read(topic(dataset), partition, from, limits).catch((error: unknown) => {
        // A reader that waits while the log is closed is let go, as by its signal.
        if (!isOpen) return nothing
        throw error
      })
      return limits.signal === undefined ? work : untilAborted(work, limits.signal, nothing)
    },
    trim: async (dataset, partition, offset) => {
      const name = topic(dataset)
      // The record before `offset` stays: without it a position at `offset` could not be proven any more.
      const before = await positions.recordBefore(name, partition, offset)
      if (before === null || before <= (await positions.range(name, partition)).startOffset - 1) return
      await cluster.onLeader(name, partition, `trimming ${name}/${partition}`, (leader) =>
        leader.lend((broker) =>
          broker.deleteRecords({ topics: [{ topic: name, partitions: [{ partition, offset: String(before) }] }] }),
        ),
      )
    },
    origin: async (dataset) => originNow(cluster, positions.low, topic(dataset)),
    inspect: async (dataset) => {
      const name = topic(dataset)
      return readSettings(connections, cluster.addresses(), name).catch((error: unknown) => {
        if (refusalOf(error) === KAFKA.unknownTopic) return null
        throw toWeirError(error, `the settings of topic ${name}`)
      })
    },
    close: async () => {
      isOpen = false
      await connections.close()
    },
  }
}

export const openKafkaConnections = (options: KafkaClientOptions) =>
  openConnections(loadKafkajs(), {
    clientId: options.clientId ?? 'weir',
    tls: options.tls,
    sasl: options.sasl,
    connectTimeoutMs: options.connectTimeoutMs ?? 1_000,
    requestTimeoutMs: options.requestTimeoutMs ?? 3_000,
    maxConnections: options.maxConnections ?? 256,
    reach: options.reach,
  })

/** `host:port`, `[v6]:port`; the port is 9092 when left out. */
export const addressOf = (text: string): Address => {
  const found = /^(?:\[(.+)\]|([^:]+))(?::(\d+))?$/.exec(text)
  return { host: found?.[1] ?? found?.[2] ?? text, port: Number(found?.[3] ?? 9092) }
}

const checkRecords = (records: NewRecord[]): void => {
  for (const { recordId, bytes, events } of records) {
    if (!/^[0-9a-f]{32}$/.test(recordId)) throw badRecord(`recordId ${JSON.stringify(recordId)}`)
    if (!Number.isInteger(events) || events < 1) throw badRecord(`events ${events}`)
    if (bytes.byteLength === 0) throw badRecord('0 bytes')
  }
}

const untilAborted = async <T>(work: Promise<T>, signal: AbortSignal, instead: T): Promise<T> => {
  if (signal.aborted) {
    work.catch(() => undefined)
    return instead
  }
  let stop: () => void = () => undefined
  const aborted = new Promise<T>((resolve) => {
    stop = () => resolve(instead)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
    work.catch(() => undefined)
  }
}
