/**
 * What we take from inside kafkajs (2.2.4, exact): connections with TLS and SASL, and the requests of its `Broker`.
 * Its consumer is not used at all: it resets an out-of-range offset by itself and commits the reset. Its cluster and
 * producer are not used either, since topic ids, leader epochs and aborted transactions do not pass through them.
 * The package has no `exports` map, so deep imports work; the types below are those of the very version pinned.
 */
import { createRequire } from 'node:module'
import type { ConnectionOptions } from 'node:tls'

export type KafkaSasl = {
  mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
  username: string
  password: string
}

export type Protocol<T> = {
  request: { apiKey: number; apiVersion: number; apiName: string; encode(): Promise<unknown> }
  response: { decode(raw: Buffer): Promise<T>; parse(decoded: T): Promise<T> }
  logResponseError?: boolean
}

export type KafkaConnection = {
  isConnected(): boolean
  send<T>(protocol: Protocol<T>): Promise<T>
  rejectRequests(error: Error): void
  disconnect(): Promise<unknown>
  socket?: { destroy(): void }
  requestQueue: { pending: unknown[]; scheduleCheckPendingRequests(): void }
}

type Versions = Record<number, { minVersion: number; maxVersion: number }>

export type KafkaBroker = {
  versions: Versions | null
  connectionPool: { pool: KafkaConnection[]; getConnection(index: number): Promise<KafkaConnection> }
  connect(): Promise<void>
  createTopics(request: {
    topics: {
      topic: string
      numPartitions: number
      replicationFactor: number
      configEntries: { name: string; value: string }[]
    }[]
    timeout: number
  }): Promise<unknown>
  describeConfigs(request: { resources: { type: number; name: string; configNames: string[] }[] }): Promise<{
    resources: { errorCode: number; configEntries: { configName: string; configValue: string | null }[] }[]
  }>
  deleteRecords(request: {
    topics: { topic: string; partitions: { partition: number; offset: string }[] }[]
  }): Promise<unknown>
  findGroupCoordinator(request: { groupId: string; coordinatorType: number }): Promise<{
    coordinator: { nodeId: number; host: string; port: number }
  }>
  joinGroup(request: {
    groupId: string
    sessionTimeout: number
    rebalanceTimeout: number
    memberId: string
    groupProtocols: { name: string; metadata: Buffer }[]
  }): Promise<{
    generationId: number
    leaderId: string
    memberId: string
    members: { memberId: string; memberMetadata: Buffer }[]
  }>
  syncGroup(request: {
    groupId: string
    generationId: number
    memberId: string
    groupAssignment: { memberId: string; memberAssignment: Buffer }[]
  }): Promise<{ memberAssignment: Buffer }>
  heartbeat(request: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>
}

type PoolOptions = {
  host: string
  port: number
  ssl: boolean | ConnectionOptions | undefined
  sasl: KafkaSasl | undefined
  clientId: string
  connectionTimeout: number
  requestTimeout: number
}

export type Kafkajs = {
  openBroker(options: PoolOptions): KafkaBroker
  /** Bytes as kafkajs' connection wants them. */
  encoded(bytes: Buffer): unknown
}

type Constructor<O, T> = new (options: O) => T

/** Loads kafkajs; called once a Kafka log is opened, so that the embedded profile never does. */
export const loadKafkajs = (): Kafkajs => {
  const require = createRequire(import.meta.url)
  const Broker = require('kafkajs/src/broker') as Constructor<Record<string, unknown>, KafkaBroker>
  const ConnectionPool = require('kafkajs/src/network/connectionPool') as Constructor<
    Record<string, unknown>,
    KafkaBroker['connectionPool']
  >
  const socketFactory = require('kafkajs/src/network/socketFactory') as () => unknown
  const { createLogger } = require('kafkajs/src/loggers') as { createLogger(options: unknown): unknown }
  const Encoder = require('kafkajs/src/protocol/encoder') as new () => { writeBuffer(bytes: Buffer): unknown }
  // What goes wrong reaches the caller as an error, so kafkajs itself stays silent.
  const logger = createLogger({ level: 0, logCreator: () => () => undefined })
  return {
    openBroker: (options) => {
      const connectionPool = new ConnectionPool({
        ...options,
        socketFactory: socketFactory(),
        logger,
        // Its timer looks at every connection ten times a second; requests are timed one by one in kafka-connections.
        enforceRequestTimeout: false,
        maxInFlightRequests: null,
      })
      for (const { requestQueue } of connectionPool.pool) {
        // Left alone, it sets a timer of 1 ms after every response, for ever (kafkajs #1751): 3 % of a core at rest.
        const schedule = requestQueue.scheduleCheckPendingRequests.bind(requestQueue)
        requestQueue.scheduleCheckPendingRequests = () => {
          if (requestQueue.pending.length > 0) schedule()
        }
      }
      return new Broker({ connectionPool, logger })
    },
    encoded: (bytes) => new Encoder().writeBuffer(bytes),
  }
}
