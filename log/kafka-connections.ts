/**
 * Connections to Kafka brokers. A broker answers the requests of one connection one after the other, a waiting fetch included;
 * so each running request has a connection of its own, taken from a free list or opened anew.
 * Invariant: a request ends within its time-out, and a connection that failed or was late is never used again.
 */
import type { ConnectionOptions } from 'node:tls'
import { brokerTooOld, refusalOf, unreachable } from './kafka-errors.ts'
import type { KafkaBroker, KafkaConnection, Kafkajs, KafkaSasl } from './kafka-internals.ts'
import { closed } from './log-errors.ts'

export type Address = { host: string; port: number }

export type ConnectionsOptions = {
  clientId: string
  tls?: boolean | ConnectionOptions
  sasl?: KafkaSasl
  connectTimeoutMs: number
  requestTimeoutMs: number
  /** Connections to one broker at most; more requests wait for a free one. */
  maxConnections: number
  /** Where a broker is reached that names itself so: for tunnels and proxies. */
  reach?: (address: Address) => Address
}

/** One request of our own: already encoded, header version 1 included where the API is flexible. */
export type Request<T> = {
  apiKey: number
  apiVersion: number
  apiName: string
  body: Buffer
  decode(payload: Buffer): T
  /** How long the broker may take by agreement, on top of the request time-out. */
  waitMs?: number
}

export type Connections = {
  send<T>(address: Address, request: Request<T>): Promise<T>
  /** Lends kafkajs' broker for one of its own requests. */
  lend<T>(address: Address, use: (broker: KafkaBroker) => Promise<T>, waitMs?: number): Promise<T>
  close(): Promise<void>
}

const FETCH = 1
const METADATA = 3

type Lane = { broker: KafkaBroker; connection: KafkaConnection }
type Node = { free: Lane[]; lanes: Set<Lane>; waiting: (() => void)[] }

export const openConnections = (kafkajs: Kafkajs, options: ConnectionsOptions): Connections => {
  const nodes = new Map<string, Node>()
  let isOpen = true

  const nodeOf = ({ host, port }: Address): Node => {
    const key = `${host}:${port}`
    const node = nodes.get(key) ?? { free: [], lanes: new Set(), waiting: [] }
    nodes.set(key, node)
    return node
  }

  const drop = (node: Node, lane: Lane, error: Error): void => {
    node.lanes.delete(lane)
    lane.connection.rejectRequests(error)
    lane.connection.socket?.destroy()
    void lane.connection.disconnect().catch(() => undefined)
  }

  /** `work` or a rejection after `ms`, whichever comes first; late work is given to `late`. */
  const within = async <T>(ms: number, work: Promise<T>, late: (error: Error) => void): Promise<T> => {
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const error = new Error(`no answer within ${ms} ms`)
        reject(error)
        late(error)
      }, ms)
    })
    try {
      return await Promise.race([work, limit])
    } finally {
      clearTimeout(timer)
      work.catch(() => undefined)
    }
  }

  const openLane = async (address: Address, node: Node): Promise<Lane> => {
    const { connectTimeoutMs, requestTimeoutMs } = options
    const broker = kafkajs.openBroker({
      ...address,
      ssl: options.tls,
      sasl: options.sasl,
      clientId: options.clientId,
      connectionTimeout: connectTimeoutMs,
      requestTimeout: requestTimeoutMs,
    })
    const lane = { broker, connection: broker.connectionPool.pool[0]! }
    node.lanes.add(lane)
    try {
      await within(connectTimeoutMs + requestTimeoutMs, broker.connect(), (error) => drop(node, lane, error))
      const has = (api: number, version: number) => (broker.versions?.[api]?.maxVersion ?? -1) >= version
      if (!has(FETCH, 13) || !has(METADATA, 12)) throw brokerTooOld(JSON.stringify(broker.versions?.[FETCH] ?? null))
      if (!isOpen) throw closed()
      return lane
    } catch (error) {
      drop(node, lane, error instanceof Error ? error : new Error(String(error)))
      throw error
    }
  }

  const take = async (address: Address, node: Node): Promise<Lane> => {
    for (;;) {
      if (!isOpen) throw closed()
      const lane = node.free.pop()
      if (lane?.connection.isConnected()) return lane
      if (lane !== undefined) {
        drop(node, lane, new Error('the broker closed the connection'))
        continue
      }
      if (node.lanes.size < options.maxConnections) return openLane(address, node)
      await new Promise<void>((resolve) => node.waiting.push(resolve))
    }
  }

  const lend = async <T>(address: Address, use: (lane: Lane) => Promise<T>, waitMs = 0): Promise<T> => {
    const reached = options.reach?.(address) ?? address
    const node = nodeOf(reached)
    try {
      const lane = await take(reached, node)
      let healthy = true
      try {
        return await within(options.requestTimeoutMs + waitMs, use(lane), (error) => {
          healthy = false
          drop(node, lane, error)
        })
      } catch (error) {
        // An answer that says no leaves the connection whole; anything else may have left half an answer in it.
        if (healthy && refusalOf(error) === undefined) {
          healthy = false
          drop(node, lane, error instanceof Error ? error : new Error(String(error)))
        }
        throw error
      } finally {
        if (healthy && isOpen) node.free.push(lane)
      }
    } finally {
      node.waiting.shift()?.()
    }
  }

  return {
    send: (address, { apiKey, apiVersion, apiName, body, decode, waitMs }) =>
      lend(
        address,
        ({ connection }) =>
          connection.send({
            request: { apiKey, apiVersion, apiName, encode: async () => kafkajs.encoded(body) },
            response: { decode: async (raw) => decode(raw), parse: async (decoded) => decoded },
            logResponseError: false,
          }),
        waitMs,
      ),
    lend: (address, use, waitMs) => lend(address, ({ broker }) => use(broker), waitMs),
    close: async () => {
      isOpen = false
      for (const node of nodes.values()) {
        for (const lane of [...node.lanes]) drop(node, lane, unreachable('the log is closed', 'closed'))
        for (const wake of node.waiting.splice(0)) wake()
      }
    },
  }
}
