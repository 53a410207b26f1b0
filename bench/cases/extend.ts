/**
 * Extend by one day of a year, against a recompute of the year. Everything is archived before: both read the lake alone, and
 * both in a process that has extended before, as a server that is up has.
 */
import { extend as extendView } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { type Case, type Env, figuresOf, type Measured, median, type Row } from '../harness/case.ts'
import { measured } from '../harness/cpu.ts'
import { appendEvents, archiveAll, paths, preparedData, yearOf } from '../prepare.ts'
import { drain, openWorld } from '../world.ts'

const VIEW = 'by_hour_country'

type World = Awaited<ReturnType<typeof openWorld>>
type Worker = Awaited<ReturnType<World['worker']>>

const open = (env: Env): Promise<World> =>
  openWorld({ project: 'year', data: paths(env.shared, env.sharedMemory).year })

/** Events of the published cells: what must equal the events archived. */
const check = async (world: World): Promise<void> => {
  const view = world.view(VIEW)
  const current = await world.ctx.publications.current(view.name, view.version)
  if (current === null || current === 'dropped') throw new Error('nothing is published')
  const { cut, files } = current.pointer
  const { cellsOf } = await import('../../batch-layer/parts.ts')
  const counted = await world.ctx.history.countsBelow('events', 0, cut['0']!.offset)
  const count = view.measures.find((m) => m.name === 'event_count')!.states[0]!
  const cells = await cellsOf(world.ctx.lake.store, view, files)
  const [row] = await world.engine.withSession((s) => s.rows<{ n: string }>(`SELECT sum(${count}) AS n FROM ${cells}`))
  if (Number(row!.n) !== counted.counted) throw new Error(`${row!.n} events are published of ${counted.counted}`)
}

/** Events that a process extends by before anything is measured. */
const WARM = 200

/** Appends the events that follow all those of the runs before, and archives them. */
const grow = async (world: World, env: Env, worker: Worker, from: number, count: number): Promise<void> => {
  const { events, startMs, stepMs } = yearOf(env.sizes.year)
  const first = events + from
  await appendEvents(world.ctx.log, { events: count, first, startMs: startMs + first * stepMs, stepMs, late: 0 })
  await drain(world, worker)
  await archiveAll(world)
}

const extended = async (world: World): Promise<{ cpuS: number; wallS: number }> => {
  const { value, cpuS, wallS } = await measured(() => extendView(world.ctx, world.view(VIEW)))
  if (value.outcome !== 'published' || (value.verified?.differing ?? 0) > 0)
    throw new Error(`${value.outcome} ${value.reasons.join('; ')}`)
  return { cpuS, wallS }
}

/** An opened world in which an extend has run. */
const warm = async (world: World, env: Env, at: number): Promise<Worker> => {
  await world.adopt()
  const worker = await world.worker()
  await drain(world, worker)
  await grow(world, env, worker, at, WARM)
  await extended(world)
  return worker
}

const day = async (env: Env): Promise<Measured> => {
  const world = await open(env)
  try {
    const fresh = Math.floor(env.sizes.year / 365 / 2) * 2
    const before = env.run * (fresh + 2 * WARM)
    const worker = await warm(world, env, before + WARM)
    await grow(world, env, worker, before + 2 * WARM, fresh)
    const figures = await extended(world)
    await check(world)
    return { figures: { events: fresh, ...figures } }
  } finally {
    await world.close()
  }
}

const year = async (env: Env): Promise<Measured> => {
  const world = await open(env)
  try {
    await warm(world, env, env.run * (Math.floor(env.sizes.year / 365 / 2) * 2 + 2 * WARM))
    const { value, cpuS, wallS } = await measured(() => recompute(world.ctx, world.view(VIEW)))
    if (value.outcome !== 'published' || value.differing > 0)
      throw new Error(`${value.outcome}, ${value.differing} differ`)
    await check(world)
    return { figures: { events: env.sizes.year, cpuS, wallS } }
  } finally {
    await world.close()
  }
}

export const extend: Case = {
  name: 'extend',
  about: 'extend by one day of a year (hour × country), verified against the speed state',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    await preparedData(paths(shared, sharedMemory).year, 'year', yearOf(sizes.year), true)
  },
  variants: { recompute: year, extend: day },
  report: (results, sizes) => {
    const seconds = (what: string, variant: string): Row => {
      const all = figuresOf(results, variant, 'cpuS')
      return { what, best: `${Math.min(...all).toFixed(3)} CPU-s`, median: `${median(all).toFixed(3)} CPU-s` }
    }
    const ratios = figuresOf(results, 'recompute', 'cpuS').map((r, i) => r / figuresOf(results, 'extend', 'cpuS')[i]!)
    return {
      rows: [
        seconds('recompute of the year', 'recompute'),
        seconds('extend by one day', 'extend'),
        {
          what: 'extend / recompute',
          best: `1/${Math.max(...ratios).toFixed(0)}`,
          median: `1/${median(ratios).toFixed(0)}`,
          target: '≤ 1/50',
          met: median(ratios) >= 50,
        },
      ],
      notes: [`${sizes.year.toLocaleString('en')} events a year.`],
    }
  },
}
