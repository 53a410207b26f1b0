/** P18, P19, fault 13: a damaged part of a published view is never answered from, and a recompute puts it right without a person. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { extend } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import type { PartFile } from '../../model/ports/publications.ts'
import type { View } from '../../model/view.ts'
import { rng } from '../support/orders.ts'
import { byHour, openWorld, type World } from './support.ts'

let w: World
const random = rng(5)
beforeEach(async () => {
  w = await openWorld({ views: [byHour] })
  await adoptViews(w.ctx, w.views)
})
afterEach(() => w.close())

const grow = async (): Promise<void> => {
  await w.append(random, 10)
  await w.speedUp()
}
const damage = async (file: PartFile, how: 'flipped' | 'gone'): Promise<void> => {
  const bytes = Buffer.from((await w.store.get(file.key))!)
  bytes[bytes.length >> 1]! ^= 1
  await w.store.delete(file.key)
  if (how === 'flipped') await w.store.putIfAbsent(file.key, bytes)
}

/** The view as another release compiled it: its files have other bytes than those of a recompute. */
const other: View = {
  ...byHour,
  states: byHour.states.map((s, i) => (i === 0 ? { ...s, partial: 'count(*) + 1' } : s)),
}

it.each([
  ['flipped', byHour],
  ['gone', byHour],
  ['flipped', other],
  ['gone', other],
] as const)('a part that is %s (%#)', async (how, published) => {
  for (let i = 0; i < 2; i++) {
    await grow()
    expect((await extend(w.ctx, published)).outcome).toBe('published')
  }
  for (const file of (await w.published(byHour)).files) await damage(file, how)
  await grow()
  const ctx = w.other()
  await ctx.versions.refresh()
  await expect(extend(ctx, byHour)).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
  const done = await recompute(ctx, byHour)
  expect(done).toMatchObject({ outcome: 'published' })
  const pointer = await w.published(byHour)
  expect(await w.differing(byHour, pointer, pointer.cut)).toBe(0)
  // Equal digests speak for equal cells; what could not be compared is not known to be right.
  expect(pointer.suspectLineages).toEqual(published === byHour ? [] : ['1'])
  if (published === other) expect(w.alarms.map((a) => a.code)).toContain('WEIR_LAKE_CORRUPT')
  await grow()
  expect((await extend(ctx, byHour)).outcome).toBe('published')
})
