/**
 * The lake: Delta tables over an object store. One handle per table and process, so that snapshots are shared and refreshed
 * incrementally. Invariant: nothing here trusts a file that its table's log does not name.
 */
import type { Engine } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import type { History } from '../model/ports/history.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { Cut } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { type DeadTable, deadColumns, openDeadTable } from './dead-table.ts'
import { type DeltaContext, openDeltaTable } from './delta-table.ts'
import { type EventsTable, openEventsTable } from './events-table.ts'
import { historyOf } from './history.ts'
import {
  type Compacted,
  type CompactOptions,
  compactDead,
  compactEvents,
  type Vacuumed,
  type VacuumOptions,
  vacuumTable,
} from './maintenance.ts'
import type { Scan } from './scan.ts'
import { openViewTable, type ViewTable, viewRoot } from './view-table.ts'

export type LakeOptions = {
  store: ObjectStore
  engine: Engine
  /** Wall clock, ms. */
  now?: () => number
  /** Commits between checkpoints of a table. */
  checkpointEvery?: number
  /** Told of what went wrong without harm (a checkpoint not written). Default: a process warning. */
  warn?: (error: unknown) => void
}

export type Lake = {
  store: ObjectStore
  engine: Engine
  events(dataset: Dataset): EventsTable
  dead(dataset: Dataset): DeadTable
  viewTable(view: View): ViewTable
  /** `events(dataset).scan(range)`. */
  scan(dataset: Dataset, range: { below: Cut; from?: Cut; duplicates?: boolean }): Promise<Scan>
  /** Compacts events of closed append dates, and dead letters. */
  compact(dataset: Dataset, options?: CompactOptions): Promise<{ events: Compacted; dead: Compacted }>
  /** Deletes unreferenced data files of the given datasets' tables. (Those of views are named by pointers too: see upkeep.) */
  vacuum(options: VacuumOptions & { datasets: Dataset[] }): Promise<Vacuumed>
  /** Keys of the files that the table of a view's version names. */
  mirrored(view: { name: string; version: string }): Promise<string[]>
}

export const openLake = (options: LakeOptions): Lake => {
  const { store, engine } = options
  const context: DeltaContext = {
    store,
    engine,
    now: options.now ?? Date.now,
    checkpointEvery: options.checkpointEvery ?? 10,
    warn: options.warn ?? ((error) => process.emitWarning(String(error), { code: 'WEIR_LAKE_CHECKPOINT' })),
  }
  const events = new Map<string, EventsTable>()
  const dead = new Map<string, DeadTable>()
  const views = new Map<string, ViewTable>()
  const memo = <T>(map: Map<string, T>, key: string, make: () => T): T => {
    const found = map.get(key) ?? make()
    map.set(key, found)
    return found
  }
  const lake: Lake = {
    store,
    engine,
    events: (dataset) => memo(events, dataset.name, () => openEventsTable(context, dataset)),
    dead: (dataset) => memo(dead, dataset.name, () => openDeadTable(context, dataset)),
    viewTable: (view) => memo(views, viewRoot(view), () => openViewTable(context, view)),
    scan: (dataset, range) => lake.events(dataset).scan(range),
    compact: async (dataset, how) => ({
      events: await compactEvents(context, lake.events(dataset), dataset, how),
      dead: await compactDead(context, lake.dead(dataset).delta, deadColumns, how),
    }),
    mirrored: async (view) => {
      const root = viewRoot(view)
      const delta = views.get(root)?.delta ?? openDeltaTable(context, root)
      return [...((await delta.snapshot())?.files.keys() ?? [])].map((path) => `${root}/${path}`)
    },
    vacuum: async ({ datasets, ...how }) => {
      const tables = datasets.flatMap((d) => [lake.events(d).delta, lake.dead(d).delta])
      const out: Vacuumed = { deleted: [], bytes: 0 }
      for (const table of tables) {
        const done = await vacuumTable(context, table, how)
        out.deleted.push(...done.deleted)
        out.bytes += done.bytes
      }
      return out
    },
  }
  return lake
}

/** The port `History` over the tables of these datasets. */
export const openHistory = (lake: Lake, datasets: Dataset[]): History => {
  const byName = new Map(datasets.map((d) => [d.name, d]))
  return historyOf(lake.store, lake.engine, (name) => {
    const dataset = byName.get(name)
    return dataset && { dataset, events: lake.events(dataset), dead: lake.dead(dataset) }
  })
}
