/** The Publications port: compare-and-set on the exact base, tombstones, the active chain, claims; and damage. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { openPublications } from '../../lake/publications.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import type { Pointer, Published } from '../../model/ports/publications.ts'
import { position } from './support.ts'

let folder: string
let store: ObjectStore
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-publications-'))
  store = await openFolderStore(folder)
})
afterEach(async () => {
  await store.close()
  await rm(folder, { recursive: true, force: true })
})

const next = (base: Published | null, offset: number, by = 'a'): Pointer => ({
  formatVersion: 1,
  view: 'v',
  version: 'abc',
  generation: (base?.pointer.generation ?? 0) + 1,
  baseHash: base?.hash ?? '',
  cut: { '0': position(offset, offset) },
  lineage: '1',
  kind: 'extend',
  files: [],
  suspectLineages: [],
  kept: [],
  engineVersion: by,
  publishedAt: '2026-11-24T00:00:00Z',
  rowsTotal: 0,
})
const current = async (p = openPublications(store)): Promise<Published | null> => {
  const found = await p.current('v', 'abc')
  if (found === 'dropped') throw new Error('dropped')
  return found
}

describe('publish', () => {
  it('has one winner per base among 8 publishers; the others are stale', async () => {
    const many = await Promise.all(
      Array.from({ length: 8 }, async () => openPublications(await openFolderStore(folder))),
    )
    for (let round = 1; round <= 10; round++) {
      const base = await current()
      const outcomes = await Promise.all(many.map((p, i) => p.publish(next(base, round * 10, `writer ${i}`))))
      expect(outcomes.filter((o) => o === 'published')).toHaveLength(1)
      expect(outcomes.filter((o) => o === 'stale')).toHaveLength(7)
      const after = await current()
      expect(after!.pointer).toMatchObject({
        generation: round,
        engineVersion: `writer ${outcomes.indexOf('published')}`,
      })
    }
  })

  it('is stale on an older base, on another hash and on a generation out of turn', async () => {
    const p = openPublications(store)
    expect(await p.publish(next(null, 10))).toBe('published')
    const one = await current()
    expect(await p.publish(next(null, 10, 'other'))).toBe('stale')
    expect(await p.publish({ ...next(one, 20), baseHash: '00' })).toBe('stale')
    expect(await p.publish({ ...next(one, 20), generation: 3 })).toBe('stale')
    expect(await p.publish(next(one, 20))).toBe('published')
    await expect(p.publish(next(await current(), 19))).rejects.toMatchObject({ code: 'WEIR_LAKE_CUT_BACK' })
    expect((await current())!.pointer.generation).toBe(2)
  })

  it('gives kept generations the very files that they had, shared or not', async () => {
    const file = (key: string, sha256: string) => ({ key, size: 1, sha256, rows: 1, part: key })
    const [a, b, c, d] = [file('a', '1'), file('b', '1'), file('c', '1'), file('d', '1')]
    const kept = (generation: number, files: Pointer['files']) => ({
      generation,
      lineage: '1',
      cut: { '0': position(generation, generation) },
      files,
    })
    // The same objects, equal ones, some that the pointer itself no longer has, and another file under a known key.
    const pointer = {
      ...next(null, 10),
      files: [a, b],
      kept: [kept(4, [c, b, d]), kept(3, [{ ...a }, d, c]), kept(2, [{ ...c }, file('c', '2'), d, a])],
    }
    expect(await openPublications(store).publish(pointer)).toBe('published')
    expect((await current())!.pointer).toEqual(pointer)
  })

  it('resolves a lost reply by reading', async () => {
    let lost = true
    const p = openPublications({
      ...store,
      putIfAbsent: async (key, bytes) => {
        const outcome = await store.putIfAbsent(key, bytes)
        if (lost) {
          lost = false
          throw new Error('reply lost')
        }
        return outcome
      },
    })
    expect(await p.publish(next(null, 10))).toBe('published')
    // A re-send of the same pointer is no second generation.
    expect(await p.publish(next(null, 10))).toBe('published')
    expect((await current())!.pointer.generation).toBe(1)
  })

  it('finds any flipped bit in a pointer', async () => {
    await openPublications(store).publish(next(null, 10))
    const path = join(folder, 'pointers/v/abc/00000000000000000001.json')
    const clean = await readFile(path)
    for (let i = 0; i < clean.length; i += 5) {
      const bad = Buffer.from(clean)
      bad[i]! ^= 1 << (i % 8)
      await writeFile(path, bad)
      await expect(current()).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
    }
    await writeFile(path, clean)
    expect(await current()).not.toBeNull()
  })
})

describe('versions', () => {
  it('once dropped stay dropped, against publishers in flight', async () => {
    const p = openPublications(store)
    await p.register('v', 'abc', 'SELECT 1')
    await p.register('v', 'abc', 'SELECT 1')
    await p.publish(next(null, 10))
    const base = await current()
    const token = (await p.active('v'))?.token ?? null
    expect(await p.activate('v', 'abc', token)).toBe('activated')
    await p.drop('v', 'abc')
    await p.drop('v', 'abc')
    expect(await p.publish(next(base, 20))).toBe('dropped')
    expect(await openPublications(store).current('v', 'abc')).toBe('dropped')
    await p.register('v', 'abc', 'SELECT 1')
    expect(await p.versions()).toEqual([{ view: 'v', version: 'abc', sql: 'SELECT 1', dropped: true }])
    await expect(p.activate('v', 'abc', (await p.active('v'))!.token)).rejects.toMatchObject({
      code: 'WEIR_LAKE_DROPPED',
    })
  })

  it('switch atomically: an old token is stale', async () => {
    const [a, b] = [openPublications(store), openPublications(store)]
    expect(await a.active('v')).toBeNull()
    expect(await a.activate('v', 'one', null)).toBe('activated')
    expect(await b.activate('v', 'two', null)).toBe('stale')
    const { token } = (await b.active('v'))!
    expect(await b.activate('v', 'two', token)).toBe('activated')
    expect(await a.activate('v', 'three', token)).toBe('stale')
    expect((await a.active('v'))!.version).toBe('two')
  })
})

describe('claims', () => {
  it('P12: end with their time also when the clock steps back behind a holder that died', async () => {
    let now = 1_000_000_000
    const p = openPublications(store, { now: () => now })
    expect(await p.claim('v', 'abc', 'A', 30_000)).toBe(true)
    now -= 1_000
    expect(await p.claimedBy('v', 'abc')).toBe('A')
    now -= 3_600_000
    expect(await p.claimedBy('v', 'abc')).toBeNull()
    expect(await p.claim('v', 'abc', 'B', 30_000)).toBe(true)
    expect(await p.claimedBy('v', 'abc')).toBe('B')
  })

  it('P19: a damaged one holds nobody up', async () => {
    const p = openPublications(store)
    expect(await p.claim('v', 'abc', 'A', 30_000)).toBe(true)
    const [{ key } = { key: '' }] = await store.list('claims/')
    const bytes = await readFile(join(folder, key))
    bytes[20]! ^= 1
    await writeFile(join(folder, key), bytes)
    expect(await p.claimedBy('v', 'abc')).toBeNull()
    expect(await p.claim('v', 'abc', 'B', 30_000)).toBe(true)
  })

  it('are leases: one holder, renewable, expiring, released', async () => {
    let now = 1000
    const [a, b] = [0, 1].map(() => openPublications(store, { now: () => now })) as [
      ReturnType<typeof openPublications>,
      ReturnType<typeof openPublications>,
    ]
    const both = await Promise.all([a.claim('v', 'abc', 'A', 100), b.claim('v', 'abc', 'B', 100)])
    expect(both.filter(Boolean)).toHaveLength(1)
    const holder = both[0] ? 'A' : 'B'
    const other = both[0] ? 'B' : 'A'
    expect(await a.claimedBy('v', 'abc')).toBe(holder)
    now += 90
    expect(await a.claim('v', 'abc', holder, 100)).toBe(true)
    now += 90
    expect(await b.claim('v', 'abc', other, 100)).toBe(false)
    now += 20
    expect(await a.claimedBy('v', 'abc')).toBeNull()
    expect(await b.claim('v', 'abc', other, 100)).toBe(true)
    await a.release('v', 'abc', holder)
    expect(await a.claimedBy('v', 'abc')).toBe(other)
    await b.release('v', 'abc', other)
    expect(await a.claimedBy('v', 'abc')).toBeNull()
    expect((await store.list('claims/')).length).toBeLessThanOrEqual(2)
  })
})
