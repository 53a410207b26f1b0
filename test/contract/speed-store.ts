/** What every speed store must promise (model/ports/speed-store.ts), as a suite to run on each implementation. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { blockHash, digestOf, EMPTY_DIGEST, xorDigest } from '../../model/digest.ts'
import type { Apply, Block, Epoch, EpochWrite, Header, SpeedStore } from '../../model/ports/speed-store.ts'
import { genesis, type Position } from '../../model/position.ts'

export type SpeedStoreFixture = {
  /** A handle on the same store, as another process would have. */
  open(): Promise<SpeedStore>
  /** Deletes up to n blocks behind the store's back. */
  deleteBlocks(n: number): Promise<number>
  remove(): Promise<void>
}

const KEY = { dataset: 'orders', partition: 0 }
const [V1, V2] = ['1111111111111111', '2222222222222222']
const G = genesis('log-a')
const at = (offset: number, history = 'a', logId = 'log-a'): Position =>
  offset === 0
    ? genesis(logId)
    : { logId, offset, fingerprint: `${history}${offset}`.padEnd(16, '0'), effectiveMs: offset * 10 }
const block = (id: string, text: string): Block => {
  const bytes = Buffer.from(text)
  return { id, bytes, hash: blockHash(id, bytes) }
}
const empty = (from: Position): Epoch => ({ from, to: from, blocks: 0, digest: EMPTY_DIGEST })
const header = (position: Position, versions = [V1]): Header => ({
  formatVersion: 1,
  position,
  counted: position.offset,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: Object.fromEntries(versions.map((v) => [v, { epochs: [empty(position)], retiring: [] }])),
})
const write = (epoch: Position, blocks: Block[] = [], all: Block[] = blocks): EpochWrite => ({
  epoch,
  blocks,
  blockCount: all.length,
  digest: digestOf(all.map((b) => b.hash)),
})
const apply = (from: Position, to: Position, views: Apply['views']): Apply => ({
  from,
  to,
  counted: to.offset,
  duplicate: 1,
  dead: 2,
  watermarkUs: '1764028800000000',
  views,
})
const ids = (blocks: Block[]): string[] => blocks.map((b) => b.id).sort()

