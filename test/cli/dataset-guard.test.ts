import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { guardDataset, type Present } from '../../cli/dataset-guard.ts'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { orders } from '../support/orders.ts'

const dataset = orders({ partitions: 1, dedupeWindowMs: 60_000 })
/** A log at its beginning, and no speed state. */
const plain: Present = { origin: async () => null, hasState: async () => false }
const origin = (start: number) => ({ logId: 'a.b', offsets: { '0': start } })
let folder: string
let store: ObjectStore
const path = (): string => join(folder, 'datasets', 'orders.json')

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-guard-'))
  store = await openFolderStore(folder)
  await guardDataset(store, dataset, plain)
})
afterEach(async () => {
  await store.close()
  await rm(folder, { recursive: true, force: true })
})

test('of processes that start at once with two definitions, one wins', async () => {
  const fresh = { ...dataset, name: 'fresh' }
  const outcomes = await Promise.allSettled(
    [1, 2, 1, 2].map((n) => guardDataset(store, { ...fresh, partitions: n }, plain)),
  )
  expect(outcomes.filter((o) => o.status === 'fulfilled').length).toBe(2)
})

test('the same definition starts again, another one does not', async () => {
  await guardDataset(store, dataset, plain)
  await expect(guardDataset(store, { ...dataset, partitions: 2 }, plain)).rejects.toMatchObject({
    code: 'WEIR_CLI_DATASET_CHANGED',
    expected: 'partitions: 1',
    got: 'partitions: 2',
  })
})

test.each([
  '',
  '{"formatVersion":1,"mean',
  'null',
  '{}',
  '[]',
  '7',
  '{"formatVersion":1}',
  '{"formatVersion":1,"meaning":null}',
  '{"formatVersion":2,"sense":{}}',
  '{"formatVersion":1,"meaning":{},"origin":7}',
  '{"formatVersion":1,"meaning":{},"origin":{"logId":"a.b"}}',
  '{"formatVersion":1,"meaning":{},"origin":{"logId":"a.b","offsets":{"0":-1}}}',
])('a stored definition that cannot be read is refused and left as it is: %s', async (text) => {
  await writeFile(path(), text)
  await expect(guardDataset(store, dataset, plain)).rejects.toMatchObject({ code: 'WEIR_CLI_DATASET_FILE' })
  expect(await readFile(path(), 'utf8')).toBe(text)
})

test('the origin is that of the first start, for every process and ever after', async () => {
  const fresh = { ...dataset, name: 'fresh' }
  const starts = [5, 7, 9]
  const found = await Promise.all(
    starts.map((start) => guardDataset(store, fresh, { ...plain, origin: async () => origin(start) })),
  )
  expect(found.filter((f) => f.isNew)).toHaveLength(1)
  const [first] = found
  expect(starts).toContain(first!.origin!.offsets['0'])
  for (const f of found) expect(f.origin).toEqual(first!.origin)
  const later = await guardDataset(store, fresh, { ...plain, origin: async () => origin(100) })
  expect(later).toEqual({ origin: first!.origin, isNew: false })
  // One that was defined before there were origins has none.
  expect(await guardDataset(store, dataset, { ...plain, origin: async () => origin(100) })).toEqual({
    origin: undefined,
    isNew: false,
  })
})

test('a dataset that the speed store knows does not begin anew where its log begins now', async () => {
  const lost = { ...dataset, name: 'lost' }
  const present: Present = { origin: async () => origin(5), hasState: async (logId) => logId === 'a.b' }
  const refused = { code: 'WEIR_CLI_DATASET_FORGOTTEN' }
  await expect(guardDataset(store, lost, present)).rejects.toMatchObject(refused)
  expect(await store.get('datasets/lost.json')).toBeNull()
  // With nothing missing in the log it is read again from its beginning.
  expect(await guardDataset(store, lost, { ...present, origin: async () => null })).toMatchObject({ isNew: true })
})

test('of two first starts the slower one meets the state of the quicker one, and goes on', async () => {
  const fresh = { ...dataset, name: 'fresh' }
  const slow: Present = {
    origin: async () => {
      await guardDataset(store, fresh, { ...plain, origin: async () => origin(5) })
      return origin(6)
    },
    hasState: async () => true,
  }
  expect(await guardDataset(store, fresh, slow)).toEqual({ origin: origin(5), isNew: false })
})
