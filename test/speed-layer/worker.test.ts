/** The speed worker against the reference, one fault at a time. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Header, SpeedStore } from '../../model/ports/speed-store.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { type MemorySpeedStore, openMemorySpeedStore } from '../support/memory-speed-store.ts'
import { rng } from '../support/orders.ts'
import { allViews, byCountry, differences, first, ids, openWorld, settle, total, type World } from './support.ts'

const KEY = { dataset: 'orders', partition: 0 }

describe('the speed worker under faults', () => {
  let world: World
  let store: MemorySpeedStore
  let log: ReturnType<typeof openMemoryLog>
  /** What the next apply does instead: fail before or after it took place. */
  let fault: 'before' | 'after' | null
  beforeEach(async () => {
    store = openMemorySpeedStore()
    log = openMemoryLog()
    fault = null
    const faulty: SpeedStore = {
      ...store,
      apply: async (key, apply) => {
        const now = fault
        fault = null
        if (now === 'before') throw new Error('lost before')
        const outcome = await store.apply(key, apply)
        if (now === 'after') throw new Error('lost after')
        return outcome
      },
    }
    world = await openWorld({ log, store: faulty })
  })
  afterEach(() => world.close())
  const header = async (): Promise<Header> => (await store.header(KEY))!

  it.each(['before', 'after'] as const)('counts once when the connection is lost %s an apply', async (when) => {
    const random = rng(3)
    const worker = await world.worker()
    for (let round = 0; round < 4; round++) {
      await world.append(random, 5)
      await settle(world, worker)
      await world.append(random, 5)
      fault = when
      await expect(worker.step()).rejects.toThrow('lost')
      await settle(world, worker)
      expect(await differences(world)).toEqual([])
    }
    await worker.close()
  })

  it.each([
    ['beyond the position, inside the batch', 3],
    ['at the position', 0],
  ])('is exact when a cut %s is asked between its read and its apply', async (_where, ahead) => {
    const random = rng(18)
    let asked = 0
    const meddling: SpeedStore = {
      ...store,
      apply: async (key, apply) => {
        if (asked++ % 2 === 1) await store.cut(key, byCountry.version, ahead === 0 ? 0 : apply.from.offset + ahead)
        return store.apply(key, apply)
      },
    }
    const worker = await world.worker({ store: meddling, lookEveryMs: 1e9, verifyEveryMs: 1e9 })
    for (let round = 0; round < 5; round++) {
      await world.append(random, 12)
      await settle(world, worker)
    }
    expect(asked).toBeGreaterThan(5)
    expect((await header()).views[byCountry.version]!.epochs.length).toBeGreaterThan(2)
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('notices blocks that are gone while there is always something to read', async () => {
    const random = rng(23)
    const worker = await world.worker({ verifyBusyMs: 0, verifyEveryMs: 1e9, lookEveryMs: 1e9 })
    await world.append(random, 12)
    await settle(world, worker)
    expect(store.deleteBlocks(1)).toBe(1)
    // The next batch is there already: without a look under load it would be applied, and nothing noticed.
    // One epoch a look: each version's turn comes.
    const kinds: string[] = []
    for (let n = 0; n < 6; n++) {
      await world.append(random, 3)
      kinds.push((await worker.step()).kind)
    }
    expect(kinds).toContain('rebuilt')
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('takes any engine error in a step, and goes on', async () => {
    const random = rng(4)
    let left = Number.POSITIVE_INFINITY
    const session = async () => {
      const real = await world.engine.session()
      const guard = (): void => {
        if (--left === 0) throw new Error('FATAL Error: database has been invalidated')
      }
      const run: typeof real.run = async (sql, o) => {
        guard()
        return real.run(sql, o)
      }
      const rows: typeof real.rows = async (sql, o) => {
        guard()
        return real.rows(sql, o)
      }
      return { ...real, run, rows }
    }
    const worker = await world.worker({ engine: { ...world.engine, session } })
    let failures = 0
    for (let n = 1; n < 26; n += 2) {
      await world.append(random, 3)
      left = n
      await settle(world, worker).catch(() => failures++)
      left = Number.POSITIVE_INFINITY
      await settle(world, worker)
    }
    expect(failures).toBeGreaterThan(5)
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('lets two workers own one partition', async () => {
    const random = rng(5)
    const [a, b] = [await world.worker(), await world.worker()]
    for (let round = 0; round < 6; round++) {
      await world.append(random, 6)
      for (let i = 0; i < 4; i++) await Promise.all([a.step(), b.step()])
    }
    await settle(world, a)
    await settle(world, b)
    expect(await differences(world)).toEqual([])
    await a.close()
    await b.close()
  })

  /** Changes the stored header behind the store's back. */
  const tamper = (change: (h: Header) => Header): void => {
    const snapshot = store.snapshot()
    const state = snapshot.get('orders/0')!
    state.header = change(state.header!)
    store.restore(snapshot)
  }
  const movedTo = (h: Header, position: Header['position']): Header => ({ ...h, position })

  it('sees an apply that does not compare positions (canary of rule 1)', async () => {
    const random = rng(6)
    const careless: SpeedStore = {
      ...store,
      apply: async (key, apply) => {
        tamper((h) => movedTo(h, apply.from))
        return store.apply(key, apply)
      },
    }
    const options = { store: careless, lookEveryMs: 1e9 }
    const [a, b] = [
      await world.worker(options),
      await world.worker({ ...options, settings: { ...world.settings, batchBytes: 1024 } }),
    ]
    for (let i = 0; i < 4; i++) for (const w of [a, b]) await w.step()
    await world.append(random, 20)
    expect((await a.step()).kind).toBe('applied')
    expect(await differences(world)).toEqual([])
    expect((await b.step()).kind).toBe('applied')
    expect(await differences(world)).not.toEqual([])
    await a.close()
    await b.close()
  })

  it('sees a double count when the position is not in the commit of the cells (canary of rule 1)', async () => {
    const random = rng(17)
    const worker = await world.worker()
    await world.append(random, 10)
    await settle(world, worker)
    await worker.close()
    tamper((h) => movedTo(h, world.positions[4]!))
    const next = await world.worker()
    await settle(world, next)
    expect((await differences(world)).some((d) => d.startsWith('by_country'))).toBe(true)
    await next.close()
  })

  it('rebuilds a lost store from the published cuts and the log, versions with different cuts too', async () => {
    const random = rng(7)
    const worker = await world.worker()
    await world.append(random, 30)
    await settle(world, worker)
    for (const [view, offset] of [
      [byCountry, 9],
      [total, 20],
      [first, 20],
    ] as const)
      world.publish(view, offset)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    store.lose()
    await world.append(random, 5)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    const { views } = await header()
    expect(allViews.map((v) => views[v.version]!.epochs[0]!.from.offset)).toEqual([9, 20, 20, 0])
    await worker.close()
  })

  it('repairs a store that was rolled back to before the published cut (no epoch starts there)', async () => {
    const random = rng(8)
    const worker = await world.worker()
    await world.append(random, 10)
    await settle(world, worker)
    const before = store.snapshot()
    expect(await store.cut(KEY, byCountry.version, 0)).toEqual(world.positions[10])
    store.restore(before)
    world.publish(byCountry, 10)
    await settle(world, worker)
    expect((await header()).views[byCountry.version]!.epochs.map((e) => e.from.offset)).toEqual([10])
    await world.append(random, 10)
    await settle(world, worker)
    store.restore(before)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('notices while idle that the store lost blocks of an open and of a closed epoch', async () => {
    const random = rng(9)
    const worker = await world.worker()
    await world.append(random, 12)
    await settle(world, worker)
    await store.cut(KEY, byCountry.version, 0)
    await world.append(random, 6)
    await settle(world, worker)
    for (const n of [1, 3]) {
      expect(store.deleteBlocks(n)).toBe(n)
      expect(await differences(world)).not.toEqual([])
      for (let i = 0; i < 40 && (await differences(world)).length > 0; i++) await worker.step()
      expect(await differences(world)).toEqual([])
    }
    await worker.close()
  })

  it('rebuilds at the published cut when the tail of the log was cut off and grew again', async () => {
    const random = rng(10)
    const worker = await world.worker()
    await world.append(random, 20)
    await settle(world, worker)
    world.publish(byCountry, 5)
    await settle(world, worker)
    // Shorter than the position, and with nothing new: seen while idle.
    world.truncate(15)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    world.truncate(12)
    await world.append(random, 10)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    expect(world.alarms).toEqual([])
    await worker.close()
  })

  it('stops with one alarm when the log is not the one that was published, and never merges', async () => {
    const random = rng(11)
    const worker = await world.worker()
    await world.append(random, 20)
    await settle(world, worker)
    world.publish(byCountry, 15)
    await settle(world, worker)
    const before = JSON.stringify(await header())
    world.truncate(10)
    await world.append(random, 10)
    for (let i = 0; i < 5; i++) expect((await worker.step()).kind).toMatch(i === 0 ? /rebuilt|stopped/ : 'stopped')
    expect(world.alarms.map((a) => a.code)).toEqual(['WEIR_SPEED_LOG_REPLACED'])
    expect(worker.state().stopped?.code).toBe('WEIR_SPEED_LOG_REPLACED')
    expect(JSON.stringify(await header())).toBe(before)
    await worker.close()
  })

  it('stops for a log of another id, also with nothing published', async () => {
    const random = rng(12)
    const worker = await world.worker()
    await world.append(random, 5)
    await settle(world, worker)
    for (const view of allViews) world.publish(view, 5)
    await settle(world, worker)
    log.replace('orders')
    for (let i = 0; i < 3; i++) await worker.step()
    expect(worker.state().stopped?.code).toBe('WEIR_SPEED_LOG_REPLACED')
    await worker.close()
  })

  it('stops below the start of the log, and goes on where the batch layer has caught up', async () => {
    const random = rng(13)
    const worker = await world.worker()
    await world.append(random, 30)
    await settle(world, worker)
    for (const view of allViews) world.publish(view, 10)
    await settle(world, worker)
    store.lose()
    await log.trim('orders', 0, 20)
    for (let i = 0; i < 4; i++) await worker.step()
    expect(worker.state().stopped?.code).toBe('WEIR_SPEED_BELOW_START')
    expect(await store.header(KEY)).toBeNull()
    expect(world.alarms.map((a) => a.code)).toEqual(['WEIR_SPEED_BELOW_START'])
    // One view is caught up from the lake: the partition goes on, the others wait for theirs.
    world.publish(byCountry, 25)
    for (let i = 0; i < 10; i++) await worker.step()
    expect(worker.state()).toMatchObject({ stopped: null, position: { offset: 30 } })
    expect(worker.state().versions[total.version]).toBe('below-start')
    expect(await differences(world)).toEqual([])
    for (const view of allViews.slice(1)) world.publish(view, 28)
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    await worker.close()
  })

  it('goes on from a later published cut when its own position has been trimmed away', async () => {
    const random = rng(14)
    const worker = await world.worker()
    await world.append(random, 10)
    await settle(world, worker)
    await worker.close()
    await world.append(random, 20)
    for (const view of allViews) world.publish(view, 25)
    await log.trim('orders', 0, 22)
    const next = await world.worker()
    await settle(world, next)
    expect(await differences(world)).toEqual([])
    expect((await header()).views[ids.version]!.epochs[0]!.from.offset).toBe(25)
    await next.close()
  })

  it('lets versions enter behind, at and beyond the position, and leave for good', async () => {
    const random = rng(15)
    world.fed = [byCountry]
    const worker = await world.worker()
    await world.append(random, 20)
    await settle(world, worker)
    world.publish(total, 8)
    world.publish(first, 20)
    await world.append(random, 0)
    world.fed = [byCountry, total, first]
    await settle(world, worker)
    expect(await differences(world)).toEqual([])
    // Beyond: the lake is ahead of the speed layer.
    await world.append(random, 20)
    world.publish(ids, 33)
    world.fed = allViews
    await worker.step()
    expect(worker.state().versions[ids.version]).toBe('waiting')
    await settle(world, worker)
    const starts = Object.entries((await header()).views).map(([v, { epochs }]) => [v, epochs[0]!.from.offset])
    expect(Object.fromEntries(starts)).toEqual({
      [byCountry.version]: 0,
      [total.version]: 8,
      [first.version]: 20,
      [ids.version]: 33,
    })
    expect(await differences(world)).toEqual([])
    // Dropped: swept on every pass, also when a worker that had not heard of it writes it again.
    const old = await store.header(KEY)
    world.fed = [byCountry, first, ids]
    world.dropped = [{ view: total.name, version: total.version }]
    for (let pass = 0; pass < 2; pass++) {
      await settle(world, worker)
      expect(Object.keys((await header()).views)).not.toContain(total.version)
      expect(await store.blocks(KEY, total.version, world.positions[8]!)).toEqual([])
      const at = (await header()).position
      const epoch = { ...old!.views[total.version]!.epochs[0]!, to: at, blocks: 0 }
      await store.install(KEY, at, total.version, [{ epoch, blocks: [] }])
    }
    await settle(world, worker)
    expect(Object.keys((await header()).views)).toHaveLength(3)
    await worker.close()
  })

  it('sweeps what retires', async () => {
    const random = rng(16)
    const worker = await world.worker()
    await world.append(random, 20)
    await settle(world, worker)
    const cut = await store.cut(KEY, byCountry.version, 0)
    await world.append(random, 5)
    await settle(world, worker)
    world.publish(byCountry, 20)
    await store.retire(KEY, byCountry.version, cut as Header['position'])
    await settle(world, worker)
    await worker.step()
    expect((await header()).views[byCountry.version]!.retiring).toEqual([])
    expect(await store.blocks(KEY, byCountry.version, world.positions[0]!)).toEqual([])
    expect(await differences(world)).toEqual([])
    await worker.close()
  })
})
