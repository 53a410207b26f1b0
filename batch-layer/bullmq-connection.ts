/**
 * Connections and queues of BullMQ: single Redis, Sentinel or Cluster. Vendors are loaded when they are asked for, so that the embedded
 * profile pays nothing for them. Invariant: every key begins with one hash tag, so that BullMQ's scripts run in a Cluster too; secrets
 * never come into an error.
 */
import type { Queue } from 'bullmq'
import type { Cluster, Redis, RedisOptions } from 'ioredis'
import { WeirError } from '../model/errors.ts'
import type { RedisPlace } from '../model/redis-place.ts'
import { within } from './scheduling.ts'

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

/** Where the servers are, without secrets. */
const addressOf = ({ url, cluster, sentinel }: RedisPlace): string => {
  if (cluster !== undefined) return cluster.join(', ')
  if (sentinel !== undefined) return `${sentinel.name} of ${sentinel.nodes.join(', ')}`
  return url !== undefined && URL.canParse(url) ? new URL(url).host : 'an address that is no URL'
}

const nodeOf = (address: string): { host: string; port: number } => {
  const { hostname, port } = new URL(`redis://${address}`)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
}

export const unreachable = (connection: RedisPlace, cause: unknown): WeirError =>
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
export const asked = async <T>(connection: RedisPlace, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    throw error instanceof WeirError ? error : unreachable(connection, error)
  }
}

/** Milliseconds after which a call that is not answered fails. Workers, who have time, ask again. */
const CALL_MS = 10_000
const RETRY_MS = 2_000
/**
 * Milliseconds without an answer after which a connection is given up: a server whose machine has gone closes none, and its successor
 * would never be asked for. Longer than BullMQ's longest wait for a job (10 s).
 */
const SILENT_MS = 15_000

/** What is given; ioredis takes an undefined option for a value. */
const given = <T extends object>(options: T): Partial<T> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>

export type ClientKind = 'calls' | 'worker'

/**
 * A client that is connected. 'calls' fail in time, for whoever waits for an answer; those of a 'worker' wait for a server that went away,
 * as BullMQ wants it. Throws WEIR_BATCH_REDIS.
 */
export const connect = async (
  connection: RedisPlace,
  kind: ClientKind,
  onError: (error: unknown) => void,
): Promise<RedisClient> => {
  const { Cluster, Redis } = await import('ioredis')
  const { url, cluster, sentinel, username, password, db, tls } = connection
  const common: RedisOptions = {
    ...given({ username, password, tls }),
    maxRetriesPerRequest: kind === 'worker' ? null : 3,
    ...(kind === 'worker' ? {} : { commandTimeout: CALL_MS }),
    connectTimeout: CALL_MS,
    socketTimeout: SILENT_MS,
  }
  const again = (times: number): number => Math.min(50 * 2 ** Math.min(times, 6), RETRY_MS)
  const alone = { ...common, ...given({ db }), retryStrategy: again, lazyConnect: true }
  let client: RedisClient
  if (cluster !== undefined)
    client = new Cluster(cluster.map(nodeOf), { clusterRetryStrategy: again, lazyConnect: true, redisOptions: common })
  else if (sentinel !== undefined) {
    const { nodes, name, username: sentinelUsername, password: sentinelPassword, tls: sentinelTLS = tls } = sentinel
    const access = given({ sentinelUsername, sentinelPassword, sentinelTLS })
    const secure = { enableTLSForSentinelMode: tls !== undefined }
    client = new Redis({
      ...alone,
      ...access,
      ...secure,
      sentinelRetryStrategy: again,
      sentinels: nodes.map(nodeOf),
      name,
    })
  } else client = new Redis(url ?? '', alone)
  let lately: unknown
  client.on('error', (error) => {
    lately = error
    onError(unreachable(connection, error))
  })
  try {
    // Sentinels that nobody answers at are asked for ever.
    if (!(await within(client.connect(), CALL_MS))) throw new Error(`no connection within ${CALL_MS} ms`)
    return client
  } catch (error) {
    client.disconnect()
    throw unreachable(connection, lately ?? error)
  }
}

const PING_MS = 2_000
/** Whether the server answers now. BullMQ's orderly ways of closing wait for one that is away for ever. */
export const answers = (client: RedisClient): Promise<boolean> => within(client.ping(), PING_MS).catch(() => false)

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
