/** The Redis speed store at its bounds: memory that is full, and blocks that are too many for one request. */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { digestOf } from '../../model/digest.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { commitCall } from '../../speed-layer/redis-commit.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { redisKeys } from '../../speed-layer/redis-values.ts'
import { until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { block, type FaultyRedis, fresh, G, KEY, look, openFaultyRedis, step, V } from './redis-steps.ts'

describe.skipIf(service('REDIS_URL') === null)('the speed store on a Redis at its bounds', () => {
  let { server, proxy, direct, store, close } = {} as FaultyRedis
  beforeEach(async () => {
    ;({ server, proxy, direct, store, close } = await openFaultyRedis())
  })
  afterEach(() => close())

  it('writes all or nothing when memory is full, and lets go of what was published', async () => {
    const big = (i: number) => block(`big.${i}`, randomBytes(150_000).toString('hex'))
    const used = Number(/used_memory:(\d+)/.exec(await server.client.info('memory'))![1])
    await server.client.config('SET', 'maxmemory', `${used + 3_000_000}`)
    let before = await look(store)
    const refused = async (): Promise<unknown> => {
      for (let i = 0; i < 40; i += 4) {
        before = await look(direct)
        const outcome = await step(direct, [big(i), big(i + 1), big(i + 2), big(i + 3)]).catch((e) => e)
        if (outcome !== 'applied') return outcome
      }
      return 'never'
    }
    const error = await refused()
    expect(error).toMatchObject({ code: 'WEIR_SPEED_REDIS_REFUSED', retryable: true })
    expect((error as Error).message).toContain('OOM')
    expect(await look(direct)).toEqual(before)
    const { position } = before.header!
    const install = [{ epoch: { from: G, to: position, blocks: 1, digest: big(1).hash }, blocks: [big(1)] }]
    await expect(direct.install(KEY, position, 'other', install)).rejects.toMatchObject({
      code: 'WEIR_SPEED_REDIS_REFUSED',
    })
    expect(await look(direct)).toEqual(before)
    // What a publish needs goes on, however full it is, or memory would never be free again.
    await server.client.config('SET', 'maxmemory', `${used - 100_000}`)
    await expect(step(direct, [])).rejects.toMatchObject({ code: 'WEIR_SPEED_REDIS_REFUSED' })
    expect(await direct.cut(KEY, V, 0)).toEqual(position)
    await direct.retire(KEY, V, position)
    while (!(await direct.sweep(KEY, 3)));
    expect(await direct.blocks(KEY, V, G)).toEqual([])
    await direct.dropVersion(KEY, V)
    expect(await direct.rebuild(KEY, position, fresh)).toBe('applied')
    await server.client.config('SET', 'maxmemory', `${used + 3_000_000}`)
    expect(await step(direct, [big(0)])).toBe('applied')
    await look(direct)
  })

  it('installs in parts: what was put aside is taken whole or not at all, and goes by itself', async () => {
    const parts = await openRedisSpeedStore({ url: proxy.url, requestBytes: 1_000 })
    const { position } = (await parts.header(KEY))!
    const blocks = Array.from({ length: 12 }, (_, i) => block(`b.${i}`, randomBytes(400).toString('hex')))
    const epoch = { from: G, to: position, blocks: 12, digest: digestOf(blocks.map((b) => b.hash)) }
    const install = () => parts.install(KEY, position, V, [{ epoch, blocks }])
    expect(await install()).toBe('applied')
    const header = (await parts.header(KEY))!
    const before = await look(direct)
    const staged = () => server.client.keys('weir:*}:s:*')
    for (const what of ['request', 'reply'] as const) {
      proxy.loseNext(what)
      await expect(install()).rejects.toMatchObject({ code: 'WEIR_SPEED_WRITE_FAILED' })
      await until('the store', 10_000, async () => ((await parts.header(KEY)) ? true : undefined))
    }
    expect(await look(direct)).toEqual(before)
    const [left] = await staged()
    expect(await server.client.ttl(left!)).toBeGreaterThan(60)
    // A commit whose blocks have gone meanwhile writes nothing.
    const keys = redisKeys('weir', KEY)
    const redis = await openRedis({ url: server.url })
    const stored = { bytes: (await server.client.getBuffer(keys.header))!, header, hashes: new Map() }
    for (const name of [left!, keys.staged('none')]) {
      const put = [{ hash: keys.epoch(V, G), isNew: true, blocks, staged: name }]
      const { script, names, args } = await commitCall('', KEY, keys, stored, { next: fresh, put })
      await expect(redis.run(script, names, args, true)).rejects.toMatchObject({
        got: expect.stringContaining('staged blocks are gone'),
      })
    }
    await redis.close()
    expect(await look(direct)).toEqual(before)
    expect(await install()).toBe('applied')
    expect(Object.values((await look(direct)).blocks)[0]).toHaveLength(12)
    expect(await staged()).toEqual([left])
    for (const name of await server.client.keys('weir:*'))
      if (name !== left) expect(await server.client.ttl(name)).toBe(-1)
    expect(await step(parts, [block('b.0', 'x')])).toBe('applied')
    await parts.close()
  })
})
