/** Processes of a world: speed workers, batch runners, a server. Each reaches the durable stores through its own faulty ports. */
import { closeArchivers } from '../../batch-layer/archiver.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import { samePosition } from '../../model/position.ts'
import { openVersions } from '../../model/versions.ts'
import { openServing } from '../../serving-layer/serving.ts'
import { openSpeedWorker, type SpeedWorker } from '../../speed-layer/worker.ts'
import { openProcess, type Process } from './nemesis.ts'
import { type Answering, type Batch, Difference, type Speed, type World } from './state.ts'

/** What it takes to open one: the world before it has processes. */
export type Ground = Omit<World, 'answering'>

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

const shared = (w: Ground, process: Process) => {
  const { lab, base } = w
  const { dataset } = w.project
  const now = () => w.clock.now
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
export const openSpeed = async (w: Ground, eager = w.opened % 4 === 0): Promise<Speed> => {
  const { lab, partitions, settings } = w
  const { dataset } = w.project
  const process = openProcess(`speed ${w.opened++}`)
  const { versions } = shared(w, process)
  const workers = new Map<number, SpeedWorker>()
  for (const partition of partitions) {
    const { log, speed, history, publications } = shared(w, process)
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
        settings: { ...settings.speed, batchBytes: w.opened % 2 === 0 ? 1_024 : settings.speed.batchBytes },
        alarm: (error) => w.alarms.push(error),
        lookEveryMs: eager ? 0 : 3_600_000,
        verifyEveryMs: 0,
      }),
    )
  }
  return { process, versions, workers }
}
export const openBatch = async (w: Ground): Promise<Batch> => {
  const process = openProcess(`batch ${w.opened++}`)
  const ctx: BatchContext = {
    ...shared(w, process),
    engine: w.lab.engine,
    datasets: [w.project.dataset],
    settings: w.settings,
    now: () => w.clock.now,
    alarm: (error) => w.alarms.push(error),
  }
  return { process, ctx }
}
export const openAnswering = async (w: Ground): Promise<Answering> => {
  const process = openProcess(`serving ${w.opened++}`)
  const ports = shared(w, process)
  const serving = await openServing({
    ...ports,
    engine: w.lab.engine,
    datasets: [w.project.dataset],
    settings: w.settings,
    now: () => w.clock.now,
    replanMs: 15,
    staleMs: w.staleMs,
  })
  return { process, versions: ports.versions, serving }
}

export const closeSpeed = async (s: Speed): Promise<void> => {
  for (const worker of s.workers.values()) await worker.close().catch(() => undefined)
}
export const closeBatch = async (b: Batch): Promise<void> => closeArchivers(b.ctx)

const fresh = async <T extends { process: Process }>(
  list: T[],
  i: number,
  open: () => Promise<T>,
  close: (t: T) => Promise<unknown>,
): Promise<void> => {
  await close(list[i]!).catch(() => undefined)
  list[i] = await open()
}
export const reopenSpeed = (w: World, i: number, eager?: boolean): Promise<void> =>
  fresh(w.speeds, i, () => openSpeed(w, eager), closeSpeed)
export const reopenBatch = (w: World, i: number): Promise<void> => fresh(w.batches, i, () => openBatch(w), closeBatch)
export const reopenAnswering = async (w: World): Promise<void> => {
  await w.answering.serving.close()
  w.answering = await openAnswering(w)
  w.lastUpper = {}
}

/** Counts the processes that died, and opens others in their place. */
export const buryTheDead = async (w: World): Promise<void> => {
  for (const p of [...w.speeds, ...w.batches, w.answering]) {
    if (p.process.crashed()) w.stats.crashes++
    p.process.arm(null)
  }
  for (const i of [0, 1]) {
    if (w.speeds[i]!.process.crashed()) await reopenSpeed(w, i)
    if (w.batches[i]!.process.crashed()) await reopenBatch(w, i)
  }
  if (w.answering.process.crashed()) await reopenAnswering(w)
}
