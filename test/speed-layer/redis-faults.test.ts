import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { applyOf, at, block, type FaultyRedis, fresh, G, KEY, look, openFaultyRedis, step, V } from './redis-steps.ts'

describe.skipIf(service('REDIS_URL') === null)('the speed store on a Redis with faults', () => {
  let { server, proxy, direct, store, back, close } = {} as FaultyRedis
  beforeEach(async () => {
    ;({ server, proxy, direct, store, back, close } = await openFaultyRedis())
  })
  afterEach(() => close())
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
    await server.written()
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
})
