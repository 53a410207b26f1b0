/**
 * One small Weir under a schedule: durable stores that outlive crashes, and processes (speed workers, batch runners,
 * serving) that do not. Invariant: after every step each answer equals the reference over the records below its upper, or
 * there is a loud, retryable refusal; once faults stop, everything converges without help.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { adoptViews, dropVersion } from '../../batch-layer/adopt.ts'
import { archiverOf, closeArchivers } from '../../batch-layer/archiver.ts'
import { backfill } from '../../batch-layer/backfill.ts'
import { catchUp } from '../../batch-layer/catch-up.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { extend } from '../../batch-layer/extend.ts'
import { publish } from '../../batch-layer/publish.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { applyRetention } from '../../batch-layer/retention.ts'
import { retireCovered } from '../../batch-layer/retire.ts'
import { rollback } from '../../batch-layer/rollback.ts'
import { verify } from '../../batch-layer/verify.ts'
import { type Random, random } from '../../cli/random.ts'
import type { Engine, Session } from '../../engine/engine.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { compileView } from '../../model/compile/compile.ts'
import { WeirError } from '../../model/errors.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import { samePosition } from '../../model/position.ts'
import type { Query } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import { parseSettings, type Settings } from '../../model/settings.ts'
import { encodeToken } from '../../model/token.ts'
import { openVersions, type Versions } from '../../model/versions.ts'
import type { SqlTools, View } from '../../model/view.ts'
import { openServing, type Serving } from '../../serving-layer/serving.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { openSpeedWorker, type SpeedWorker } from '../../speed-layer/worker.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { openMemoryObjectStore } from '../support/memory-object-store.ts'
import { type MemorySpeedStore, openMemorySpeedStore, type Snapshot } from '../support/memory-speed-store.ts'
import { canonicalRows, type Expected, openExpected } from './expected.ts'
import { Crash, interleave, openProcess, type Process } from './nemesis.ts'
import { BASE_MS, type OracleEvent, type OracleProject, randomEvent, randomProject } from './project.ts'
import { randomQuery, wholeQuery } from './queries.ts'
import { printStep, type Schedule, type Step, type StepKind } from './schedule.ts'

/** What every world of a run shares. */
export type Lab = { engine: Engine; tools: SqlTools }

export class Difference extends Error {
  override name = 'Difference'
}

export type WorldStats = { answers: number; refusals: Record<string, number>; crashes: number; published: number }

type Base = {
  log: EventLog
  speed: SpeedStore
  memory: MemorySpeedStore | null
  objects: ObjectStore
  folder: string | null
}

type Speed = { process: Process; versions: Versions; workers: Map<number, SpeedWorker> }
type Batch = { process: Process; ctx: BatchContext }
type Answering = { process: Process; versions: Versions; serving: Serving }

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

/**
 * The port's promise, held against every store: an apply takes place only on the position that it names, into the open epoch that it
 * names. Digests and P6 would hide the harm behind refusals; a broken promise is a failure all the same.
 */
