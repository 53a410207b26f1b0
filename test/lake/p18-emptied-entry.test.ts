/** P18: a table log entry cut to nothing is damage, not a commit without actions: its files would silently be missing. */
import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { openLake } from '../../lake/lake.ts'
import { archive, type Fixture, openFixture } from './support.ts'

let f: Fixture
beforeEach(async () => {
  f = await openFixture()
})
afterEach(() => f.close())

it.each([0, 1])('cut to %i bytes', async (length) => {
  let state = { counted: 0, duplicate: 0, dead: 0 }
  for (let n = 0; n < 3; n++)
    state = await archive(f.lake, f.dataset, { from: n * 2, to: n * 2 + 2, before: state, events: 3 })
  await truncate(join(f.folder, 'events/orders/_delta_log/00000000000000000001.json'), length)
  const store = await openFolderStore(f.folder)
  const lake = openLake({ store, engine: f.engine })
  await expect(lake.events(f.dataset).archived(0)).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
  await store.close()
})
