/** The embedded speed store and the tests' own one keep the speed store's contract. */
import { mkdtemp, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from 'lmdb'
import { expect, it } from 'vitest'
import { genesis } from '../../model/position.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { openMemorySpeedStore } from '../support/memory-speed-store.ts'
import { speedStoreContract } from './speed-store.ts'

const temporary = () => mkdtemp(join(tmpdir(), 'weir-speed-'))
const raw = (folder: string) => open<Buffer, (string | number)[]>({ path: folder, encoding: 'binary', noSubdir: false })

speedStoreContract('lmdb', async () => {
  const folder = await temporary()
  return {
    open: () => openLmdbSpeedStore({ folder }),
    deleteBlocks: async (n) => {
      const db = raw(folder)
      const keys = [...db.getKeys({ start: ['b'], end: ['c'], limit: n })]
      for (const key of keys) await db.remove(key)
      await db.close()
      return keys.length
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  }
})

speedStoreContract('memory', async () => {
  const store = openMemorySpeedStore()
  return {
    open: async () => store,
    deleteBlocks: async (n) => store.deleteBlocks(n),
    remove: async () => undefined,
  }
})

const header = (formatVersion: 1) => ({
  formatVersion,
  position: genesis('log-a'),
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: {},
})

it('reads a header with a flipped bit as a lost one, and lets it be rebuilt', async () => {
  const folder = await temporary()
  const key = { dataset: 'orders', partition: 0 }
  try {
    const store = await openLmdbSpeedStore({ folder })
    await store.rebuild(key, null, header(1))
    await store.close()
    const db = raw(folder)
    const stored = Buffer.from(db.get(['h', 'orders', 0])!)
    for (let bit = 0; bit < stored.byteLength * 8; bit += 7) {
      const damaged = Buffer.from(stored)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      await db.put(['h', 'orders', 0], damaged)
      await db.flushed
      const again = await openLmdbSpeedStore({ folder })
      // A flipped format byte with an intact checksum would be a newer format: refused, never read as ours.
      const seen = await again.header(key).catch((error: { code: string }) => error.code)
      expect(bit < 8 ? [null, 'WEIR_SPEED_FORMAT'] : [null]).toContain(seen)
      if (seen === null) expect(await again.rebuild(key, null, header(1))).toBe('applied')
      await again.close()
    }
    await db.close()
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

it('refuses a data file that is shorter than its last page', async () => {
  const folder = await temporary()
  try {
    const store = await openLmdbSpeedStore({ folder })
    for (let p = 0; p < 500; p++) await store.rebuild({ dataset: 'orders', partition: p }, null, header(1))
    await store.close()
    await truncate(join(folder, 'data.mdb'), 12_288)
    await expect(openLmdbSpeedStore({ folder })).rejects.toMatchObject({ code: 'WEIR_SPEED_CORRUPT' })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
