/** Extend by one day of a year, against a recompute of the year. Everything is archived before: both read the lake alone. */
import { extend as extendView } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { type Case, type Env, figuresOf, type Measured, median, type Row } from '../harness/case.ts'
import { measured } from '../harness/cpu.ts'
import { appendEvents, archiveAll, paths, preparedData, yearOf } from '../prepare.ts'
import { drain, openWorld } from '../world.ts'

const VIEW = 'by_hour_country'

const open = (env: Env) => openWorld({ project: 'year', data: paths(env.shared, env.sharedMemory).year })

/** Events of the published cells: what must equal the events archived. */
const check = async (world: Awaited<ReturnType<typeof open>>): Promise<void> => {
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

const day = async (env: Env): Promise<Measured> => {
  const world = await open(env)
  try {
    await world.adopt()
    const worker = await world.worker()
    await drain(world, worker)
    const { events, startMs, stepMs } = yearOf(env.sizes.year)
    const fresh = Math.floor(env.sizes.year / 365 / 2) * 2
    await appendEvents(world.ctx.log, {
      events: fresh,
      first: events + env.run * fresh,
      startMs: startMs + (events + env.run * fresh) * stepMs,
      stepMs,
      late: 0,
    })
    await drain(world, worker)
    await archiveAll(world)
    const view = world.view(VIEW)
    const { value, cpuS, wallS } = await measured(() => extendView(world.ctx, view))
    if (value.outcome !== 'published' || (value.verified?.differing ?? 0) > 0)
      throw new Error(`${value.outcome} ${value.reasons.join('; ')}`)
    await check(world)
    return { figures: { events: fresh, cpuS, wallS } }
  } finally {
    await world.close()
  }
}

const year = async (env: Env): Promise<Measured> => {
  const world = await open(env)
  try {
    await world.adopt()
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
