/** The speed worker against the reference on the embedded log and store, without faults. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { below, rng } from '../support/orders.ts'
import { allViews, byCountry, countsBelow, differences, ids, openWorld, settle, total, type World } from './support.ts'

const KEY = { dataset: 'orders', partition: 0 }

describe('the speed worker on the embedded log and store', () => {
  let world: World
  beforeEach(async () => {
    world = await openWorld()
  })
  afterEach(() => world.close())

  it('keeps every view equal to plain SQL over the whole log, batch by batch, also after a restart', async () => {
    const random = rng(1)
    let worker = await world.worker()
    for (let round = 0; round < 5; round++) {
      await world.append(random, 1 + below(random, 40))
      await settle(world, worker)
      expect(await differences(world)).toEqual([])
      if (round === 2) {
        await worker.close()
        worker = await world.worker()
      }
    }
    expect(worker.state().versions).toEqual(Object.fromEntries(allViews.map((v) => [v.version, 'fed'])))
    expect(worker.state()).toMatchObject(countsBelow(world, world.known.length))
    const { counted, duplicate, dead } = worker.state()
    expect(Math.min(counted, duplicate, dead)).toBeGreaterThan(0)
    await worker.close()
  })

  it('splits a batch at a requested cut, and goes on in the next epoch', async () => {
    const random = rng(2)
    await world.append(random, 30)
    const worker = await world.worker()
    while ((await world.store.cut(KEY, byCountry.version, 17)) === 'missing') await worker.step()
    expect(await world.store.cut(KEY, ids.version, 11)).toBe('pending')
    await settle(world, worker)
    const { views } = (await world.store.header(KEY))!
    const starts = (version: string) => views[version]!.epochs.map((e) => e.from.offset)
    expect([starts(byCountry.version), starts(ids.version), starts(total.version)]).toEqual([[0, 17], [0, 11], [0]])
    expect(await world.store.cut(KEY, byCountry.version, 17)).toEqual(world.positions[17])
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('waits, with one alarm, while the ids of the window do not fit', async () => {
    const random = rng(19)
    const worker = await world.worker({ settings: { ...world.settings, seenIds: 40 } })
    await world.append(random, 60)
    let kind = ''
    for (let i = 0; i < 40 && kind !== 'stopped'; i++) kind = (await worker.step()).kind
    for (let i = 0; i < 3; i++) expect((await worker.step()).kind).toBe('stopped')
    expect(world.alarms.map((a) => a.code)).toEqual(['WEIR_DECODE_SEEN_FULL'])
    expect(worker.state().stopped?.code).toBe('WEIR_DECODE_SEEN_FULL')
    expect(await differences(world)).toEqual([])
    await worker.close()
    const roomy = await world.worker()
    await settle(world, roomy)
    expect(await differences(world)).toEqual([])
    await roomy.close()
  })
})