export const speedStoreContract = (name: string, make: () => Promise<SpeedStoreFixture>): void => {
  describe(`speed store: ${name}`, () => {
    let fixture: SpeedStoreFixture
    let store: SpeedStore
    beforeEach(async () => {
      fixture = await make()
      store = await fixture.open()
    })
    afterEach(async () => {
      await store.close()
      await fixture.remove()
    })
    /** Every apply-like call that must not change anything. */
    const unchanged = async (run: () => Promise<unknown>): Promise<unknown> => {
      const look = async () => ({
        header: await store.header(KEY),
        blocks: await store.blocks(KEY, V1, G),
        changes: await store.changelog(KEY, 0),
      })
      const before = await look()
      const outcome = await run()
      expect(await look()).toEqual(before)
      return outcome
    }

    it('has no header for a key that was never written: a missing key is not offset 0', async () => {
      expect(await store.header(KEY)).toBeNull()
      expect(await store.apply(KEY, apply(G, at(1), {}))).toBe('stale')
      expect(await store.cut(KEY, V1, 0)).toBe('missing')
      expect(await store.changelog(KEY, 0)).toEqual([])
      await store.retire(KEY, V1, at(5))
      expect(await store.sweep(KEY, 10)).toBe(true)
      await store.dropVersion(KEY, V1)
      expect(await store.header(KEY)).toBeNull()
    })

    it('rebuilds only over the header that the caller saw', async () => {
      expect(await store.rebuild(KEY, at(3), header(G))).toBe('stale')
      expect(await store.rebuild(KEY, null, header(G))).toBe('applied')
      expect(await store.rebuild(KEY, null, header(at(5)))).toBe('stale')
      await store.apply(KEY, apply(G, at(2), { [V1]: write(G, [block('b.0', 'x')]) }))
      for (const wrong of [G, at(2, 'b'), at(2, 'a', 'log-b')])
        expect(await unchanged(() => store.rebuild(KEY, wrong, header(at(9))))).toBe('stale')
      expect(await store.rebuild(KEY, at(2), header(at(9)))).toBe('applied')
      expect(await store.header(KEY)).toEqual(header(at(9)))
      expect(await store.blocks(KEY, V1, G)).toEqual([])
      expect(await store.changelog(KEY, 0)).toEqual([])
      expect(await store.header({ ...KEY, partition: 1 })).toBeNull()
    })

    it('applies: header, blocks and changelog in one commit, visible to another handle', async () => {
      await store.rebuild(KEY, null, header(G, [V1, V2]))
      const [a, b] = [block('m1.0', '{"c0":1}\n'), block('m2.0', '{"c0":2}\n')]
      expect(await store.apply(KEY, apply(G, at(3), { [V1]: write(G, [a, b]), [V2]: write(G) }))).toBe('applied')
      const other = await fixture.open()
      const seen = (await other.header(KEY))!
      expect(seen.position).toEqual(at(3))
      expect(seen).toMatchObject({ counted: 3, duplicate: 1, dead: 2, watermarkUs: '1764028800000000' })
      expect(seen.views[V1]!.epochs).toEqual([{ from: G, to: at(3), blocks: 2, digest: xorDigest(a.hash, b.hash) }])
      expect(seen.views[V2]!.epochs).toEqual([{ from: G, to: at(3), blocks: 0, digest: EMPTY_DIGEST }])
      const blocks = await other.blocks(KEY, V1, G)
      expect(ids(blocks)).toEqual(['m1.0', 'm2.0'])
      expect(blocks.map((x) => [x.hash, Buffer.from(x.bytes).toString()]).sort()).toEqual(
        [a, b].map((x) => [x.hash, Buffer.from(x.bytes).toString()]).sort(),
      )
      expect(ids(await other.blocks(KEY, V1, G, ['m2.0', 'none']))).toEqual(['m2.0'])
      expect(await other.blocks(KEY, V2, G)).toEqual([])
      expect(await other.changelog(KEY, 0)).toEqual([
        { from: G, to: at(3), views: { [V1]: { epoch: G, blocks: ['m1.0', 'm2.0'] }, [V2]: { epoch: G, blocks: [] } } },
      ])
      await other.close()
    })

    it('replaces blocks by absolute values', async () => {
      await store.rebuild(KEY, null, header(G))
      await store.apply(KEY, apply(G, at(1), { [V1]: write(G, [block('a', '1'), block('b', '1')]) }))
      const [a2, b] = [block('a', '2'), block('b', '1')]
      await store.apply(KEY, apply(at(1), at(2), { [V1]: write(G, [a2], [a2, b]) }))
      const stored = await store.blocks(KEY, V1, G)
      const epoch = (await store.header(KEY))!.views[V1]!.epochs[0]!
      expect(epoch.blocks).toBe(2)
      expect(digestOf(stored.map((x) => blockHash(x.id, x.bytes)))).toBe(epoch.digest)
    })

    it('answers duplicate, gap and stale by the stored position, and writes nothing', async () => {
      await store.rebuild(KEY, null, header(at(10)))
      const E = at(10)
      await store.apply(KEY, apply(E, at(20), { [V1]: write(E, [block('x', '1')]) }))
      const w = { [V1]: write(E, [block('x', '2')]) }
      const outcome = (a: Apply) => unchanged(() => store.apply(KEY, a))
      expect(await outcome(apply(E, at(20), w))).toBe('duplicate')
      expect(await outcome(apply(E, at(15), w))).toBe('duplicate')
      expect(await outcome(apply(at(21), at(25), w))).toBe('gap')
      expect(await outcome(apply(E, at(25), w))).toBe('stale')
      expect(await outcome(apply(at(20, 'b'), at(25, 'b'), w))).toBe('stale')
      expect(await outcome(apply(E, at(20, 'b'), w))).toBe('stale')
      expect(await outcome(apply(at(20, 'a', 'log-b'), at(25, 'a', 'log-b'), w))).toBe('stale')
      expect(await outcome(apply(at(20), at(25), { [V1]: write(at(20), [block('x', '2')]) }))).toBe('stale')
      expect(await outcome(apply(at(20), at(25), { [V1]: write(at(10, 'b')) }))).toBe('stale')
      expect(await outcome(apply(at(20), at(25), {}))).toBe('stale')
      expect(await outcome(apply(at(20), at(25), { [V2]: write(E) }))).toBe('stale')
      expect(await outcome(apply(at(20), at(25), { ...w, [V2]: write(E) }))).toBe('stale')
      expect(await store.apply(KEY, apply(at(20), at(25), w))).toBe('applied')
    })

    it('refuses calls that make no sense before writing anything', async () => {
      await store.rebuild(KEY, null, header(G))
      const refused = { code: 'WEIR_SPEED_BAD_CALL' }
      const twice = write(G, [block('x', '1'), block('x', '2')])
      await expect(store.apply(KEY, apply(G, G, { [V1]: write(G) }))).rejects.toMatchObject(refused)
      await expect(store.apply(KEY, apply(G, at(1), { [V1]: twice }))).rejects.toMatchObject(refused)
      await expect(store.apply(KEY, apply(G, at(1), { [V1]: { ...write(G), digest: 'short' } }))).rejects.toMatchObject(
        refused,
      )
      await expect(store.cut(KEY, V1, 1.5)).rejects.toMatchObject(refused)
      const missing = [{ epoch: { ...empty(G), blocks: 1 }, blocks: [] }]
      await expect(store.install(KEY, G, V2, missing)).rejects.toMatchObject(refused)
      await expect(store.install(KEY, at(1), V2, [{ epoch: empty(G), blocks: [] }])).rejects.toMatchObject(refused)
      await expect(store.install(KEY, G, V2, [])).rejects.toMatchObject(refused)
      expect(await store.header(KEY)).toEqual(header(G))
    })

    it('cuts at the position when the desired offset is not beyond it', async () => {
      await store.rebuild(KEY, null, header(G))
      expect(await store.cut(KEY, V1, 0)).toEqual(G)
      await store.apply(KEY, apply(G, at(3), { [V1]: write(G, [block('x', '1')]) }))
      expect(await store.cut(KEY, V1, 2)).toEqual(at(3))
      expect(await store.cut(KEY, V1, 3)).toEqual(at(3))
      expect(await store.cut(KEY, V1, 0)).toEqual(at(3))
      const { epochs } = (await store.header(KEY))!.views[V1]!
      expect(epochs.map((e) => [e.from, e.to, e.blocks])).toEqual([
        [G, at(3), 1],
        [at(3), at(3), 0],
      ])
      // The old epoch's name is no longer the open one's.
      expect(await store.apply(KEY, apply(at(3), at(4), { [V1]: write(G, [block('x', '2')]) }))).toBe('stale')
      expect(await store.apply(KEY, apply(at(3), at(4), { [V1]: write(at(3), [block('x', '2')]) }))).toBe('applied')
      expect(ids(await store.blocks(KEY, V1, G))).toEqual(['x'])
      expect(Buffer.from((await store.blocks(KEY, V1, G))[0]!.bytes).toString()).toBe('1')
    })

    it('keeps a cut that is asked beyond the position: no apply crosses it, and reaching it makes it', async () => {
      await store.rebuild(KEY, null, header(G, [V1, V2]))
      expect(await store.cut(KEY, V1, 7)).toBe('pending')
      expect(await store.cut(KEY, V1, 5)).toBe('pending')
      expect(await store.cut(KEY, V1, 9)).toBe('pending')
      expect((await store.header(KEY))!.views[V1]!.requestedCut).toBe(5)
      expect(await store.cut(KEY, 'ffffffffffffffff', 5)).toBe('missing')
      const both = { [V1]: write(G), [V2]: write(G) }
      expect(await unchanged(() => store.apply(KEY, apply(G, at(6), both)))).toBe('boundary')
      expect(await store.apply(KEY, apply(G, at(4), both))).toBe('applied')
      expect((await store.header(KEY))!.views[V1]!.requestedCut).toBe(5)
      expect(await store.apply(KEY, apply(at(4), at(5), both))).toBe('applied')
      const { views } = (await store.header(KEY))!
      expect(views[V1]!.requestedCut).toBeUndefined()
      expect(views[V1]!.epochs.map((e) => e.from)).toEqual([G, at(5)])
      expect(views[V2]!.epochs.map((e) => e.from)).toEqual([G])
      expect(await store.apply(KEY, apply(at(5), at(8), { [V1]: write(at(5)), [V2]: write(G) }))).toBe('applied')
      // Whoever asked gets the cut that was made, also when the position has gone on.
      expect(await store.cut(KEY, V1, 5)).toEqual(at(5))
      expect(await store.cut(KEY, V1, 6)).toEqual(at(8))
    })

    it('retires closed epochs up to a cut, and sweeps their blocks in bounded pieces', async () => {
      await store.rebuild(KEY, null, header(G))
      const many = Array.from({ length: 5 }, (_, i) => block(`b.${i}`, `${i}`))
      await store.apply(KEY, apply(G, at(2), { [V1]: write(G, many) }))
      await store.cut(KEY, V1, 0)
      await store.apply(KEY, apply(at(2), at(4), { [V1]: write(at(2), many) }))
      await store.cut(KEY, V1, 0)
      await store.retire(KEY, V1, at(1))
      expect((await store.header(KEY))!.views[V1]!.retiring).toEqual([])
      await store.retire(KEY, V1, at(2, 'a', 'log-b'))
      expect((await store.header(KEY))!.views[V1]!.retiring).toEqual([])
      await store.retire(KEY, V1, at(2))
      let view = (await store.header(KEY))!.views[V1]!
      expect(view.retiring).toEqual([G])
      expect(view.epochs.map((e) => e.from)).toEqual([at(2), at(4)])
      expect(await store.blocks(KEY, V1, G)).toHaveLength(5)
      expect(await store.sweep(KEY, 2)).toBe(false)
      expect(await store.blocks(KEY, V1, G)).toHaveLength(3)
      expect((await store.header(KEY))!.views[V1]!.retiring).toEqual([G])
      while (!(await store.sweep(KEY, 2)));
      expect(await store.blocks(KEY, V1, G)).toEqual([])
      expect(await store.blocks(KEY, V1, at(2))).toHaveLength(5)
      // Never the open epoch, however far the cut.
      await store.retire(KEY, V1, at(1000))
      view = (await store.header(KEY))!.views[V1]!
      expect(view.epochs.map((e) => e.from)).toEqual([at(4)])
      expect(view.retiring).toEqual([at(2)])
      expect(await store.sweep(KEY, 100)).toBe(true)
      expect((await store.header(KEY))!.views[V1]!.retiring).toEqual([])
      expect(await store.blocks(KEY, V1, at(2))).toEqual([])
    })

    it('installs a version at the stored position, replacing what it had', async () => {
      await store.rebuild(KEY, null, header(at(10)))
      const [x, y] = [block('x', '1'), block('y', '2')]
      const epoch = (from: Position, to: Position, b: Block[]) => ({
        epoch: { from, to, blocks: b.length, digest: digestOf(b.map((e) => e.hash)) },
        blocks: b,
      })
      const epochs = [epoch(at(4), at(7), [x, y]), epoch(at(7), at(10), [y])]
      expect(await unchanged(() => store.install(KEY, at(11), V2, [epoch(at(4), at(11), [x])]))).toBe('stale')
      expect(await unchanged(() => store.install(KEY, at(10, 'b'), V2, [epoch(at(4), at(10, 'b'), [x])]))).toBe('stale')
      expect(await store.install(KEY, at(10), V2, epochs)).toBe('applied')
      const view = (await store.header(KEY))!.views[V2]!
      expect(view).toEqual({ epochs: epochs.map((e) => e.epoch), retiring: [] })
      expect(ids(await store.blocks(KEY, V2, at(4)))).toEqual(['x', 'y'])
      expect(ids(await store.blocks(KEY, V2, at(7)))).toEqual(['y'])
      expect(await store.install(KEY, at(10), V2, [epoch(at(4), at(10), [y])])).toBe('applied')
      expect(ids(await store.blocks(KEY, V2, at(4)))).toEqual(['y'])
      expect(await store.blocks(KEY, V2, at(7))).toEqual([])
      // From now on an apply must name both versions.
      expect(await store.apply(KEY, apply(at(10), at(11), { [V1]: write(at(10)) }))).toBe('stale')
      const both = { [V1]: write(at(10)), [V2]: write(at(4), [x], [x, y]) }
      expect(await store.apply(KEY, apply(at(10), at(11), both))).toBe('applied')
    })

    it('drops a version with its blocks, again and again', async () => {
      await store.rebuild(KEY, null, header(G, [V1, V2]))
      const b = [block('x', '1')]
      await store.apply(KEY, apply(G, at(1), { [V1]: write(G, b), [V2]: write(G, b) }))
      for (let pass = 0; pass < 2; pass++) {
        await store.dropVersion(KEY, V2)
        expect(Object.keys((await store.header(KEY))!.views)).toEqual([V1])
        expect(await store.blocks(KEY, V2, G)).toEqual([])
        expect(ids(await store.blocks(KEY, V1, G))).toEqual(['x'])
      }
      expect(await store.apply(KEY, apply(at(1), at(2), { [V1]: write(G, b) }))).toBe('applied')
    })

    it('keeps a bounded changelog whose entries name their epoch', async () => {
      await store.rebuild(KEY, null, header(G))
      let epoch = G
      for (let i = 0; i < 300; i++) {
        if (i === 200) epoch = (await store.cut(KEY, V1, 0)) as Position
        const b = block(`b.${i}`, `${i}`)
        expect(await store.apply(KEY, apply(at(i), at(i + 1), { [V1]: write(epoch, [b]) }))).toBe('applied')
      }
      const all = await store.changelog(KEY, 0)
      expect(all.length).toBeLessThanOrEqual(256)
      expect(all.length).toBeGreaterThan(100)
      expect(all.map((e) => e.from.offset)).toEqual(all.map((_, i) => 300 - all.length + i))
      const [last] = await store.changelog(KEY, 299)
      expect(last).toEqual({ from: at(299), to: at(300), views: { [V1]: { epoch: at(200), blocks: ['b.299'] } } })
      expect((await store.changelog(KEY, 150)).find((e) => e.to.offset === 200)!.views[V1]!.epoch).toEqual(G)
      expect(await store.changelog(KEY, 300)).toEqual([])
    })

    it('lets a reader see by the digest that blocks of an epoch are gone', async () => {
      await store.rebuild(KEY, null, header(G))
      const many = Array.from({ length: 4 }, (_, i) => block(`b.${i}`, `${i}`))
      await store.apply(KEY, apply(G, at(2), { [V1]: write(G, many) }))
      expect(await fixture.deleteBlocks(1)).toBe(1)
      const epoch = (await store.header(KEY))!.views[V1]!.epochs[0]!
      const left = await store.blocks(KEY, V1, G)
      expect(left).toHaveLength(3)
      expect(digestOf(left.map((b) => b.hash))).not.toBe(epoch.digest)
    })

    it('lets one of many racing applies win', async () => {
      await store.rebuild(KEY, null, header(G))
      const handles = await Promise.all(Array.from({ length: 4 }, () => fixture.open()))
      let position = G
      for (let round = 0; round < 10; round++) {
        const outcomes = await Promise.all(
          handles.map((h, i) => {
            const to = at(position.offset + 1 + i)
            return h.apply(KEY, apply(position, to, { [V1]: write(G, [block(`r${round}`, `${i}`)]) }))
          }),
        )
        const won = outcomes.flatMap((o, i) => (o === 'applied' ? [i] : []))
        expect(won).toHaveLength(1)
        const stored = (await store.header(KEY))!
        expect(stored.position).toEqual(at(position.offset + 1 + won[0]!))
        expect(Buffer.from((await store.blocks(KEY, V1, G, [`r${round}`]))[0]!.bytes).toString()).toBe(`${won[0]}`)
        position = stored.position
      }
      await Promise.all(handles.map((h) => h.close()))
    })
  })
}
