/**
 * Random lives of a partition whose speed state is in Redis: two workers, cuts, publishes, lost requests and replies, keys deleted
 * behind their back, a Redis that comes back empty or older. Whenever it has settled, what is stored equals the reference.
 * WEIR_SPEED_SEEDS asks for more seeds.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { samePosition } from '../../model/position.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { below, rng } from '../support/orders.ts'
import { until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { openRedisProxy, openRedisServer, type RedisProxy, type RedisServer } from './redis-server.ts'
import { allViews, byCountry, differences, openWorld, settle } from './support.ts'

const KEY = { dataset: 'orders', partition: 0 }
const SEEDS = Number(process.env.WEIR_SPEED_SEEDS ?? 3)
const STEPS = 60

describe.skipIf(service('REDIS_URL') === null)('the speed worker on Redis', () => {
  let engine: Engine
  let server: RedisServer
  let proxy: RedisProxy
  beforeAll(async () => {
    engine = await openEngine()
    server = await openRedisServer()
    proxy = await openRedisProxy(server.port)
  })
  afterAll(async () => {
    await engine?.close()
    await proxy?.close()
    await server?.remove()
  })
  const openLife = async (keyPrefix: string) => {
    const store = await openRedisSpeedStore({ url: server.url, keyPrefix })
    const lossy = await openRedisSpeedStore({ url: proxy.url, keyPrefix, timeoutMs: 1_000 })
    const world = await openWorld({ log: openMemoryLog(), store, engine })
    const close = async (): Promise<void> => {
      await world.close()
      await lossy.close()
    }
    return { world, store, lossy, close, keys: async () => (await server.client.keys(`${keyPrefix}:*`)).sort() }
  }
  /** A Redis that was away is there again for both handles. */
  const answers = (stores: { header(k: typeof KEY): Promise<unknown> }[]) =>
    Promise.all(
      stores.map((s) =>
        until('the store', 10_000, async () => ((await s.header(KEY)) === undefined ? undefined : true)),
      ),
    )

  it.each(Array.from({ length: SEEDS }, (_, i) => i + 1))('seed %i', async (seed) => {
    const random = rng(seed * 104_729)
    const { world, store, lossy, close, keys } = await openLife(`life-${seed}`)
    world.fed = allViews.slice(0, 1 + below(random, allViews.length))
    const workers = [await world.worker({ store: lossy }), await world.worker()]
    const trace: string[] = []
    let copy = await server.copy()
    const step = (i: number) => workers[i]!.step().catch((error: Error) => trace.push(error.message))
    const restart = async (data: Parameters<RedisServer['start']>[0]): Promise<void> => {
      await server.start(data)
      await answers([store, lossy])
    }
    const publishSome = async (): Promise<void> => {
      const view = world.fed[below(random, world.fed.length)]!
      const cuts = ((await store.header(KEY))?.views[view.version]?.epochs ?? []).slice(1).map((e) => e.from)
      const cut = cuts[below(random, cuts.length)]
      if (cut === undefined || cut.offset <= (world.cuts.get(view.version)?.offset ?? 0)) return
      if (!samePosition(cut, world.positions[cut.offset]!)) return
      world.publish(view, cut.offset)
      if (random() < 0.7) await store.retire(KEY, view.version, cut)
    }
    const actions: [number, string, () => Promise<unknown>][] = [
      [8, 'append', () => world.append(random, 1 + below(random, 8))],
      [10, 'step a', () => step(0)],
      [8, 'step b', () => step(1)],
      [3, 'both', () => Promise.all([step(0), step(1)])],
      [
        5,
        'cut',
        () =>
          store.cut(KEY, world.fed[below(random, world.fed.length)]!.version, below(random, world.known.length + 6)),
      ],
      [5, 'publish', publishSome],
      [3, 'lose a request', async () => proxy.loseNext('request')],
      [3, 'lose a reply', async () => proxy.loseNext('reply')],
      [
        3,
        'delete a key',
        async () => {
          const names = await keys()
          if (names.length > 0) await server.client.del(names[below(random, names.length)]!)
        },
      ],
      [1, 'crash', () => restart('kept')],
      [0.5, 'lose all', () => restart('none')],
      [
        1,
        'copy',
        async () => {
          copy = await server.copy()
        },
      ],
      [0.7, 'go back', () => restart({ copy })],
    ]
    const total = actions.reduce((n, [weight]) => n + weight, 0)
    try {
      for (let i = 0; i < STEPS; i++) {
        let at = random() * total
        const action = actions.find(([weight]) => {
          at -= weight
          return at < 0
        })!
        trace.push(action[1])
        await action[2]()
      }
      for (const [i, worker] of workers.entries())
        await until(`worker ${i}`, 20_000, () => settle(world, worker).then(() => true as const))
      expect(await differences(world)).toEqual([])
      expect(world.alarms).toEqual([])
    } catch (error) {
      throw new Error(`seed ${seed}: ${trace.join(', ')}`, { cause: error })
    } finally {
      for (const worker of workers) await worker.close()
      await close()
    }
  })

  it.each(['while idle', 'under load'] as const)('notices %s that an epoch was deleted, and mends it', async (when) => {
    const random = rng(5)
    const { world, store, close, keys } = await openLife(`deleted-${when.split(' ')[1]}`)
    // Nothing but the store's own look at what is there: no epoch is read again for its digest.
    const worker = await world.worker({ verifyEveryMs: 1e9, lookEveryMs: 1e9 })
    try {
      await world.append(random, 10)
      await settle(world, worker)
      await store.cut(KEY, byCountry.version, 0)
      await world.append(random, 10)
      await settle(world, worker)
      for (const of of [byCountry.version, allViews[2]!.version]) {
        const key = (await keys()).find((name) => name.includes(`:b:${of}:`))!
        await server.client.del(key)
        expect(await store.header(KEY)).toBeNull()
        if (when === 'under load') await world.append(random, 3)
        await settle(world, worker)
        expect(await differences(world)).toEqual([])
      }
    } finally {
      await worker.close()
      await close()
    }
  })
})
