import { expect, test } from 'vitest'
import { localFiles } from '../../lake/local-files.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'

const files = Array.from({ length: 40 }, (_, i) => ({
  key: `k${i}`,
  size: i,
  ...(i % 2 ? { sha256: `s${i}` } : {}),
  own: i,
}))

/** A store that holds each call until some turns later, the later the smaller the number. */
const slow = (fails: string | null) => {
  const seen = { most: 0, now: 0, ended: 0, asked: [] as object[] }
  const localFile = async (key: string, expected: { size: number; sha256?: string }): Promise<string> => {
    seen.asked.push(expected)
    seen.now++
    seen.most = Math.max(seen.most, seen.now)
    for (let turns = 50 - expected.size; turns > 0; turns--) await new Promise(setImmediate)
    seen.now--
    seen.ended++
    if (key === fails) throw new Error(`${key} is damaged`)
    return `/cache/${key}`
  }
  return { seen, store: { localFile } as unknown as ObjectStore }
}

test('paths in the order of the files, eight at a time', async () => {
  const { seen, store } = slow(null)
  const found = await localFiles(store, files)
  expect(found.map((f) => [f.own, f.path, f.sha256])).toEqual(files.map((f) => [f.own, `/cache/k${f.own}`, f.sha256]))
  expect(seen.most).toBe(8)
  expect(seen.asked[0]).toEqual({ size: 0 })
  expect(await localFiles(store, [])).toEqual([])
})

test('a damaged one is told when none is under way any more, and no further one is asked for', async () => {
  const { seen, store } = slow('k3')
  await expect(localFiles(store, files)).rejects.toThrow('k3 is damaged')
  expect(seen.now).toBe(0)
  expect(seen.ended).toBeLessThan(files.length)
})