const watched = (store: SpeedStore): SpeedStore => ({
  ...store,
  apply: async (key, apply) => {
    const before = await store.header(key)
    const outcome = await store.apply(key, apply)
    if (outcome !== 'applied') return outcome
    if (before === null || !samePosition(before.position, apply.from))
      throw new Difference(`an apply from ${apply.from.offset} took place at ${before?.position.offset ?? 'nothing'}`)
    for (const [version, write] of Object.entries(apply.views))
      if (!samePosition(write.epoch, before.views[version]!.epochs.at(-1)!.from))
        throw new Difference(`an apply into epoch ${write.epoch.offset} took place in another one`)
    return outcome
  },
})

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
        await world.step(step)
        await world.check(random(step.seed ^ 0xc4ec4), schedule.asks)
      }
      await world.calm()
      return world.stats
    } finally {
      await world.close()
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

const openWorld = async (o: WorldOptions) => {
  const { lab, project, settings, base, clock, trace } = o
  const { dataset } = project
  const now = (): number => clock.now
  const expected: Expected = await openExpected(o.session, dataset, o.table)
  const partitions = Array.from({ length: dataset.partitions }, (_, p) => p)
  const attempted = new Map<string, OracleEvent[]>()
  const definitions = new Map(project.views.map((v) => [v.name, 0]))
  const stats: WorldStats = { answers: 0, refusals: {}, crashes: 0, published: 0 }
  let saved: Snapshot | undefined
  let appends = 0
  let serial = 0
  let refusedAs = ''
  const alarms: unknown[] = []
  // A copy that is followed in the background may lag: its answers are exact at its own upper.
  const staleMs = project.views.length % 3 === 0 ? 20 : 0

  await base.log.create(dataset.name, dataset.partitions)

  const shared = (process: Process) => {
    const objects = process.wrap(base.objects, 'objects')
    const lake = openLake({ store: objects, engine: lab.engine, now, checkpointEvery: 5 })
    const publications = openPublications(objects, { now })
    return {
      log: process.wrap(base.log, 'log'),
      speed: process.wrap(watched(base.speed), 'speed'),
      publications,
      lake,
      history: openHistory(lake, [dataset]),
      versions: openVersions(publications, [dataset], lab.tools),
    }
  }

  // One that is not eager looks at what is stored only when something tells it to.
  const openSpeed = async (eager = serial % 4 === 0): Promise<Speed> => {
    const process = openProcess(`speed ${serial++}`)
    const { versions } = shared(process)
    const workers = new Map<number, SpeedWorker>()
    for (const partition of partitions) {
      const { log, speed, history, publications } = shared(process)
      workers.set(
        partition,
        await openSpeedWorker({
          log,
          store: speed,
          history,
          publications,
          engine: lab.engine,
          dataset,
          partition,
          versions,
          // Owners of one partition cut their batches differently.
          settings: { ...settings.speed, batchBytes: serial % 2 === 0 ? 1_024 : settings.speed.batchBytes },
          alarm: (error) => alarms.push(error),
          lookEveryMs: eager ? 0 : 3_600_000,
          verifyEveryMs: 0,
        }),
      )
    }
    return { process, versions, workers }
  }
  const openBatch = async (): Promise<Batch> => {
    const process = openProcess(`batch ${serial++}`)
    const ctx: BatchContext = {
      ...shared(process),
      engine: lab.engine,
      datasets: [dataset],
      settings,
      now,
      alarm: (error) => alarms.push(error),
    }
    return { process, ctx }
  }
  const openAnswering = async (): Promise<Answering> => {
    const process = openProcess(`serving ${serial++}`)
    const ports = shared(process)
    const serving = await openServing({
      ...ports,
      engine: lab.engine,
      datasets: [dataset],
      settings,
      now,
      replanMs: 15,
      staleMs,
    })
    return { process, versions: ports.versions, serving }
  }

  const speeds = [await openSpeed(), await openSpeed()]
  const batches = [await openBatch(), await openBatch()]
  let answering = await openAnswering()
  let lastUpper: Record<string, number> = {}

  const compiled = async (name: string): Promise<View> => {
    const view = project.views.find((v) => v.name === name)!
    return compileView({ name, sql: view.definitions[definitions.get(name)!]!, dataset }, lab.tools)
  }
  const adopt = async (ctx: BatchContext): Promise<void> => {
    const views = await Promise.all(project.views.map((v) => compiled(v.name)))
    for (const view of await adoptViews(ctx, views)) await backfill(ctx, view, { waitMs: 0 })
    await ctx.versions.refresh()
  }
  await adopt(batches[0]!.ctx)

  /** Takes what the log holds into the account. */
  const absorb = async (): Promise<void> => {
    for (const partition of partitions) {
      for (;;) {
        const offset = expected.end(partition)
        const from = await base.log.positionAt(dataset.name, partition, offset)
        if (from === null) throw new Error(`the log lost its own position ${offset}`)
        const read = await base.log.read(dataset.name, partition, from, { maxBytes: 1 << 24 })
        if (read.kind !== 'records') throw new Error(`the log says ${read.kind}`)
        if (read.records.length === 0) break
        for (const record of read.records)
          await expected.append(partition, record.recordId, record.appendTimeMs, attempted.get(record.recordId)!)
      }
    }
  }

  const fresh = async <T extends { process: Process }>(
    list: T[],
    i: number,
    open: () => Promise<T>,
    close: (t: T) => Promise<unknown>,
  ) => {
    await close(list[i]!).catch(() => undefined)
    list[i] = await open()
  }
  const closeSpeed = async (s: Speed): Promise<void> => {
    for (const worker of s.workers.values()) await worker.close().catch(() => undefined)
  }
  const closeBatch = async (b: Batch): Promise<void> => closeArchivers(b.ctx)

  const append = async (r: Random, log: EventLog): Promise<void> => {
    const partition = r.pick(partitions)
    // Parts of the window of ids: what is repeated once and again goes on being a duplicate.
    const window = dataset.dedupeWindowMs ?? 60_000
    clock.now += r.pick([0, 1, 40, 1_000, 30_000, 600_000, 0.4 * window, 0.6 * window, 0.6 * window])
    if (r.chance(0.15)) clock.now -= r.int(0, 240_000)
    const records = Array.from({ length: r.int(1, 4) }, () => {
      const again = r.chance(0.1) ? [...attempted.entries()].at(-1) : undefined
      const events =
        again?.[1] ?? Array.from({ length: r.int(1, r.chance(0.2) ? 30 : 6) }, () => randomEvent(r, dataset, clock.now))
      const recordId =
        again?.[0] ?? createHash('sha256').update(`${appends++}`).update(String(r.next())).digest('hex').slice(0, 32)
      attempted.set(recordId, events)
      const bytes = Buffer.from(events.map((e) => `${e.json}\n`).join(''))
      return { recordId, bytes, events: events.length }
    })
    await log.append(dataset.name, partition, records)
  }

  const ACTIVE_ONLY = new Set([
    'WEIR_BATCH_SUSPECT',
    'WEIR_BATCH_NOT_KEPT',
    'WEIR_BATCH_DROPPED',
    'WEIR_LAKE_DROPPED',
    'WEIR_BATCH_ACTIVE',
  ])

  /** What one step does in one process. */
  const work = (step: Step): { process: Process; run: () => Promise<unknown> } | null => {
    const r = random(step.seed)
    const batch = step.batch === undefined ? r.pick(batches) : batches[step.batch]!
    const speed = r.pick(speeds)
    const view = step.view === undefined ? r.pick(project.views) : project.views[step.view % project.views.length]!
    const viewName = view.name
    const onView = (run: (ctx: BatchContext, view: View) => Promise<unknown>) => ({
      process: batch.process,
      run: async () => {
        await batch.ctx.versions.refresh()
        const candidates = batch.ctx.versions.fed(dataset.name).filter((v) => v.name === viewName)
        if (candidates.length > 0) return run(batch.ctx, r.pick(candidates))
      },
    })
    switch (step.kind) {
      case 'append':
        return { process: batch.process, run: () => append(r, batch.ctx.log) }
      case 'speed':
        return {
          process: speed.process,
          run: async () => {
            await speed.versions.refresh()
            const times = r.int(1, 5)
            for (let i = 0; i < times; i++) await speed.workers.get(r.pick(partitions))!.step()
          },
        }
      case 'archive':
        return {
          process: batch.process,
          run: () => archiverOf(batch.ctx, dataset.name).step(r.pick(partitions), { force: true }),
        }
      case 'extend':
        return onView((ctx, view) => extend(ctx, view))
      case 'recompute':
        return onView((ctx, view) => recompute(ctx, view))
      case 'verify':
        return onView(async (ctx, view) => noDifference(await verify(ctx, view)))
      case 'rollback':
        return onView(rollBackOf(r))
      case 'repair':
        return onView(repairOf(r))
      case 'define':
        return {
          process: batch.process,
          run: async () => {
            definitions.set(viewName, 1 - definitions.get(viewName)!)
            await adopt(batch.ctx)
          },
        }
      case 'activate':
        return onView(async (ctx, view) => {
          const active = await ctx.publications.active(view.name)
          const published = await ctx.publications.current(view.name, view.version)
          if (published === null || published === 'dropped') return
          await ctx.publications.activate(view.name, view.version, active?.token ?? null)
        })
      case 'drop':
        return onView(async (ctx, view) => {
          if (ctx.versions.active(view.name)?.version === view.version) return
          await dropVersion(ctx, view)
        })
      case 'retire':
        return onView(retireCovered)
      case 'retention':
        return {
          process: batch.process,
          run: () => batch.ctx.versions.refresh().then(() => applyRetention(batch.ctx, dataset)),
        }
      case 'compact':
        return { process: batch.process, run: () => batch.ctx.lake.compact(dataset) }
      case 'query':
        return { process: answering.process, run: () => checkOnce(r) }
      default:
        return null
    }
  }

  const rollBackOf =
    (r: Random) =>
    async (ctx: BatchContext, view: View): Promise<void> => {
      const current = await ctx.publications.current(view.name, view.version)
      if (current === null || current === 'dropped' || current.pointer.kept.length === 0) return
      await rollback(ctx, view, r.pick(current.pointer.kept).generation)
    }

  /**
   * A build with a defect publishes cells that are wrong; a recompute repairs the view before anybody asks. From then on that lineage is
   * suspect, and nobody gets it back (rule 17).
   */
  const repairOf =
    (r: Random) =>
    async (ctx: BatchContext, view: View): Promise<void> => {
      const base = await ctx.publications.current(view.name, view.version)
      if (base === null || base === 'dropped' || base.pointer.rowsTotal === 0) return
      const { cut, files, slots = 1, lineage, suspectLineages } = base.pointer
      const parts = { files, slots, written: [], touched: 0 }
      const lost = files.find((f) => f.rows > 0)!
      const wrong = { ...parts, files: files.filter((f) => f !== lost) }
      const { outcome } = await publish(ctx, view, {
        base,
        cut,
        parts: wrong,
        kind: 'extend',
        lineage,
        suspectLineages,
      })
      if (outcome !== 'published') return
      const found = await recompute(ctx, view).catch((error) => {
        if (!tolerated(error)) throw error
      })
      const now = await ctx.publications.current(view.name, view.version)
      if (now === null || now === 'dropped') return
      if (found?.outcome === 'published') {
        if (!now.pointer.suspectLineages.includes(lineage))
          throw new Difference(`a recompute replaced a wrong generation, and did not say so: ${JSON.stringify(found)}`)
      } else {
        // By hand, then: the view as it was, as a lineage of its own.
        const suspects = [...suspectLineages, lineage]
        await publish(ctx, view, { base: now, cut, parts, kind: 'recompute', lineage: null, suspectLineages: suspects })
      }
      if (r.chance(0.6)) await rollBackOf(r)(ctx, view)
    }

  const noDifference = (found: { differing: number } | null | undefined): void => {
    if (found && found.differing > 0)
      throw new Difference(`verify found ${found.differing} differing cells: ${JSON.stringify(found)}`)
  }

  const tolerated = (error: unknown): boolean => {
    if (error instanceof Crash) return true
    if (error instanceof WeirError && (error.retryable || ACTIVE_ONLY.has(error.code))) {
      stats.refusals[error.code] = (stats.refusals[error.code] ?? 0) + 1
      refusedAs = error.code
      return true
    }
    return false
  }

  const guarded = async (run: () => Promise<unknown>): Promise<void> => {
    try {
      await run()
    } catch (error) {
      if (!tolerated(error)) throw error
      trace?.(`    ${String(error)}`)
    }
  }

  const reopenAnswering = async (): Promise<void> => {
    await answering.serving.close()
    answering = await openAnswering()
    lastUpper = {}
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
  /**
   * Asks for all of each view; those that answer, or would if another view had not shown more already: without speed state each view
   * is where its own generation is.
   */
  const serves = async (): Promise<string[]> => {
    const out: string[] = []
    await answering.versions.refresh()
    for (const { name } of project.views) {
      const view = answering.versions.active(name)
      if (view === null) continue
      const answered = (await compare(view, wholeQuery(view))) !== null
      if (answered || refusedAs === 'WEIR_SERVING_BEHIND') out.push(name)
    }
    return out
  }

  const buryTheDead = async (): Promise<void> => {
    for (const i of [0, 1]) {
      if (speeds[i]!.process.crashed()) await fresh(speeds, i, openSpeed, closeSpeed)
      if (batches[i]!.process.crashed()) await fresh(batches, i, openBatch, closeBatch)
    }
    if (answering.process.crashed()) await reopenAnswering()
  }

  const step = async (s: Step): Promise<void> => {
    const r = random(s.seed)
    switch (s.kind) {
      case 'together': {
        const tasks = s.together!.flatMap((one) => {
          const task = work(one)
          return task === null ? [] : [{ ...task, fault: one.fault, stall: one.stall }]
        })
        const busy = new Set<Process>()
        const apart = tasks.filter(({ process }) => !busy.has(process) && busy.add(process))
        for (const { process, fault } of apart) process.arm(fault)
        await interleave(
          r,
          apart.map(({ process, run, stall }) => ({ process, run: () => guarded(run), stall })),
        )
        break
      }
      case 'restart':
        await fresh(speeds, 0, openSpeed, closeSpeed)
        await fresh(batches, 0, openBatch, closeBatch)
        if (r.chance(0.5)) await reopenAnswering()
        break
      case 'save-store':
        saved = base.memory?.snapshot()
        break
      case 'restore-store':
        if (saved !== undefined) base.memory?.restore(saved)
        break
      case 'lose-store':
        base.memory?.lose()
        break
      case 'delete-blocks':
      case 'old-blocks':
        if (base.memory !== null) harmBlocks(r, base.memory, s.kind === 'old-blocks' ? saved : undefined)
        // A server that comes after the harm has nothing of its own to go by.
        if (r.chance(0.6)) {
          await reopenAnswering()
          await serves()
        }
        break
      default: {
        const task = work(s)
        if (task === null) break
        // A copy that is followed in the background may be of a little while ago: it says nothing about what is stored now.
        const looks = staleMs === 0 && KEEPS_SERVING.has(s.kind) && (s.kind === 'retire' || r.chance(0.4))
        const served = looks ? await serves() : []
        task.process.arm(s.fault)
        await guarded(task.run)
        task.process.arm(null)
        await absorb()
        const left = served.length === 0 ? [] : await serves()
        for (const name of served)
          if (!left.includes(name)) throw new Difference(`a ${s.kind} alone took the answers of ${name} away`)
      }
    }
    for (const p of [...speeds, ...batches, answering]) {
      if (p.process.crashed()) stats.crashes++
      p.process.arm(null)
    }
    await buryTheDead()
    await absorb()
  }

  /** One answer against the reference; a retryable refusal is none. Returns its upper. */
  const compare = async (
    view: View,
    query: Query,
    wanted?: { partition: number; offset: number },
  ): Promise<Record<string, string> | null> => {
    const at = clock.now
    let answer: Awaited<ReturnType<Serving['query']>>
    try {
      answer = await answering.serving.query(query)
    } catch (error) {
      if (!tolerated(error)) throw error
      trace?.(`    refused: ${String(error)}`)
      return null
    }
    await absorb()
    stats.answers++
    const { upper } = answer.asOf
    if (wanted && Number(upper[wanted.partition] ?? 0) < wanted.offset)
      throw new Difference(`a token for offset ${wanted.offset} was met by an answer at ${JSON.stringify(upper)}`)
    for (const [p, offset] of Object.entries(upper)) {
      if (Number(offset) < (lastUpper[p] ?? 0))
        throw new Difference(`the upper went back: ${offset} after ${lastUpper[p]}`)
      lastUpper[p] = Number(offset)
      if (Number(offset) > expected.end(Number(p))) throw new Difference(`upper ${offset} of ${p} is beyond the log`)
    }
    const limits = { defaultLimit: settings.query.defaultLimit, maxLimit: settings.query.maxLimit }
    const resolved = resolveQuery(query, view, dataset, { nowMs: at, limits })
    const reference = await expected.rows(view, resolved, upper)
    const got = canonicalRows(answer.columns, answer.rows)
    const rows = answer.truncated ? reference.rows.slice(0, got.length) : reference.rows
    if (got.length !== rows.length || got.some((row, i) => row !== rows[i])) {
      const missing = rows.filter((row) => !got.includes(row)).slice(0, 5)
      const extra = got.filter((row) => !rows.includes(row)).slice(0, 5)
      throw new Difference(
        `answer differs for ${JSON.stringify(query)}\n  view: ${view.sql}\n  asOf: ${JSON.stringify(answer.asOf)}\n  expected ${rows.length} rows, got ${got.length}\n  missing: ${missing.join('\n           ')}\n  extra:   ${extra.join('\n           ')}\n  reference: ${reference.sql}`,
      )
    }
    return upper
  }

  const checkOnce = async (r: Random): Promise<void> => {
    await answering.versions.refresh()
    const view = answering.versions.active(r.pick(project.views).name)
    if (view === null) return
    const query = r.chance(0.5) ? wholeQuery(view) : randomQuery(r, view, clock.now)
    if (!r.chance(0.25)) return void (await compare(view, query))
    // Read your own writes: a token for some record of the log.
    const partition = r.pick(partitions)
    const position = await base.log.positionAt(dataset.name, partition, r.int(0, expected.end(partition) + 1))
    if (position === null) return
    const { logId, offset, fingerprint } = position
    const atLeast = encodeToken({ dataset: dataset.name, logId, positions: { [partition]: { offset, fingerprint } } })
    await compare(view, { ...query, atLeast, waitMs: 0 }, { partition, offset })
  }

  /** Answers, and the counters of both layers at their own positions. */
  const check = async (r: Random, asks = 1): Promise<void> => {
    if (r.chance(asks)) await checkOnce(r)
    const history = openHistory(openLake({ store: base.objects, engine: lab.engine, now }), [dataset])
    for (const partition of partitions) {
      const header = await base.speed.header({ dataset: dataset.name, partition })
      if (header !== null) checkCounts('speed', partition, header.position.offset, header)
      const archived = await history.archived(dataset.name, partition)
      if (archived !== null) checkCounts('lake', partition, archived.position.offset, archived)
    }
  }
  const checkCounts = (
    side: string,
    partition: number,
    offset: number,
    got: { counted: number; duplicate: number; dead: number },
  ): void => {
    const want = expected.counts(partition, offset)
    if (got.counted !== want.counted || got.duplicate !== want.duplicate || got.dead !== want.dead)
      throw new Difference(
        `${side} counters of partition ${partition} at ${offset}: ${JSON.stringify({ counted: got.counted, duplicate: got.duplicate, dead: got.dead })}, expected ${JSON.stringify(want)}`,
      )
  }

  /** The speed side alone: lost, rolled-back or unfit state is rebuilt without any batch work, while the log holds every cut (rule 8). */
  const healAlone = async (speed: Speed): Promise<void> => {
    await speed.versions.refresh()
    await answering.versions.refresh()
    for (const p of partitions)
      for (let i = 0; i < 300; i++) if ((await speed.workers.get(p)!.step()).kind === 'idle') break
    const states = partitions.map((p) => speed.workers.get(p)!.state())
    if (states.some((s) => s.stopped !== null || Object.values(s.versions).includes('below-start'))) return
    for (const { name } of project.views) {
      const view = answering.versions.active(name)
      if (view === null) continue
      for (let tries = 0; (await compare(view, wholeQuery(view))) === null; tries++)
        if (tries > 20) throw new Difference(`the speed side does not heal by itself: ${JSON.stringify(states)}`)
    }
  }

  /** No more faults: everything must converge by ordinary work alone. */
  const calm = async (): Promise<void> => {
    await fresh(speeds, 0, () => openSpeed(true), closeSpeed)
    const ends = (): string => JSON.stringify(partitions.map((p) => expected.end(p)))
    const [speed, batch] = [speeds[0]!, batches[0]!]
    for (const s of speeds) await s.versions.refresh()
    const errors: unknown[] = []
    const attempt = async (run: () => Promise<unknown>): Promise<void> => {
      try {
        await run()
      } catch (error) {
        if (!tolerated(error)) throw error
        errors.push(error)
      }
    }
    await healAlone(speed)
    for (let round = 0; round < 12; round++) {
      errors.length = 0
      await attempt(() => batch.ctx.versions.refresh())
      await attempt(() => speed.versions.refresh())
      for (const p of partitions)
        for (let i = 0; i < 12; i++) {
          const before = errors.length
          const kind = await speed.workers
            .get(p)!
            .step()
            .then(
              (d) => d.kind,
              (error) => attempt(() => Promise.reject(error)),
            )
          if (kind === 'idle' && errors.length === before) break
        }
      for (const p of partitions) await attempt(() => archiverOf(batch.ctx, dataset.name).step(p, { force: true }))
      for (const view of batch.ctx.versions.fed(dataset.name)) {
        if (round % 3 === 2) await attempt(() => catchUp(batch.ctx, view))
        await attempt(() => extend(batch.ctx, view))
        await attempt(() => retireCovered(batch.ctx, view))
      }
      await attempt(() => answering.versions.refresh())
      let good = true
      for (const { name } of project.views) {
        const view = answering.versions.active(name)
        const upper = view && (await compare(view, wholeQuery(view)))
        good &&= upper !== null && JSON.stringify(partitions.map((p) => Number(upper[p] ?? 0))) === ends()
      }
      if (good && errors.length === 0) break
      if (round === 11)
        throw new Difference(
          `nothing converges: ${errors.map(String).join('; ')} alarms: ${alarms.map(String).join('; ')}`,
        )
    }
    for (const view of batch.ctx.versions.fed(dataset.name)) {
      noDifference(await verify(batch.ctx, view))
      // All again from the lake must be what the chain of extends has made.
      noDifference(await recompute(batch.ctx, view))
      const current = await batch.ctx.publications.current(view.name, view.version)
      if (current !== null && current !== 'dropped') stats.published += current.pointer.generation
    }
    await check(random(1))
  }

  const close = async (): Promise<void> => {
    for (const s of speeds) await closeSpeed(s)
    for (const b of batches) await closeBatch(b).catch(() => undefined)
    await answering.serving.close()
  }
  return { step, check, calm, close, stats }
}
