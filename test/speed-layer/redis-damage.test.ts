import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { blockHash, digestOf } from '../../model/digest.ts'
import type { Position } from '../../model/position.ts'
import { redisKeys } from '../../speed-layer/redis-values.ts'
import { service } from '../support/services.ts'
import { applyOf, block, type FaultyRedis, fresh, G, KEY, look, openFaultyRedis, step, V } from './redis-steps.ts'

describe.skipIf(service('REDIS_URL') === null)('the speed store on a damaged Redis', () => {
  let { server, direct, store, close } = {} as FaultyRedis
  beforeEach(async () => {
    ;({ server, direct, store, close } = await openFaultyRedis())
  })
  afterEach(() => close())

  it.each(['h', 'b:', 'c', 'e', 'h and e'])(
    'notices that %s was deleted or overwritten, and is whole after a rebuild',
    async (kind) => {
      await store.cut(KEY, V, 0)
      await step(store, [block('c', '1')])
      const names = async () => (await server.client.keys('weir:*')).sort()
      for (const foreign of [false, true]) {
        const before = (await store.header(KEY))!
        for (const start of kind.split(' and ')) {
          const key = (await names()).find((name) => name.split('}:')[1]!.startsWith(start))!
          await server.client.del(key)
          if (foreign) await (start === 'h' ? server.client.lpush(key, 'x') : server.client.set(key, 'x'))
        }
        const isLost = kind.startsWith('h') || kind === 'b:'
        expect(await direct.header(KEY)).toEqual(isLost ? null : before)
        if (kind === 'c') expect(await direct.changelog(KEY, 0)).toEqual([])
        const next = applyOf(before, [block('d', '1')], await store.blocks(KEY, V, before.views[V]!.epochs[1]!.from))
        // This handle has not looked since, and the header that it has kept is the stored one: it must not be carried on.
        expect(await store.apply(KEY, next)).toBe(isLost ? 'stale' : 'applied')
        if (kind === 'c') expect((await store.changelog(KEY, 0)).map((e) => e.to)).toEqual([next.to])
        const expected = isLost ? null : next.to
        expect(await store.rebuild(KEY, expected, fresh)).toBe('applied')
        expect(await look(store)).toMatchObject({ header: fresh, changelog: [] })
        // Blocks that nothing told of any more do not come back under an epoch of the same name.
        for (let i = 0; i < 2; i++) {
          expect(await step(store, [block('a', `${i}`), block('z', '1')])).toBe('applied')
          await store.cut(KEY, V, 0)
        }
        await look(store)
        expect((await names()).filter((name) => !name.includes('}:b:'))).toHaveLength(3)
      }
    },
  )

  it('lets nothing foreign into an epoch that gets its first blocks', async () => {
    const opened = (await store.cut(KEY, V, 0)) as Position
    const key = redisKeys('weir', KEY).epoch(V, opened)
    await server.client.set(key, 'x')
    expect(await step(store, [block('c', '1')])).toBe('applied')
    const next = (await store.cut(KEY, V, 0)) as Position
    await server.client.hset(redisKeys('weir', KEY).epoch(V, next), 'foreign', 'x')
    expect(await store.apply(KEY, applyOf((await store.header(KEY))!, [block('d', '1')]))).toBe('applied')
    expect(Object.values((await look(store)).blocks).map((b) => b.length)).toEqual([2, 1, 1])
  })

  it('reads a header with a flipped bit as a lost one', async () => {
    const key = redisKeys('weir', KEY).header
    const stored = (await server.client.getBuffer(key))!
    for (let bit = 0; bit < stored.byteLength * 8; bit += 13) {
      const damaged = Buffer.from(stored)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      await server.client.set(key, damaged)
      const seen = await store.header(KEY).catch((error: { code: string }) => error.code)
      expect(bit < 8 ? [null, 'WEIR_SPEED_FORMAT'] : [null]).toContain(seen)
    }
    expect(await store.rebuild(KEY, null, fresh)).toBe('applied')
    expect(await server.client.keys('weir:*:b:*')).toEqual([])
  })

  it('reads a block with a flipped bit as another one, or as none', async () => {
    const text = '{"c0":1,"c1":"some text"}\n'.repeat(40)
    await step(store, [block('a', text), block('b', '1')])
    const key = redisKeys('weir', KEY).epoch(V, G)
    const { digest } = (await store.header(KEY))!.views[V]!.epochs[0]!
    for (const id of ['a', 'b']) {
      const stored = (await server.client.hgetBuffer(key, id))!
      for (let bit = 0; bit < stored.byteLength * 8; bit += 3) {
        const damaged = Buffer.from(stored)
        damaged[bit >> 3]! ^= 1 << (bit & 7)
        await server.client.hset(key, id, damaged)
        const seen = await store.blocks(KEY, V, G)
        const isWhole =
          seen.every((b) => blockHash(b.id, b.bytes) === b.hash) && digestOf(seen.map((b) => b.hash)) === digest
        // Some bits of a deflated stream (padding) stand for nothing: then the bytes are what they were.
        if (isWhole) expect(seen.map((b) => `${Buffer.from(b.bytes)}`).sort()).toEqual(['1', text].sort())
      }
      await server.client.hset(key, id, stored)
    }
  })
})
