/**
 * Fills a lake through the product: a log, archivers, speed workers, extends, recomputes and upkeep, under a clock that is set.
 * Each stage states what it came to, so that a stage which shows nothing is an error.
 */
import { createHash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { archiverOf, closeArchivers } from '../../batch-layer/archiver.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { extend } from '../../batch-layer/extend.ts'
import { upkeep } from '../../batch-layer/maintenance.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { random } from '../../cli/random.ts'
import type { Engine } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import type { DeltaTable } from '../../lake/delta-table.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { type Project, parseProject } from '../../model/project.ts'
import { openVersions } from '../../model/versions.ts'
import { openSpeedWorker, type SpeedWorker } from '../../speed-layer/worker.ts'
import { openMemorySpeedStore } from '../support/memory-speed-store.ts'
import { brokenLine, eventLine } from './events.ts'
import { files } from './project.ts'

const DAY = 86_400_000
const START = Date.UTC(2026, 5, 24, 21)
const CHECKPOINT_EVERY = 10

/** What the table's log and folder hold, as far as a stage depends on it. */
export type State = { commits: number; checkpoints: number; live: number; stored: number }
export type Filling = {
  project: Project
  tables: DeltaTable[]
  /** Events that were appended: counted, duplicate and dead. */
  appended(): number
  state(table: DeltaTable): Promise<State>
  /** Views: keys of the parts that the table names, and of those that the published generation has. */
  parts(): Promise<{ view: string; generation: number; named: string[]; published: string[] }[]>
  /** Appends to both partitions, archives and extends, `rounds` times within a day. */
  fill(rounds: number): Promise<void>
  nextDay(): void
  /** Compaction of what is closed, and a recompute, which replaces every part of a view. */
  compact(): Promise<void>
  /** Deletion of all files that nothing names, once they are old enough. */
  vacuum(): Promise<void>
  close(): Promise<void>
}

export const openFilling = async (engine: Engine, store: ObjectStore, folder: string): Promise<Filling> => {
  const tools = sqlTools(engine)
  const project = await parseProject(files, tools)
  const dataset = project.datasets[0]!
  const settings = project.settings
  settings.batch.retireAfterMs = 0
  let clock = START
  const now = (): number => clock
  const alarm = (error: unknown): never => {
    throw error
  }
  const log = await openLmdbLog({ folder: join(folder, 'log'), now, blockBytes: 2_000 })
  const speed = openMemorySpeedStore()
  const lake = openLake({ store, engine, now, checkpointEvery: CHECKPOINT_EVERY, warn: alarm })
  const publications = openPublications(store, { now })
  const history = openHistory(lake, [dataset])
  const versions = openVersions(publications, [dataset], tools)
  const { datasets } = project
  const ctx: BatchContext = {
    log,
    speed,
    publications,
    history,
    lake,
    engine,
    datasets,
    versions,
    settings,
    now,
    alarm,
  }
  await log.create(dataset.name, dataset.partitions)
  await adoptViews(ctx, project.views)
  await versions.refresh()
  const partitions = Array.from({ length: dataset.partitions }, (_, partition) => partition)
  const r = random(4)
  const workers = new Map<number, SpeedWorker>()
  let appended = 0
  let records = 0

  const append = async (partition: number): Promise<void> => {
    let again: { bytes: Buffer; recordId: string; events: number } | undefined
    for (let i = 0; i < 4; i++) {
      clock += r.int(1, 60_000)
      const lines = Array.from({ length: r.int(1, 9) }, () => eventLine(r, clock))
      if (i === 0) lines.push(brokenLine(r))
      const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''))
      const recordId = createHash('md5').update(String(records++)).digest('hex')
      // A sender that repeats itself gives duplicates.
      const record = again !== undefined && r.chance(0.2) ? again : { recordId, bytes, events: lines.length }
      again = record
      await log.append(dataset.name, partition, [record])
      appended += record.events
    }
  }

  const workerOf = async (partition: number): Promise<SpeedWorker> => {
    const worker =
      workers.get(partition) ??
      (await openSpeedWorker({
        ...{ log, store: speed, history, publications, engine, dataset, partition, versions, alarm },
        settings: { ...settings.speed, waitMs: 1 },
        lookEveryMs: 0,
      }))
    workers.set(partition, worker)
    return worker
  }

  const speedUp = async (partition: number): Promise<void> => {
    const worker = await workerOf(partition)
    const { endOffset } = await log.range(dataset.name, partition)
    for (let steps = 0; steps < 1_000; steps++) {
      const { kind } = await worker.step()
      const header = await speed.header({ dataset: dataset.name, partition })
      if (kind === 'idle' && header?.position.offset === endOffset) return
    }
    throw new Error(`the speed worker of partition ${partition} does not come to the end`)
  }

  const state = async (table: DeltaTable): Promise<State> => {
    const snapshot = await table.snapshot()
    const keys = (await store.list(`${table.root}/`)).map((info) => info.key.slice(table.root.length + 1))
    return {
      commits: keys.filter((key) => /^_delta_log\/\d{20}\.json$/.test(key)).length,
      checkpoints: keys.filter((key) => key.startsWith('_delta_log/') && key.endsWith('.checkpoint.parquet')).length,
      live: snapshot?.files.size ?? 0,
      stored: keys.filter((key) => !/^_(delta_log|weir)\//.test(key) && key.endsWith('.parquet')).length,
    }
  }

  return {
    project,
    tables: [
      lake.events(dataset).delta,
      lake.dead(dataset).delta,
      ...project.views.map((view) => lake.viewTable(view).delta),
    ],
    appended: () => appended,
    state,
    parts: () =>
      Promise.all(
        project.views.map(async (view) => {
          const found = await publications.current(view.name, view.version)
          if (found === null || found === 'dropped') throw new Error(`nothing is published for ${view.name}`)
          const { generation, files } = found.pointer
          const published = files.flatMap((file) => (file.rows === 0 ? [] : [file.key])).sort()
          return { view: view.name, generation, named: (await lake.mirrored(view)).sort(), published }
        }),
      ),
    fill: async (rounds) => {
      for (let round = 0; round < rounds; round++) {
        for (const partition of partitions) {
          await append(partition)
          await archiverOf(ctx, dataset.name).step(partition, { force: true })
          await speedUp(partition)
        }
        for (const view of project.views) {
          const { outcome, reasons } = await extend(ctx, view)
          if (outcome !== 'published') throw new Error(`extend of ${view.name}: ${outcome} ${reasons.join('; ')}`)
        }
      }
    },
    nextDay: () => {
      clock = (Math.floor(clock / DAY) + 1) * DAY + 3_600_000
    },
    compact: async () => {
      const done = await upkeep(ctx)
      if (done.compactedFiles === 0) throw new Error('nothing was compacted')
      for (const view of project.views) {
        const { outcome } = await recompute(ctx, view, {})
        if (outcome !== 'published') throw new Error(`recompute of ${view.name}: ${outcome}`)
      }
    },
    vacuum: async () => {
      // Files carry the machine's own time, which lies after the clock's.
      clock = Math.max(clock, Date.now())
      const age = settings.batch.vacuumAfterMs + 60_000
      let deleted = 0
      // A part goes when it was seen unreferenced twice, an age apart.
      for (let i = 0; i < 2; i++) {
        clock += age
        deleted += (await upkeep(ctx)).deletedFiles
      }
      if (deleted === 0) throw new Error('nothing was deleted')
    },
    close: async () => {
      for (const worker of workers.values()) await worker.close()
      await closeArchivers(ctx)
      await speed.close()
      await log.close()
      await store.close()
      await rm(join(folder, 'log'), { recursive: true, force: true })
    },
  }
}
