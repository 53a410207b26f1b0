/**
 * Random lives of one partition: batches, cuts, publishes, crashes, two workers, store and log faults, versions that come
 * and go. Whenever it has settled, the stored state equals the reference. Seeds replay; WEIR_SPEED_SEEDS asks for more.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Engine, openEngine } from '../../engine/engine.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import { samePosition } from '../../model/position.ts'
import type { SpeedWorker } from '../../speed-layer/worker.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { openMemorySpeedStore } from '../support/memory-speed-store.ts'
import { below, rng } from '../support/orders.ts'
import { allViews, differences, openWorld, settle } from './support.ts'

const KEY = { dataset: 'orders', partition: 0 }
const SEEDS = Number(process.env.WEIR_SPEED_SEEDS ?? 4)
const FIRST = Number(process.env.WEIR_SPEED_FIRST_SEED ?? 1)
const STEPS = 60

let engine: Engine
beforeAll(async () => {
  engine = await openEngine()
})
afterAll(() => engine.close())

const live = async (seed: number): Promise<void> => {
  const random = rng(seed * 7919)
  const store = openMemorySpeedStore()
  const log = openMemoryLog()
  let fault: 'before' | 'after' | null = null
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
  const world = await openWorld({ log, store: faulty, engine })
  world.fed = allViews.slice(0, 1 + below(random, allViews.length))
  const trace: string[] = []
  const open = (): Promise<SpeedWorker> =>
    world.worker({
      lookEveryMs: random() < 0.5 ? 0 : 250,
      settings: { ...world.settings, batchBytes: random() < 0.5 ? 1_024 : 65_536 },
    })
  const workers = [await open(), await open()]
  let snapshot = store.snapshot()
  let trimmed = 0
  const lowest = (): number => Math.min(...world.fed.map((v) => world.cuts.get(v.version)?.offset ?? 0))

  const publishSome = async (): Promise<void> => {
    const view = world.fed[below(random, world.fed.length)]!
    const header = await store.header(KEY)
    const now = world.cuts.get(view.version)?.offset ?? 0
    const cuts = (header?.views[view.version]?.epochs ?? []).slice(1).map((e) => e.from)
    const cut = cuts[below(random, cuts.length)]
    if (cut === undefined || cut.offset <= now || !samePosition(cut, world.positions[cut.offset] ?? cut)) return
    if (cut.offset >= world.positions.length) return
    world.publish(view, cut.offset)
    if (random() < 0.7) await store.retire(KEY, view.version, cut)
  }
  const actions: [number, string, () => Promise<unknown>][] = [
    [8, 'append', () => world.append(random, 1 + below(random, 8))],
    [12, 'step a', () => workers[0]!.step().catch((error: Error) => trace.push(error.message))],
    [8, 'step b', () => workers[1]!.step().catch((error: Error) => trace.push(error.message))],
    [4, 'both', () => Promise.allSettled(workers.map((w) => w.step()))],
    [
      5,
      'cut',
      () => store.cut(KEY, world.fed[below(random, world.fed.length)]!.version, below(random, world.known.length + 6)),
    ],
    [5, 'publish', publishSome],
    [
      2,
      'crash',
      async () => {
        fault = random() < 0.5 ? 'before' : 'after'
      },
    ],
    [
      2,
      'restart',
      async () => {
        const i = below(random, 2)
        await workers[i]!.close()
        workers[i] = await open()
      },
    ],
    [1, 'lose', async () => store.lose()],
    [
      2,
      'snapshot',
      async () => {
        snapshot = store.snapshot()
      },
    ],
    [1, 'roll back', async () => store.restore(snapshot)],
    [1, 'delete blocks', async () => store.deleteBlocks(1 + below(random, 3))],
    [
      1,
      'truncate',
      async () => {
        const keep = Math.max(world.archivedTo, trimmed)
        world.truncate(keep + below(random, world.known.length - keep + 1))
      },
    ],
    [
      1,
      'trim',
      async () => {
        trimmed = Math.max(trimmed, Math.min(world.archivedTo, lowest()))
        await log.trim('orders', 0, trimmed)
      },
    ],
    [
      1,
      'enter',
      async () => {
        const view = allViews.find((v) => !world.fed.includes(v) && !world.dropped.some((d) => d.version === v.version))
        if (view === undefined) return
        if (trimmed > 0 || random() < 0.6) world.publish(view, Math.max(trimmed, below(random, world.known.length + 1)))
        world.fed = [...world.fed, view]
      },
    ],
    [
      0.5,
      'drop',
      async () => {
        if (world.fed.length < 2) return
        const [view] = world.fed
        world.fed = world.fed.slice(1)
        world.dropped.push({ view: view!.name, version: view!.version })
      },
    ],
    [
      0.7,
      'catch up',
      async () => {
        for (const v of world.fed) world.publish(v, Math.max(world.archivedTo, world.cuts.get(v.version)?.offset ?? 0))
      },
    ],
  ]
  const total = actions.reduce((n, [weight]) => n + weight, 0)
  const settled = async (): Promise<void> => {
    fault = null
    await settle(world, workers[below(random, 2)]!)
    // Damage that no step has met yet is found while idle.
    let wrong = await differences(world)
    for (let i = 0; i < 20 && wrong.some((w) => w.includes('do not fit')); i++) {
      await workers[0]!.step()
      wrong = await differences(world)
    }
    expect(wrong, trace.join(', ')).toEqual([])
    expect(world.alarms, trace.join(', ')).toEqual([])
  }
  try {
    for (let i = 0; i < STEPS; i++) {
      let at = random() * total
      const action = actions.find(([weight]) => {
        at -= weight
        return at < 0
      })!
      trace.push(action[1])
      await action[2]()
      if (random() < 0.06) await settled()
    }
    await settled()
    for (const worker of workers) await settle(world, worker)
    expect(await differences(world), trace.join(', ')).toEqual([])
  } catch (error) {
    throw new Error(`seed ${seed}: ${trace.join(', ')}`, { cause: error })
  } finally {
    for (const worker of workers) await worker.close()
    await world.close()
  }
}

it.each(Array.from({ length: SEEDS }, (_, i) => FIRST + i))('seed %i stays exact', live, 120_000)
