/**
 * Weir's rooms wired in one process over folders, as cli/ wires them, for cases that measure one room without HTTP.
 * Invariant: `close` closes everything that was opened here, in reverse order.
 */
import { join } from 'node:path'
import { closeArchivers } from '../batch-layer/archiver.ts'
import type { BatchContext } from '../batch-layer/context.ts'
import { childRunner } from '../cli/worker-runner.ts'
import { type Engine, openEngine } from '../engine/engine.ts'
import { sqlTools } from '../engine/sql-tools.ts'
import { openFolderStore } from '../lake/folder-object-store.ts'
import { openHistory, openLake } from '../lake/lake.ts'
import { openPublications } from '../lake/publications.ts'
import { openLmdbLog } from '../log/lmdb-log.ts'
import type { Dataset } from '../model/dataset.ts'
import type { Project } from '../model/project.ts'
import { openVersions } from '../model/versions.ts'
import type { View } from '../model/view.ts'
import { openLmdbSpeedStore } from '../speed-layer/lmdb-speed-store.ts'
import { openSpeedWorker, type SpeedWorker } from '../speed-layer/worker.ts'
import { compileProject, type ProjectName } from './project.ts'

export const DATASET = 'events'

export type World = {
  engine: Engine
  project: Project
  dataset: Dataset
  ctx: BatchContext
  view(name: string): View
  /** Registers all views of the project and lets them serve. */
  adopt(): Promise<void>
  worker(): Promise<SpeedWorker>
  close(): Promise<void>
}

export type WorldOptions = {
  project: ProjectName
  /** Folder of the log; default: in `data`, as the server has it. */
  log?: string
  /** Data folder: lake, speed store. */
  data: string
  /** DuckDB's memory limit; default the server's default. */
  memory?: string
}

export const openWorld = async (options: WorldOptions): Promise<World> => {
  const engine = await openEngine({ memoryLimit: options.memory ?? '1GB', threads: 1 })
  const project = await compileProject(options.project, engine)
  const { settings, datasets, views } = project
  const log = await openLmdbLog({ folder: options.log ?? join(options.data, 'log') })
  for (const dataset of datasets) await log.create(dataset.name, dataset.partitions)
  const store = await openFolderStore(join(options.data, 'lake'))
  const publications = openPublications(store)
  const speed = await openLmdbSpeedStore({ folder: join(options.data, 'speed') })
  const lake = openLake({ store, engine })
  const history = openHistory(lake, datasets)
  const versions = openVersions(publications, datasets, sqlTools(engine))
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
    now: Date.now,
    runWorker: childRunner({
      place: { folder: join(options.data, 'lake'), s3: null },
      memory: settings.batch.recomputeMemory,
      processes: settings.batch.recomputeProcesses,
      threads: settings.engine.threads,
    }),
  }
  const dataset = datasets.find((d) => d.name === DATASET)!
  const workers: SpeedWorker[] = []
  return {
    engine,
    project,
    dataset,
    ctx,
    view: (name) => views.find((v) => v.name === name)!,
    adopt: async () => {
      for (const view of views) {
        await publications.register(view.name, view.version, view.sql)
        if ((await publications.active(view.name)) === null) await publications.activate(view.name, view.version, null)
      }
      await versions.refresh()
    },
    worker: async () => {
      const worker = await openSpeedWorker({
        log,
        store: speed,
        history,
        publications,
        engine,
        dataset,
        partition: 0,
        versions,
        settings: settings.speed,
      })
      workers.push(worker)
      return worker
    },
    close: async () => {
      for (const worker of workers) await worker.close()
      await closeArchivers(ctx)
      await speed.close()
      await store.close()
      await log.close()
      await engine.close()
    },
  }
}

/** Steps a worker until it stands at the log's end. */
export const drain = async (world: World, worker: SpeedWorker): Promise<void> => {
  const { endOffset } = await world.ctx.log.range(DATASET, 0)
  while ((worker.state().position?.offset ?? -1) < endOffset) {
    const { kind } = await worker.step()
    if (kind === 'stopped') throw worker.state().stopped ?? new Error('the speed worker stopped')
  }
}
