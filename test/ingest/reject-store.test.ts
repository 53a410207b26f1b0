/** The store of rejected events: bounded, exact counts, and whole after a restart at any moment. */
import { appendFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { openRejectStore } from '../../ingest/reject-store.ts'
import type { Reject } from '../../model/ports/rejects.ts'
import { cleanUp, tempFolder } from './support.ts'

afterEach(cleanUp)

const reject = (index: number, dataset = 'orders', size = 10): Reject => ({
  dataset,
  receivedAtMs: 1_000 + index,
  index,
  code: 'WEIR_DECODE_TYPE',
  reason: 'n: expected INTEGER, got "ü"',
  raw: 'x'.repeat(size),
})

const bytesIn = async (folder: string): Promise<number> => {
  const names = (await readdir(folder)).filter((n) => n.endsWith('.ndjson'))
  return (await Promise.all(names.map((n) => stat(join(folder, n))))).reduce((sum, s) => sum + s.size, 0)
}

describe('the reject store', () => {
  test('lists the newest first, by dataset, and survives a restart', async () => {
    const folder = await tempFolder()
    const store = await openRejectStore({ folder, maxBytes: 100_000 })
    await store.add([reject(1), reject(2, 'other'), reject(3)])
    await store.add([reject(4)])
    const check = async (of: typeof store): Promise<void> => {
      expect(await of.list('orders', 2)).toEqual([reject(4), reject(3)])
      expect((await of.list('orders', 10)).map((r) => r.index)).toEqual([4, 3, 1])
      expect(await of.counts('orders')).toEqual({ kept: 3, overflowed: 0 })
      expect(await of.counts('toString')).toEqual({ kept: 0, overflowed: 0 })
    }
    await check(store)
    await store.close()
    await check(await openRejectStore({ folder, maxBytes: 100_000 }))
  })

  test('kept + overflowed = added, within the bound, with restarts in between', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ n: fc.nat(40), size: fc.nat(900), restart: fc.boolean() }), {
          minLength: 1,
          maxLength: 12,
        }),
        fc.constantFrom(0, 5_000, 20_000),
        async (steps, maxBytes) => {
          const folder = await tempFolder()
          let store = await openRejectStore({ folder, maxBytes })
          const added = { orders: 0, other: 0 }
          for (const { n, size, restart } of steps) {
            const rejects = Array.from({ length: n }, (_, i) => reject(i, i % 3 ? 'orders' : 'other', size))
            await store.add(rejects)
            for (const r of rejects) added[r.dataset as 'orders']++
            expect(await bytesIn(folder)).toBeLessThanOrEqual(maxBytes)
            if (restart) {
              await store.close()
              store = await openRejectStore({ folder, maxBytes })
            }
            for (const dataset of ['orders', 'other'] as const) {
              const { kept, overflowed } = await store.counts(dataset)
              expect(kept + overflowed).toBe(added[dataset])
              expect((await store.list(dataset, 10_000)).length).toBe(kept)
            }
          }
          await store.close()
        },
      ),
      { numRuns: 10 },
    )
  })

  test('concurrent adds are all kept', async () => {
    const store = await openRejectStore({ folder: await tempFolder(), maxBytes: 1e6 })
    await Promise.all(Array.from({ length: 50 }, (_, i) => store.add([reject(i), reject(i, 'other')])))
    expect(await store.counts('orders')).toEqual({ kept: 50, overflowed: 0 })
  })

  test('a torn last line is cut off, the next add begins a new one', async () => {
    const folder = await tempFolder()
    const store = await openRejectStore({ folder, maxBytes: 1e6 })
    await store.add([reject(1)])
    await store.close()
    const [name] = (await readdir(folder)).filter((n) => n.endsWith('.ndjson'))
    await appendFile(join(folder, name!), '{"dataset":"orders","rece')
    const again = await openRejectStore({ folder, maxBytes: 1e6 })
    await again.add([reject(2)])
    expect((await again.list('orders', 9)).map((r) => r.index)).toEqual([2, 1])
  })

  test('killed between the count and the removal of a segment: it is counted once', async () => {
    const folder = await tempFolder()
    await mkdir(folder, { recursive: true })
    const line = (n: number) => `${JSON.stringify(reject(n))}\n`
    await writeFile(join(folder, 'rejects-0000000003.ndjson'), line(1) + line(2))
    await writeFile(join(folder, 'rejects-0000000004.ndjson'), line(3))
    await writeFile(
      join(folder, 'overflow.json'),
      JSON.stringify({ formatVersion: 1, droppedUpTo: 3, overflowed: { orders: 7 } }),
    )
    const store = await openRejectStore({ folder, maxBytes: 1e6 })
    expect(await store.counts('orders')).toEqual({ kept: 1, overflowed: 7 })
    await store.add([reject(4)])
    expect((await readdir(folder)).sort()).toEqual(['overflow.json', 'rejects-0000000004.ndjson'])
  })

  test('P18: damaged counts refuse to open, with words', async () => {
    const folder = await tempFolder()
    for (const text of ['', '{"formatVersion":1,"drop']) {
      await writeFile(join(folder, 'overflow.json'), text)
      await expect(openRejectStore({ folder, maxBytes: 1 })).rejects.toMatchObject({
        code: 'WEIR_INGEST_REJECTS_FORMAT',
      })
    }
  })

  test('a newer format refuses to open', async () => {
    const folder = await tempFolder()
    await writeFile(join(folder, 'overflow.json'), JSON.stringify({ formatVersion: 2 }))
    await expect(openRejectStore({ folder, maxBytes: 1 })).rejects.toMatchObject({ code: 'WEIR_INGEST_REJECTS_FORMAT' })
    expect(JSON.parse(await readFile(join(folder, 'overflow.json'), 'utf8'))).toEqual({ formatVersion: 2 })
  })
})
