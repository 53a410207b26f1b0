/** The Redis speed store in a Cluster of its own: a master that hands over, one that is killed. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { blockHash, digestOf } from '../../model/digest.ts'
import type { Apply, Block, SpeedStore, StoreKey } from '../../model/ports/speed-store.ts'
import { checkRedis } from '../../speed-layer/redis-check.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { redisKeys } from '../../speed-layer/redis-values.ts'
import { freePort, until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { openRedisServer, type RedisServer } from './redis-server.ts'
import { at, fresh, G, V } from './redis-steps.ts'

const PARTITIONS = 6
const keyOf = (partition: number): StoreKey => ({ dataset: 'orders', partition })

/** Goes on by one record from what is stored, as a worker that has to look first. */
const step = async (store: SpeedStore, key: StoreKey): Promise<string> => {
  const header = await store.header(key)
  if (header === null) return store.rebuild(key, null, fresh)
  const bytes = Buffer.from(`${header.position.offset}\n`)
  const id = `b.${header.position.offset % 4}`
  const own: Block = { id, bytes, hash: blockHash(id, bytes) }
  const all = new Map([...(await store.blocks(key, V, G)), own].map((b) => [b.id, b.hash]))
  const write = { epoch: G, blocks: [own], blockCount: all.size, digest: digestOf(all.values()) }
  const to = at(header.position.offset + 1)
  const apply: Apply = { ...fresh, from: header.position, to, counted: to.offset, views: { [V]: write } }
  return store.apply(key, apply)
}

describe.skipIf(service('REDIS_CLUSTER') === null)('the speed store in a Redis Cluster that changes', () => {
  let servers: RedisServer[] = []
  let store: SpeedStore
  const nodes = () => servers.map((s) => `127.0.0.1:${s.port}`)
  beforeAll(async () => {
    servers = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const bus = ['--cluster-port', `${await freePort()}`]
        const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '1000', '--maxmemory', '64mb']
        return openRedisServer([...settings, ...bus])
      }),
    )
    await promisify(execFile)('redis-cli', [
      '--cluster',
      'create',
      ...nodes(),
      '--cluster-replicas',
      '1',
      '--cluster-yes',
    ])
    await until('the Cluster', 20_000, async () => {
      const infos = await Promise.all(servers.map((s) => s.client.cluster('INFO')))
      return infos.every((i) => i.includes('cluster_state:ok')) ? true : undefined
    })
    store = await openRedisSpeedStore({ cluster: nodes().slice(0, 2), timeoutMs: 2_000 })
  })
  afterAll(async () => {
    await store?.close()
    await Promise.all(servers.map((s) => s.remove()))
  })
  const roles = async () =>
    Promise.all(
      servers.map(async (server) => ({
        server,
        role: ((await server.client.role().catch(() => ['away'])) as string[])[0]!,
      })),
    )
  const masterOf = async (key: StoreKey): Promise<RedisServer> => {
    const name = redisKeys('weir', key).header
    for (const { server, role } of await roles()) {
      if (role !== 'master') continue
      const got = await server.client.get(name).catch(() => null)
      if (got !== null) return server
    }
    throw new Error(`no master has ${name}`)
  }
  /** Steps on all partitions until the change is over and each has gone on; returns the furthest position that was acknowledged. */
  const under = async (change: () => Promise<unknown>) => {
    const acknowledged = new Map<number, number>()
    const errors: { code: string; retryable: boolean }[] = []
    let over = false
    const walk = async (partition: number): Promise<void> => {
      const key = keyOf(partition)
      let after = 0
      await until(`partition ${partition} to go on`, 30_000, async () => {
        for (let i = 0; i < 20; i++) {
          const outcome = await step(store, key).catch((error) => {
            errors.push(error)
            return 'error'
          })
          if (outcome !== 'applied') return undefined
          const offset = (await store.header(key))!.position.offset
          acknowledged.set(partition, Math.max(acknowledged.get(partition) ?? 0, offset))
          if (over) after++
        }
        return after > 20 ? true : undefined
      })
    }
    const walks = Promise.all(Array.from({ length: PARTITIONS }, (_, p) => walk(p)))
    await change()
    over = true
    await walks
    for (const error of errors) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^WEIR_SPEED_/) })
      expect(error.retryable).toBe(true)
    }
    return { acknowledged, errors }
  }
  const check = async () => {
    for (let p = 0; p < PARTITIONS; p++) {
      const { views, position } = (await store.header(keyOf(p)))!
      const blocks = await store.blocks(keyOf(p), V, G)
      expect(digestOf(blocks.map((b) => blockHash(b.id, b.bytes)))).toBe(views[V]!.epochs[0]!.digest)
      const changes = await store.changelog(keyOf(p), 0)
      expect(changes.at(-1)!.to).toEqual(position)
      for (const [i, entry] of changes.slice(1).entries()) expect(entry.from).toEqual(changes[i]!.to)
    }
  }

  it('goes on through a hand-over of every master, and loses nothing', async () => {
    await Promise.all(Array.from({ length: PARTITIONS }, (_, p) => step(store, keyOf(p))))
    const { acknowledged } = await under(async () => {
      for (const { server, role } of await roles()) {
        if (role !== 'slave') continue
        const isMaster = async () => (((await server.client.role()) as string[])[0] === 'master' ? true : undefined)
        await until('the hand-over', 30_000, async () => {
          // An earlier request may have been granted late.
          if (await isMaster()) return true
          await server.client.cluster('FAILOVER')
          return until('the role', 2_000, isMaster)
        })
      }
    })
    await check()
    for (const [p, offset] of acknowledged)
      expect((await store.header(keyOf(p)))!.position.offset).toBeGreaterThanOrEqual(offset)
  }, 120_000)

  it('goes on after a master was killed, from wherever its replica was', async () => {
    const victim = await masterOf(keyOf(0))
    const { errors } = await under(async () => {
      await victim.kill()
      await until('another master', 20_000, () => masterOf(keyOf(0)))
    })
    expect(errors.length).toBeGreaterThan(0)
    await check()
    const redis = await openRedis({ cluster: nodes().filter((n) => !n.endsWith(`:${victim.port}`)) })
    expect(await checkRedis(redis)).toEqual([])
    await redis.close()
    await victim.start()
    await check()
  })
})
