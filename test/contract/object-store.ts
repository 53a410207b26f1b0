/** What every object store must promise (model/ports/object-store.ts), as a suite to run on each implementation. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ObjectStore } from '../../model/ports/object-store.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text)
const text = (b: Uint8Array | null): string | null => b && Buffer.from(b).toString()

export type ObjectStoreFixture = {
  /** Another handle on the same store, as another process would have. */
  open(): Promise<ObjectStore>
  /** Changes a stored object behind the store's back. */
  damage(key: string, change: (bytes: Buffer) => Buffer): Promise<void>
  remove(): Promise<void>
}

export const objectStoreContract = (name: string, make: () => Promise<ObjectStoreFixture>): void => {
  describe(`object store: ${name}`, () => {
    let fixture: ObjectStoreFixture
    let store: ObjectStore
    beforeEach(async () => {
      fixture = await make()
      store = await fixture.open()
    })
    afterEach(async () => {
      // A fixture is also removed when its store could not be opened.
      try {
        await store?.close()
      } finally {
        await fixture?.remove()
      }
    })

    it('puts once, and never replaces', async () => {
      expect(await store.putIfAbsent('a/b.json', bytes('one'))).toBe('written')
      expect(await store.putIfAbsent('a/b.json', bytes('two'))).toBe('exists')
      expect(text(await store.get('a/b.json'))).toBe('one')
      expect(await store.get('a/c.json')).toBeNull()
      expect(await store.get('a/b.json/deeper')).toBeNull()
    })

    it('has one winner among 8 racing writers in each of 200 rounds', async () => {
      const handles = await Promise.all(Array.from({ length: 8 }, () => fixture.open()))
      for (let round = 0; round < 200; round++) {
        const key = `race/${round}.json`
        const outcomes = await Promise.all(handles.map((h, i) => h.putIfAbsent(key, bytes(`writer ${i}`))))
        const winners = outcomes.flatMap((o, i) => (o === 'written' ? [i] : []))
        expect(winners).toHaveLength(1)
        expect(outcomes.filter((o) => o === 'exists')).toHaveLength(7)
        expect(text(await store.get(key))).toBe(`writer ${winners[0]}`)
      }
      await Promise.all(handles.map((h) => h.close()))
    })

    it('overwrites hints', async () => {
      await store.putHint('t/_hint', bytes('1'))
      await store.putHint('t/_hint', bytes('2'))
      expect(text(await store.get('t/_hint'))).toBe('2')
    })

    it('lists in byte order, below a folder, after a key, without temporary files', async () => {
      for (const key of ['p/～', 'p/😀', 'p/a/1', 'p/a/2', 'p/a-b', 'q/x']) await store.putIfAbsent(key, bytes(key))
      await writeFile(await store.scratch('.parquet'), 'half-written')
      const keys = async (prefix: string, after?: string) => (await store.list(prefix, after)).map((o) => o.key)
      expect(await keys('p/')).toEqual(['p/a-b', 'p/a/1', 'p/a/2', 'p/～', 'p/😀'])
      expect(await keys('p/', 'p/a/1')).toEqual(['p/a/2', 'p/～', 'p/😀'])
      expect(await keys('')).toHaveLength(6)
      expect(await keys('none/')).toEqual([])
      const [first] = await store.list('q/')
      expect(first).toMatchObject({ key: 'q/x', size: 3 })
      expect(Number.isInteger(first!.modifiedMs)).toBe(true)
    })

    it('publishes scratch files durably, never over another object', async () => {
      const content = 'x'.repeat(100_000)
      const scratch = await store.scratch('.parquet')
      expect(await store.scratch('.parquet')).not.toBe(scratch)
      await writeFile(scratch, content)
      const done = await store.publishFile(scratch, 'data/f.parquet')
      expect(done).toEqual({ size: 100_000, sha256: createHash('sha256').update(content).digest('hex') })
      const again = await store.scratch('.parquet')
      await writeFile(again, 'other')
      await expect(store.publishFile(again, 'data/f.parquet')).rejects.toMatchObject({ code: 'WEIR_LAKE_EXISTS' })
      expect(text(await store.get('data/f.parquet'))).toBe(content)
    })

    it('finds a flipped bit, a truncation and a missing object before a file is used', async () => {
      const scratch = await store.scratch('.parquet')
      await writeFile(scratch, 'y'.repeat(5000))
      const expected = await store.publishFile(scratch, 'data/g.parquet')
      expect(await store.localFile('data/g.parquet', expected)).toEqual(expect.any(String))
      for (const change of [
        (b: Buffer) => {
          b[2500]! ^= 1
          return b
        },
        (b: Buffer) => b.subarray(0, 4999),
      ]) {
        await fixture.damage('data/g.parquet', change)
        const fresh = await fixture.open()
        await expect(fresh.localFile('data/g.parquet', expected)).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
        await fresh.close()
      }
      await expect(store.localFile('data/none', expected)).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
    })

    it('deletes, also what is not there', async () => {
      await store.putIfAbsent('d/1', bytes('1'))
      await store.delete('d/1')
      await store.delete('d/1')
      expect(await store.get('d/1')).toBeNull()
    })

    it('refuses keys that could leave the store', async () => {
      const bad = [
        '',
        '/a',
        'a/',
        'a//b',
        '../a',
        'a/../b',
        './a',
        'a/.',
        'a\\b',
        'a\0b',
        `a/${'x'.repeat(256)}`,
        '.weir-tmp/x',
      ]
      for (const key of bad) {
        const refused = { code: 'WEIR_LAKE_KEY' }
        await expect(store.putIfAbsent(key, bytes('!'))).rejects.toMatchObject(refused)
        await expect(store.get(key)).rejects.toMatchObject(refused)
        await expect(store.delete(key)).rejects.toMatchObject(refused)
      }
      await expect(store.list('../')).rejects.toMatchObject({ code: 'WEIR_LAKE_KEY' })
    })
  })
}
