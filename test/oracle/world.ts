/**
 * One small Weir under a schedule: durable stores that outlive crashes, and processes (speed workers, batch runners,
 * serving) that do not. Invariant: after every step each answer equals the reference over the records below its upper, or
 * there is a loud, retryable refusal; once faults stop, everything converges without help.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Random, random } from '../../cli/random.ts'
import type { Session } from '../../engine/engine.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { parseSettings, type Settings } from '../../model/settings.ts'
import type { SqlTools } from '../../model/view.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { openMemoryObjectStore } from '../support/memory-object-store.ts'
import { type MemorySpeedStore, openMemorySpeedStore, type Snapshot } from '../support/memory-speed-store.ts'
import { check, serves } from './answers.ts'
import { calm } from './calm.ts'
import { openExpected } from './expected.ts'
import { interleave, type Process } from './nemesis.ts'
import {
  buryTheDead,
  closeBatch,
  closeSpeed,
  type Ground,
  openAnswering,
  openBatch,
  openSpeed,
  reopenAnswering,
  reopenBatch,
  reopenSpeed,
} from './processes.ts'
import { BASE_MS, type OracleProject, randomProject } from './project.ts'
import { printStep, type Schedule, type Step, type StepKind } from './schedule.ts'
import { absorb, type Base, Difference, guarded, type Lab, type World, type WorldStats } from './state.ts'
import { adopt, work } from './work.ts'

export type { Lab, WorldStats } from './state.ts'

const SETTINGS = (r: Random): Settings => {
  const settings = parseSettings('schedules: { extend: off, recompute: off, compact: off }')
  settings.log.retention = r.pick(['1 minute', 'forever', '1 minute'])
  settings.batch.retireAfterMs = 0
  settings.batch.keepGenerations = r.int(1, 4)
  settings.speed.blockBytes = r.pick([1_024, 16_384])
  settings.speed.waitMs = 1
  settings.speed.batchBytes = r.pick([1_024, 65_536])
  return settings
}

/** Speeds up worlds: the same SQL is parsed, printed and described once. */
export const memoTools = (tools: SqlTools): SqlTools => {
  const memo = <T>(call: (...args: never[]) => Promise<T>) => {
    const known = new Map<string, Promise<T>>()
    return (...args: unknown[]): Promise<T> => {
      const key = JSON.stringify(args)
      const found = known.get(key) ?? (call as (...a: unknown[]) => Promise<T>)(...args)
      if (known.size > 5_000) known.clear()
      known.set(key, found)
      return found
    }
  }
  return { parse: memo(tools.parse), print: memo(tools.print), describe: memo(tools.describe) } as SqlTools
}

let worlds = 0

export const runSchedule = async (
  lab: Lab,
  schedule: Schedule,
  trace?: (line: string) => void,
): Promise<WorldStats> => {
  const r = random(schedule.seed ^ 0x5eed)
  const project = randomProject(r)
  const settings = SETTINGS(r)
  const folder = schedule.stores === 'lmdb' ? await mkdtemp(join(tmpdir(), 'weir-oracle-')) : null
  const clock = { now: BASE_MS }
  const now = (): number => clock.now
  const memory = folder === null ? openMemorySpeedStore() : null
  const base: Base = {
    log:
      folder === null
        ? openMemoryLog({ clock })
        : await openLmdbLog({ folder: join(folder, 'log'), now, blockBytes: 600 }),
    speed: memory ?? (await openLmdbSpeedStore({ folder: join(folder!, 'speed') })),
    memory,
    objects: await openMemoryObjectStore(),
    folder,
  }
  const session = await lab.engine.session()
  const table = `oracle_${worlds++}`
  try {
    const world = await openWorld({ lab, project, settings, base, session, table, clock, trace })
    try {
      for (const step of schedule.steps) {
        trace?.(printStep(step))
        await take(world, step)
        await check(world, random(step.seed ^ 0xc4ec4), step.quiet ? 0 : schedule.asks)
      }
      await calm(world)
      return world.stats
    } finally {
      await closeWorld(world)
    }
  } finally {
    await session.run(`DROP TABLE IF EXISTS ${table}`)
    session.close()
    await base.log.close()
    await base.speed.close()
    await base.objects.close()
    if (folder !== null) await rm(folder, { recursive: true, force: true })
  }
}

type WorldOptions = {
  lab: Lab
  project: OracleProject
  settings: Settings
  base: Base
  session: Session
  table: string
  clock: { now: number }
  trace: ((line: string) => void) | undefined
}

