/** The Redis speed store under the faults of a real Redis: each call is all or nothing, and what is lost is said to be lost. */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { blockHash, digestOf } from '../../model/digest.ts'
import type { Apply, Block, Header, SpeedStore } from '../../model/ports/speed-store.ts'
import { genesis, type Position } from '../../model/position.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { commitCall } from '../../speed-layer/redis-commit.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { redisKeys } from '../../speed-layer/redis-values.ts'
import { emptyEpoch } from '../../speed-layer/store-rules.ts'
import { until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { openRedisProxy, openRedisServer, type RedisProxy, type RedisServer } from './redis-server.ts'

const KEY = { dataset: 'orders', partition: 0 }
const V = '1111111111111111'
const G = genesis('log-a')
const at = (offset: number): Position =>
  offset === 0 ? G : { logId: 'log-a', offset, fingerprint: `${offset}`.padEnd(16, '0'), effectiveMs: offset }
const block = (id: string, text: string): Block => {
  const bytes = Buffer.from(text)
  return { id, bytes, hash: blockHash(id, bytes) }
}
const fresh: Header = {
  formatVersion: 1,
  position: G,
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: { [V]: { epochs: [emptyEpoch(G)], retiring: [] } },
}
/** Goes on by one record: `blocks` over those of the epoch. */
const applyOf = (header: Header, blocks: Block[], old: Block[] = []): Apply => {
  const all = new Map([...old, ...blocks].map((b) => [b.id, b.hash]))
  const { from } = header.views[V]!.epochs.at(-1)!
  const to = at(header.position.offset + 1)
  const write = { epoch: from, blocks, blockCount: all.size, digest: digestOf(all.values()) }
  return {
    from: header.position,
    to,
    counted: to.offset,
    duplicate: 0,
    dead: 0,
    watermarkUs: null,
    views: { [V]: write },
  }
}
const step = async (store: SpeedStore, blocks: Block[]): Promise<string> => {
  const header = (await store.header(KEY))!
  const { from } = header.views[V]!.epochs.at(-1)!
  return store.apply(KEY, applyOf(header, blocks, await store.blocks(KEY, V, from)))
}
/** Everything stored, with the digests compared. */
const look = async (store: SpeedStore) => {
  const header = await store.header(KEY)
  const blocks: Record<string, string[]> = {}
  for (const epoch of header?.views[V]?.epochs ?? []) {
    const found = await store.blocks(KEY, V, epoch.from)
    expect(digestOf(found.map((b) => blockHash(b.id, b.bytes)))).toBe(epoch.digest)
    blocks[epoch.from.offset] = found.map((b) => `${b.id} ${b.hash}`).sort()
  }
  return { header, blocks, changelog: await store.changelog(KEY, 0) }
}

describe.skipIf(service('REDIS_URL') === null)('the speed store on a Redis with faults', () => {
  let server: RedisServer
  let proxy: RedisProxy
  /** Past every proxy. */
  let direct: SpeedStore
  let store: SpeedStore
  beforeEach(async () => {
    server = await openRedisServer()
    proxy = await openRedisProxy(server.port)
    direct = await openRedisSpeedStore({ url: server.url })
    store = await openRedisSpeedStore({ url: proxy.url })
    await store.rebuild(KEY, null, fresh)
    expect(await step(store, [block('a', '1'), block('b', '1')])).toBe('applied')
  })
  afterEach(async () => {
    await store?.close()
    await direct?.close()
    await proxy?.close()
    await server?.remove()
  })
  const back = () =>
    until('the store', 10_000, async () => ((await store.header(KEY)) === undefined ? undefined : true))
  const calls = async (): Promise<number> => {
    const stats = await server.client.info('commandstats')
    return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
  }

  it.each(['request', 'reply'] as const)(
    'says that it does not know when the %s is lost, and sends nothing twice',
    async (what) => {
      for (let round = 0; round < 5; round++) {
        const header = (await store.header(KEY))!
        const apply = applyOf(header, [block('a', `${round}`)], await store.blocks(KEY, V, G))
        const before = await calls()
        proxy.loseNext(what)
        await expect(store.apply(KEY, apply)).rejects.toMatchObject({
          code: 'WEIR_SPEED_WRITE_FAILED',
          retryable: true,
        })
        expect(await calls()).toBe(before + (what === 'reply' ? 1 : 0))
        await back()
        const after = await look(store)
        expect(after.header!.position).toEqual(what === 'reply' ? apply.to : apply.from)
        expect(after).toEqual(await look(direct))
        // A caller that does ask again is told that it has been done, never that somebody else was here.
        expect(await store.apply(KEY, apply)).toBe(what === 'reply' ? 'duplicate' : 'applied')
        expect(await store.apply(KEY, apply)).toBe('duplicate')
        expect((await look(store)).changelog.map((e) => e.to.offset)).toEqual(
          Array.from({ length: round + 2 }, (_, i) => i + 1),
        )
      }
      expect(proxy.cuts()).toBe(5)
    },
  )

  it.each(['rebuild', 'cut', 'install', 'retire', 'sweep', 'dropVersion'] as const)(
    'a %s whose reply is lost is made once',
    async (name) => {
      await store.cut(KEY, V, 0)
      await step(store, [block('c', '1')])
      if (name === 'sweep') await store.retire(KEY, V, at(1))
      const header = (await store.header(KEY))!
      const own = [block('x', '1')]
      const epoch = { from: at(1), to: header.position, blocks: 1, digest: own[0]!.hash }
      const run = (): Promise<unknown> =>
        ({
          rebuild: () => store.rebuild(KEY, header.position, fresh),
          cut: () => store.cut(KEY, V, 0),
          install: () => store.install(KEY, header.position, V, [{ epoch, blocks: own }]),
          retire: () => store.retire(KEY, V, at(1)),
          sweep: () => store.sweep(KEY, 100),
          dropVersion: () => store.dropVersion(KEY, V),
        })[name]()
      // What the handle knows already is not asked again: the first long request is the change itself.
      const other = await openRedisSpeedStore({ url: server.url })
      proxy.loseNext('reply')
      await expect(run()).rejects.toMatchObject({ code: 'WEIR_SPEED_WRITE_FAILED' })
      await back()
      const first = await look(other)
      expect(first.header).not.toEqual(header)
      await run()
      const again = await look(other)
      // A rebuild that was made stands in the way of the same one: the caller's header is gone.
      expect(again).toEqual(first)
      await other.close()
    },
  )

  it('gives up a server that does not answer, and goes on with it when it does', async () => {
    const header = (await store.header(KEY))!
    const apply = applyOf(header, [block('c', '1')], await store.blocks(KEY, V, G))
    const hasty = await openRedisSpeedStore({ url: server.url, timeoutMs: 500 })
    await until('the first look', 10_000, async () => (await hasty.header(KEY)) ?? undefined)
    server.signal('SIGSTOP')
    try {
      await expect(hasty.header(KEY)).rejects.toMatchObject({ code: 'WEIR_SPEED_REDIS_UNREACHABLE', retryable: true })
      await expect(hasty.apply(KEY, apply)).rejects.toMatchObject({ code: 'WEIR_SPEED_WRITE_FAILED' })
    } finally {
      server.signal('SIGCONT')
    }
    await until('the store', 10_000, async () => (await hasty.header(KEY)) ?? undefined)
    // The request may have waited for the server all along.
    expect(['applied', 'duplicate']).toContain(await store.apply(KEY, apply))
    await hasty.close()
    const { header: now, changelog } = await look(store)
    expect(now!.position).toEqual(apply.to)
    expect(changelog).toHaveLength(2)
  })

  it('is there again after a crash of Redis; a Redis that comes back empty has no header', async () => {
    const before = await look(store)
    await until('the append-only file', 5_000, async () =>
      /aof_pending_bio_fsync:0/.test(await server.client.info('persistence')) ? true : undefined,
    )
    await server.start()
    await back()
    expect(await look(store)).toEqual(before)
    await server.start('none')
    await back()
    expect(await store.header(KEY)).toBeNull()
    expect(await store.apply(KEY, applyOf(before.header!, [block('c', '1')]))).toBe('stale')
    expect(await store.rebuild(KEY, null, fresh)).toBe('applied')
    expect(await step(store, [block('a', '1')])).toBe('applied')
  })

  it('does not go on over a Redis that has gone back: it is a gap', async () => {
    const old = await look(store)
    const copy = await server.copy()
    await step(store, [block('a', '2')])
    const newer = await look(store)
    await server.start({ copy })
    await back()
    const apply = applyOf(newer.header!, [block('a', '3')], [block('b', '1')])
    expect(await store.apply(KEY, apply)).toBe('gap')
    expect(await look(store)).toEqual(old)
    expect(await step(store, [block('a', '2')])).toBe('applied')
    expect(await look(store)).toEqual(newer)
  })

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
