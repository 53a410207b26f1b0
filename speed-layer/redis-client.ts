/**
 * A connection to Redis: one server, Sentinels, or a Cluster.
 * Invariant: a command is sent once. When its reply is lost the call fails and the caller reads what is stored; a client that
 * sends again by itself would see the change that it has made as somebody else's (docs/decisions/redis-compare-and-set.md).
 * Only what a server has refused before it began is asked again (a script that it does not know, a slot that has moved).
 * ioredis is loaded when the first connection is opened, so that the embedded profile never does.
 */
import type { Cluster, Redis } from 'ioredis'
import type { RedisPlace } from '../model/redis-place.ts'
import { badRedisOptions, firstWord, redisFailure } from './redis-errors.ts'
import type { Script } from './redis-scripts.ts'

export type RedisOptions = RedisPlace & {
  /** Longest wait for an answer or a connection in ms, beyond the time that a large request takes to send; default 5000. */
  timeoutMs?: number
}

export type Argument = string | Buffer | number

export type RedisConnection = {
  /** Addresses as given, without secrets. */
  at: string
  kind: 'single' | 'sentinel' | 'cluster'
  /** Runs a script; Buffers for text. Throws a WeirError; see redis-errors.ts. */
  run(script: Script, keys: string[], args: Argument[], isWrite: boolean): Promise<unknown>
  /** A command that reads, on the master of its first key. */
  read(command: string, args: Argument[]): Promise<unknown>
  /** A command on every master, by address. */
  onMasters(command: string, args: string[]): Promise<{ node: string; reply: string | Error }[]>
  close(): Promise<void>
}

const TIMEOUT_MS = 5_000
/** Time without an answer after which a connection is given up, as a multiple of the time after which a call is. */
const SOCKET_TIMEOUTS = 4
/** Slowest network that large requests are given time for, in bytes per ms. */
const SEND_RATE = 4_000
/** Longest pause between attempts to connect. */
const RECONNECT_MS = 1_000

const address = (text: string): { host: string; port: number } => {
  const match = /^(?:\[([^\]]+)\]|([^:[\]/@\s]+)):(\d{1,5})$/.exec(text.trim())
  if (match === null) throw badRedisOptions('An address of Redis is not one.', 'host:port', text.replace(/.*@/, '…@'))
  return { host: (match[1] ?? match[2])!, port: Number(match[3]) }
}

const single = (text: string): { host: string; port: number; username?: string; password?: string; db?: number } => {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !['redis:', 'rediss:'].includes(url.protocol) || !/^(\/\d*)?$/.test(url.pathname))
    throw badRedisOptions('The URL of Redis is not one.', 'redis://host:port or rediss://host:port', 'another form')
  return {
    host: url.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1',
    port: Number(url.port || 6379),
    ...(url.username ? { username: decodeURIComponent(url.username) } : {}),
    ...(url.password ? { password: decodeURIComponent(url.password) } : {}),
    ...(url.pathname.length > 1 ? { db: Number(url.pathname.slice(1)) } : {}),
  }
}

const place = (options: RedisOptions): Pick<RedisConnection, 'at' | 'kind'> => {
  const given = [options.url, options.cluster, options.sentinel].filter((o) => o !== undefined)
  if (given.length !== 1)
    throw badRedisOptions('The place of Redis is not given once.', 'one of url, cluster, sentinel', `${given.length}`)
  if (options.cluster !== undefined) return { kind: 'cluster', at: options.cluster.join(',') }
  if (options.sentinel !== undefined)
    return { kind: 'sentinel', at: `${options.sentinel.name} of ${options.sentinel.nodes.join(',')}` }
  const { host, port } = single(options.url!)
  return { kind: 'single', at: `${host}:${port}` }
}