const openWorld = async (o: WorldOptions): Promise<World> => {
  const { project, base } = o
  const { dataset } = project
  const expected = await openExpected(o.session, dataset, o.table)
  await base.log.create(dataset.name, dataset.partitions)
  const ground: Ground = {
    lab: o.lab,
    project,
    settings: o.settings,
    base,
    clock: o.clock,
    trace: o.trace,
    expected,
    partitions: Array.from({ length: dataset.partitions }, (_, p) => p),
    attempted: new Map(),
    definitions: new Map(project.views.map((v) => [v.name, 0])),
    // A copy that is followed in the background may lag: its answers are exact at its own upper.
    staleMs: project.views.length % 3 === 0 ? 20 : 0,
    speeds: [],
    batches: [],
    lastUpper: {},
    saved: undefined,
    refusedAs: '',
    opened: 0,
    appends: 0,
    alarms: [],
    stats: { answers: 0, refusals: {}, crashes: 0, published: 0 },
  }
  for (let i = 0; i < 2; i++) ground.speeds.push(await openSpeed(ground))
  for (let i = 0; i < 2; i++) ground.batches.push(await openBatch(ground))
  const world: World = Object.assign(ground, { answering: await openAnswering(ground) })
  await adopt(world, world.batches[0]!.ctx)
  return world
}

const closeWorld = async (w: World): Promise<void> => {
  for (const s of w.speeds) await closeSpeed(s)
  for (const b of w.batches) await closeBatch(b).catch(() => undefined)
  await w.answering.serving.close()
}

/** Whole blocks go, or come back from an older copy; the header stands as it was. */
const harmBlocks = (r: Random, memory: MemorySpeedStore, older: Snapshot | undefined): void => {
  const now = memory.snapshot()
  for (const [name, state] of now) {
    const blocks = [...state.blocks.keys()]
    for (let i = r.int(1, 4); i > 0 && blocks.length > 0; i--) {
      const key = r.pick(blocks)
      const old = older?.get(name)?.blocks.get(key)
      if (older === undefined) state.blocks.delete(key)
      else if (old !== undefined) state.blocks.set(key, old)
    }
  }
  memory.restore(now)
}

/** Batch work by itself, even when it dies half-way: what could be answered before it can be answered after it. */
const KEEPS_SERVING = new Set<StepKind>([
  'archive',
  'extend',
  'recompute',
  'rollback',
  'retire',
  'retention',
  'compact',
])

/** One step of the schedule, and what its faults leave behind. */
const take = async (w: World, s: Step): Promise<void> => {
  const { base } = w
  const r = random(s.seed)
  switch (s.kind) {
    case 'together': {
      const tasks = s.together!.flatMap((one) => {
        const task = work(w, one)
        return task === null ? [] : [{ ...task, fault: one.fault, stall: one.stall }]
      })
      const busy = new Set<Process>()
      const apart = tasks.filter(({ process }) => !busy.has(process) && busy.add(process))
      for (const { process, fault } of apart) process.arm(fault)
      await interleave(
        r,
        apart.map(({ process, run, stall }) => ({ process, run: () => guarded(w, run), stall })),
      )
      break
    }
    case 'restart':
      await reopenSpeed(w, 0)
      await reopenBatch(w, 0)
      if (r.chance(0.5)) await reopenAnswering(w)
      break
    case 'save-store':
      w.saved = base.memory?.snapshot()
      break
    case 'restore-store':
      if (w.saved !== undefined) base.memory?.restore(w.saved)
      break
    case 'lose-store':
      base.memory?.lose()
      break
    case 'delete-blocks':
    case 'old-blocks':
      if (base.memory !== null) harmBlocks(r, base.memory, s.kind === 'old-blocks' ? w.saved : undefined)
      // A server that comes after the harm has nothing of its own to go by.
      if (r.chance(0.6)) {
        await reopenAnswering(w)
        await serves(w)
      }
      break
    default: {
      const task = work(w, s)
      if (task === null) break
      // A copy that is followed in the background may be of a little while ago: it says nothing about what is stored now.
      const looks = !s.quiet && w.staleMs === 0 && KEEPS_SERVING.has(s.kind) && (s.kind === 'retire' || r.chance(0.4))
      const served = looks ? await serves(w) : []
      task.process.arm(s.fault)
      await guarded(w, task.run)
      task.process.arm(null)
      await absorb(w)
      const left = served.length === 0 ? [] : await serves(w)
      for (const name of served)
        if (!left.includes(name)) throw new Difference(`${s.kind} alone took the answers of ${name} away`)
    }
  }
  await buryTheDead(w)
  await absorb(w)
}
