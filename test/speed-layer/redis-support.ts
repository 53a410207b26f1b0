/** A part of a Redis that a test has for itself: its own prefix of keys, removed afterwards. */
import { randomBytes } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import type { RedisOptions } from '../../speed-layer/redis-client.ts'
import { openRedisSpeedStore, type RedisSpeedStoreOptions } from '../../speed-layer/redis-speed-store.ts'

export type OwnRedis = {
  prefix: string
  options: RedisOptions
  open(options?: Partial<RedisSpeedStoreOptions>): Promise<SpeedStore>
  /** Keys under the prefix, on whatever node. */
  keys(): Promise<string[]>
  client: Redis | Cluster
  deleteBlocks(n: number): Promise<number>
  remove(): Promise<void>
}

export const placeOf = (name: 'REDIS_URL' | 'REDIS_CLUSTER', at: string): RedisOptions =>
  name === 'REDIS_URL' ? { url: at } : { cluster: at.split(',') }

export const speedStoreOnRedis = (name: 'REDIS_URL' | 'REDIS_CLUSTER', at: string): Promise<OwnRedis> =>
  ownRedis(placeOf(name, at))

export const ownRedis = async (options: RedisOptions): Promise<OwnRedis> => {
  const prefix = `test-${randomBytes(6).toString('hex')}`
  const client =
    options.cluster === undefined
      ? new Redis(options.url!)
      : new Cluster(options.cluster.map((a) => ({ host: a.split(':')[0]!, port: Number(a.split(':')[1]) })))
  client.on('error', () => undefined)
  const nodes = (): Redis[] => ('nodes' in client ? client.nodes('master') : [client])
  const keys = async (): Promise<string[]> => {
    const found: string[] = []
    if ('nodes' in client) await client.ping()
    for (const node of nodes())
      for await (const some of node.scanStream({ match: `${prefix}:*`, count: 1_000 }))
        found.push(...(some as string[]))
    return found.sort()
  }
  return {
    prefix,
    options,
    client,
    keys,
    open: (more = {}) => openRedisSpeedStore({ ...options, ...more, keyPrefix: prefix }),
    deleteBlocks: async (n) => {
      let deleted = 0
      for (const key of (await keys()).filter((name) => name.includes('}:b:')))
        for (const id of await client.hkeys(key)) if (deleted < n) deleted += await client.hdel(key, id)
      return deleted
    },
    remove: async () => {
      for (const key of await keys()) await client.unlink(key)
      client.disconnect()
    },
  }
}
