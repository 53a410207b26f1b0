/** The speed worker against the reference: batches, cuts, crashes, two owners, lost and rolled-back stores, new and dropped versions. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Position, samePosition } from '../../model/position.ts'
import { openMemorySpeedStore } from '../support/memory-speed-store.ts'
import {
  allViews,
  below,
  byCountry,
  differences,
  first,
  ids,
  openWorld,
  rng,
  settle,
  total,
  type World,
} from './support.ts'

const KEY = { dataset: 'orders', partition: 0 }

describe('the speed worker', () => {
  let world: World
  beforeEach(async () => {
    world = await openWorld()
  })
  afterEach(() => world.close())

  it('keeps every view equal to plain SQL over the whole log, batch by batch', async () => {
    const random = rng(1)
    const worker = await world.worker()
    for (let round = 0; round < 6; round++) {
      await world.append(random, 1 + below(random, 40))
      await settle(world, worker)
      expect(await differences(world)).toEqual([])
    }
    expect(worker.state().versions).toEqual(Object.fromEntries(allViews.map((v) => [v.version, 'fed'])))
    const { counted, duplicate, dead } = worker.state()
    expect(Math.min(counted, duplicate, dead)).toBeGreaterThan(0)
    await worker.close()
  })
})
