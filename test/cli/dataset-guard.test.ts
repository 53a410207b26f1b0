import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { guardDataset } from '../../cli/dataset-guard.ts'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { orders } from '../support/orders.ts'

const dataset = orders({ partitions: 1, dedupeWindowMs: 60_000 })
let folder: string
let store: ObjectStore
const path = (): string => join(folder, 'datasets', 'orders.json')

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-guard-'))
  store = await openFolderStore(folder)
  await guardDataset(store, dataset)
})
afterEach(async () => {
  await store.close()
  await rm(folder, { recursive: true, force: true })
})

test('of processes that start at once with two definitions, one wins', async () => {
  const fresh = { ...dataset, name: 'fresh' }
  const outcomes = await Promise.allSettled([1, 2, 1, 2].map((n) => guardDataset(store, { ...fresh, partitions: n })))
  expect(outcomes.filter((o) => o.status === 'fulfilled').length).toBe(2)
})

test('the same definition starts again, another one does not', async () => {
  await guardDataset(store, dataset)
  await expect(guardDataset(store, { ...dataset, partitions: 2 })).rejects.toMatchObject({
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
])('a stored definition that cannot be read is refused and left as it is: %s', async (text) => {
  await writeFile(path(), text)
  await expect(guardDataset(store, dataset)).rejects.toMatchObject({ code: 'WEIR_CLI_DATASET_FILE' })
  expect(await readFile(path(), 'utf8')).toBe(text)
})
