/**
 * The ports of one process, opened, and what its roles share. Invariant: whatever is opened here is registered to be closed
 * before the next thing is opened.
 *
 * In the data folder: log/ (LMDB), speed/ (LMDB), lake/ (Delta tables, pointers) or cache/ (copies of lake files), where these are not on
 * servers; rejects/, run/, keys.json.
 */
import { resolve } from 'node:path'
import { type Engine, openEngine } from '../engine/engine.ts'
import { sqlTools } from '../engine/sql-tools.ts'
import { openFolderKeys } from '../http/folder-keys.ts'
import { openHistory, openLake } from '../lake/lake.ts'
import { openPublications } from '../lake/publications.ts'
import type { EventLog, Origin } from '../model/ports/event-log.ts'
import type { SpeedStore } from '../model/ports/speed-store.ts'
import type { Project } from '../model/project.ts'
import { openVersions } from '../model/versions.ts'
import { refuseUnfit } from '../speed-layer/redis-check.ts'
import type { Alarms } from './alarms.ts'
import { guardDataset, type Present } from './dataset-guard.ts'
import type { Drift } from './drift.ts'
import type { Logger } from './logger.ts'
import type { Role } from './roles.ts'
import { openLog, openObjectStore, openRedisWatch, openSpeedStore, storePlace } from './servers.ts'

export type WeirOptions = {
  project: Project
  /** Absolute, or relative to the current folder. */
  dataDir: string
  roles: readonly Role[]
  logger: Logger
  host?: string
  port?: number
  /** With a busy port: take a free one instead of failing. Told which one was busy. */
  onBusyPort?: (port: number) => void
  /** Ends the opening between two of its steps: it then throws WEIR_CLI_STOPPED. */
  signal?: AbortSignal
  /** Shards of a recompute in this process instead of children. */
  inProcessWorkers?: boolean
}

/** Closers run in reverse order of their registration; all of them, whatever one throws. */
export type Closers = { add(close: () => Promise<unknown> | unknown): void; closeAll(): Promise<void> }

export const openClosers = (logger: Logger): Closers => {
  const list: (() => Promise<unknown> | unknown)[] = []
  return {
    add: (close) => void list.push(close),
    closeAll: async () => {
      for (let close = list.pop(); close !== undefined; close = list.pop()) {
        try {
          await close()
        } catch (error) {
          logger.error({ err: error }, 'closing failed')
        }
      }
    },
  }
}

/** A notice has no "works again": it fades. */
const NOTICE_MS = 600_000

const presentOf = (log: EventLog, speed: SpeedStore, dataset: string): Present => ({
  origin: async () => (await log.origin?.(dataset)) ?? null,
  hasState: async (logId) => {
    const headers = await Promise.all(
      (await log.partitions(dataset)).map((partition) => speed.header({ dataset, partition })),
    )
    return headers.some((header) => header?.position.logId === logId)
  },
})

/** Opens what the settings name. Throws what the implementations throw, and what `guardDataset` throws. */
export const openPorts = async (options: WeirOptions, alarms: Alarms, closers: Closers) => {
  const { project, roles } = options
  const { settings, datasets } = project
  const dataDir = resolve(options.dataDir)
  const owned = <T extends { close(): unknown }>(value: T): T => {
    closers.add(() => value.close())
    return value
  }
  const place = storePlace(settings, dataDir)
  // SQL of the roles reads lake files and scratch, whatever a definition or a query says.
  const engineOf = async (): Promise<Engine> =>
    owned(
      await openEngine({
        memoryLimit: settings.engine.memory,
        threads: settings.engine.threads,
        folders: [place.folder],
      }),
    )
  const store = owned(await openObjectStore(place, true))
  const origins = new Map<string, Origin>()
  const late = (error: Error): void => alarms.raise('log/notice', error, NOTICE_MS)
  const log = owned(await openLog(settings, dataDir, datasets, late, (dataset) => origins.get(dataset)))
  const publications = openPublications(store)
  const redis = owned(await openRedisWatch(settings))
  refuseUnfit(await redis.look())
  const speed = owned(await openSpeedStore(settings, dataDir))
  // A definition is compared before anything is made of it in the log.
  for (const dataset of datasets) {
    const { origin, isNew } = await guardDataset(store, dataset, presentOf(log, speed, dataset.name))
    if (origin === undefined) continue
    origins.set(dataset.name, origin)
    const starts = Object.entries(origin.offsets).map(([p, offset]) => `partition ${p} at offset ${offset}`)
    if (isNew)
      options.logger.warn(
        { dataset: dataset.name, origin },
        `${dataset.name} begins where its topic does now: ${starts.join(', ')}; what was before is gone`,
      )
  }
  for (const dataset of datasets) await log.create(dataset.name, dataset.partitions)
  /** One engine per role: a big job of one does not take the memory of another. */
  const role = async (name: Role) => {
    const engine = await engineOf()
    const lake = openLake({
      store,
      engine,
      warn: (error) => options.logger.warn({ err: error, role: name }, 'the lake warns'),
    })
    return { engine, lake, history: openHistory(lake, datasets) }
  }
  const own = new Map<Role, Awaited<ReturnType<typeof role>>>()
  for (const name of roles) own.set(name, await role(name))
  const of = (name: Role) => own.get(name) ?? [...own.values()][0]!
  const versions = openVersions(publications, datasets, sqlTools(of('batch').engine))
  return {
    dataDir,
    place,
    log,
    store,
    publications,
    speed,
    redis,
    versions,
    of,
    keys: await openFolderKeys(dataDir),
  }
}

export type Ports = Awaited<ReturnType<typeof openPorts>>

export type Shared = {
  options: WeirOptions
  ports: Ports
  alarms: Alarms
  drift: Drift
  closers: Closers
}
