/**
 * Connections and queues of BullMQ: single Redis, Sentinel or Cluster. Vendors are loaded when they are asked for, so that the embedded
 * profile pays nothing for them. Invariant: every key begins with one hash tag, so that BullMQ's scripts run in a Cluster too; secrets
 * never come into an error.
 */
import type { Queue } from 'bullmq'
import type { Cluster, ClusterOptions, Redis, RedisOptions } from 'ioredis'
import { WeirError } from '../model/errors.ts'

export type Node = { host: string; port: number }
/** Passwords and TLS of the servers themselves. `tls: {}` asks for TLS with the system's roots. */
export type RedisAccess = { username?: string; password?: string; tls?: RedisOptions['tls'] }
export type BullMqConnection =
  | ({ url: string } & RedisAccess)
  | ({ cluster: Node[] } & RedisAccess)
  | ({ sentinels: Node[]; master: string; sentinelPassword?: string; db?: number } & RedisAccess)

export type RedisClient = Redis | Cluster
export const DEFAULT_PREFIX = '{weir}'
/** Names of the queues, under the prefix. */
export const QUEUES = { short: 'short', long: 'long', ticks: 'ticks' } as const
/** Shards of one engine's version only: results of another one are of no use. */
export const shardQueue = (engineVersion: string): string => `shards-${engineVersion.replace(/[^\w.-]/g, '_')}`

/** The prefix, if it has the hash tag that a Cluster needs. */
export const checkedPrefix = (prefix: string): string => {
  if (/^[^{}]*\{[^{}]+\}[^{}]*$/.test(prefix)) return prefix
  throw new WeirError({
    code: 'WEIR_BATCH_PREFIX',
    message: 'The prefix of the job queues has no hash tag.',
    expected: 'a name in braces, such as {weir}: all keys of the queues must lie in one slot',
    got: prefix,
    next: 'put it in braces',
  })
}

const addressOf = (connection: BullMqConnection): string => {
  if ('cluster' in connection) return connection.cluster.map((n) => `${n.host}:${n.port}`).join(', ')
  if ('sentinels' in connection)
    return `${connection.master} by ${connection.sentinels.map((n) => `${n.host}:${n.port}`).join(', ')}`
  try {
    return new URL(connection.url).host
  } catch {
    return 'an address that is no URL'
  }
}

export const unreachable = (connection: BullMqConnection, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_REDIS',
    message: 'The job queues cannot be reached.',
    expected: `an answer of Redis at ${addressOf(connection)}`,
    // Messages of the client name addresses and commands, never passwords.
    got: cause instanceof Error ? cause.message : String(cause),
    next: 'look whether Redis runs and lets this process in; what is queued is kept there, so try again',
    retryable: true,
  })

/** Errors of the client as WEIR_BATCH_REDIS; our own pass. */
export const asked = async <T>(connection: BullMqConnection, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    throw error instanceof WeirError ? error : unreachable(connection, error)
  }
}

/** Milliseconds after which a call that is not answered fails. Workers, who have time, ask again. */
const CALL_MS = 10_000
const RETRY_MS = 2_000

export type ClientKind = 'calls' | 'worker'

/**
 * A client that is connected. 'calls' fail in time, for whoever waits for an answer; those of a 'worker' wait for a server that went away,
 * as BullMQ wants it. Throws WEIR_BATCH_REDIS.
 */
export const connect = async (
  connection: BullMqConnection,
  kind: ClientKind,
  onError: (error: unknown) => void,
): Promise<RedisClient> => {
  const { Cluster, Redis } = await import('ioredis')
  const { username, password, tls } = connection
  const common: RedisOptions = {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined ? {} : { tls }),
    maxRetriesPerRequest: kind === 'worker' ? null : 3,
    ...(kind === 'worker' ? {} : { commandTimeout: CALL_MS }),
    connectTimeout: CALL_MS,
    retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 6), RETRY_MS),
    lazyConnect: true,
  }
  let client: RedisClient
  if ('cluster' in connection) {
    const { lazyConnect: _, retryStrategy, ...redisOptions } = common
    const options: ClusterOptions = { lazyConnect: true, redisOptions }
    if (retryStrategy) options.clusterRetryStrategy = (times) => Number(retryStrategy(times))
    client = new Cluster(connection.cluster, options)
  } else if ('sentinels' in connection) {
    const { sentinels, master: name, sentinelPassword, db } = connection
    client = new Redis({
      ...common,
      sentinels,
      name,
      ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
      ...(db === undefined ? {} : { db }),
    })
  } else client = new Redis(connection.url, common)
  let lately: unknown
  client.on('error', (error) => {
    lately = error
    onError(unreachable(connection, error))
  })
  try {
    await client.connect()
    return client
  } catch (error) {
    client.disconnect()
    throw unreachable(connection, lately ?? error)
  }
}

/** Ends a client whose answers nobody waits for any more. */
export const hangUp = (client: RedisClient): void => client.disconnect()

/** Of each queue: `events` that are kept for those who follow them. */
const EVENTS = 1_000

export const openQueue = async <Data, Result>(
  name: string,
  client: RedisClient,
  prefix: string,
  onError: (error: unknown) => void,
  settings: {
    repeatStrategy?: (millis: number, options: { pattern?: string; tz?: string }) => number | undefined
  } = {},
): Promise<Queue<Data, Result, string, Data, Result, string>> => {
  const bullmq = await import('bullmq')
  const queue = new bullmq.Queue<Data, Result, string, Data, Result, string>(name, {
    connection: client,
    prefix,
    streams: { events: { maxLen: EVENTS } },
    settings,
  })
  queue.on('error', onError)
  return queue
}