const connect = async (options: RedisOptions, timeoutMs: number): Promise<Redis | Cluster> => {
  const { Redis, Cluster } = await import('ioredis')
  const retryStrategy = (times: number): number => Math.min(50 * 2 ** Math.min(times, 10), RECONNECT_MS)
  const common = {
    // In flight when a connection ends: fails at once, is never sent again.
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: timeoutMs,
    // A connection to what is no longer there. Later than the call, which may be a large one that is still being sent.
    socketTimeout: SOCKET_TIMEOUTS * timeoutMs,
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: options.password }),
    ...(options.db === undefined ? {} : { db: options.db }),
    ...(options.tls === undefined ? {} : { tls: options.tls }),
  }
  if (options.cluster !== undefined)
    return new Cluster(options.cluster.map(address), {
      redisOptions: common,
      lazyConnect: true,
      scaleReads: 'master',
      clusterRetryStrategy: retryStrategy,
      // A command whose connection was lost may have been carried out.
      retryDelayOnFailover: 0,
      slotsRefreshInterval: 2_000,
      slotsRefreshTimeout: timeoutMs,
    })
  if (options.sentinel !== undefined) {
    const { nodes, name, username, password, tls = options.tls } = options.sentinel
    return new Redis({
      ...common,
      retryStrategy,
      sentinelRetryStrategy: retryStrategy,
      lazyConnect: true,
      sentinels: nodes.map(address),
      name,
      role: 'master',
      ...(username === undefined ? {} : { sentinelUsername: username }),
      ...(password === undefined ? {} : { sentinelPassword: password }),
      // ioredis speaks TLS to a master that Sentinels name only when told so.
      enableTLSForSentinelMode: options.tls !== undefined,
      ...(tls === undefined ? {} : { sentinelTLS: tls }),
    })
  }
  const isTls = options.url!.startsWith('rediss:')
  return new Redis({
    ...common,
    ...(isTls ? { tls: options.tls ?? {} } : {}),
    ...single(options.url!),
    retryStrategy,
    lazyConnect: true,
  })
}

const inTime = async <T>(call: Promise<T>, ms: number): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([call, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Connects. Throws WEIR_SPEED_REDIS_OPTIONS, WEIR_SPEED_REDIS_REFUSED, WEIR_SPEED_REDIS_UNREACHABLE (to be tried again). */
export const openRedis = async (options: RedisOptions): Promise<RedisConnection> => {
  const { at, kind } = place(options)
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS
  const client = await connect(options, timeoutMs)
  let last: unknown
  // Told with the call that fails; ioredis goes on trying by itself.
  client.on('error', (error) => {
    last = error
  })
  client.on('ready', () => {
    last = undefined
  })
  const attempt = async <T>(isWrite: boolean, call: () => Promise<T>, bytes = 0): Promise<T> => {
    try {
      return await inTime(call(), timeoutMs + bytes / SEND_RATE)
    } catch (error) {
      throw redisFailure(error, { isWrite, at, last })
    }
  }
  try {
    await attempt(false, () => client.connect())
  } catch (error) {
    client.disconnect()
    throw error
  }
  return {
    at,
    kind,
    run: (script, keys, args, isWrite) => {
      const rest = [keys.length, ...keys, ...args]
      const bytes = args.reduce<number>((n, a) => n + (Buffer.isBuffer(a) ? a.byteLength : 0), 0)
      const call = async (): Promise<unknown> => {
        try {
          return await client.callBuffer('evalsha', [script.sha, ...rest])
        } catch (error) {
          if (firstWord(error) !== 'NOSCRIPT') throw error
          return client.callBuffer('eval', [script.lua, ...rest])
        }
      }
      return attempt(isWrite, call, bytes)
    },
    read: (command, args) => attempt(false, () => client.callBuffer(command, args)),
    onMasters: async (command, args) => {
      const nodes = 'nodes' in client ? client.nodes('master') : [client]
      return Promise.all(
        nodes.map(async (node) => ({
          node: kind === 'single' ? at : `${node.options.host}:${node.options.port}`,
          reply: await inTime(node.call(command, args), timeoutMs).then(String, (error: unknown) =>
            error instanceof Error ? error : new Error(String(error)),
          ),
        })),
      )
    },
    close: async () => client.disconnect(),
  }
}
