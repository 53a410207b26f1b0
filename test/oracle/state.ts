/** What the parts of one world share: its durable stores, its processes, and the account of what must be answered. */
import type { BatchContext } from '../../batch-layer/context.ts'
import type { Engine } from '../../engine/engine.ts'
import { WeirError } from '../../model/errors.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import type { Settings } from '../../model/settings.ts'
import type { Versions } from '../../model/versions.ts'
import type { SqlTools } from '../../model/view.ts'
import type { Serving } from '../../serving-layer/serving.ts'
import type { SpeedWorker } from '../../speed-layer/worker.ts'
import type { MemorySpeedStore, Snapshot } from '../support/memory-speed-store.ts'
import type { Expected } from './expected.ts'
import { Crash, type Process } from './nemesis.ts'
import type { OracleEvent, OracleProject } from './project.ts'

/** What every world of a run shares. */
export type Lab = { engine: Engine; tools: SqlTools }

export class Difference extends Error {
  override name = 'Difference'
}

export type WorldStats = { answers: number; refusals: Record<string, number>; crashes: number; published: number }

export type Base = {
  log: EventLog
  speed: SpeedStore
  memory: MemorySpeedStore | null
  objects: ObjectStore
  folder: string | null
}

export type Speed = { process: Process; versions: Versions; workers: Map<number, SpeedWorker> }
export type Batch = { process: Process; ctx: BatchContext }
export type Answering = { process: Process; versions: Versions; serving: Serving }

export type World = {
  lab: Lab
  project: OracleProject
  settings: Settings
  base: Base
  clock: { now: number }
  trace: ((line: string) => void) | undefined
  expected: Expected
  partitions: number[]
  /** Events by record id, acknowledged or not. */
  attempted: Map<string, OracleEvent[]>
  /** Which of its definitions each view has now. */
  definitions: Map<string, number>
  /** Longest age of a copy that is answered from; 0: every answer looks at what is stored. */
  staleMs: number
  speeds: Speed[]
  batches: Batch[]
  answering: Answering
  /** Highest upper that the present server has shown. */
  lastUpper: Record<string, number>
  saved: Snapshot | undefined
  /** Code of the last refusal. */
  refusedAs: string
  /** Processes opened and record ids drawn so far. */
  opened: number
  appends: number
  alarms: unknown[]
  stats: WorldStats
}

/** Right refusals that no retry would change. */
const FINAL = new Set([
  'WEIR_BATCH_SUSPECT',
  'WEIR_BATCH_NOT_KEPT',
  'WEIR_BATCH_DROPPED',
  'WEIR_LAKE_DROPPED',
  'WEIR_BATCH_ACTIVE',
])

/** Whether an error is one that the promises allow: a process that was killed, a loud refusal. */
export const tolerated = (w: World, error: unknown): boolean => {
  if (error instanceof Crash) return true
  if (error instanceof WeirError && (error.retryable || FINAL.has(error.code))) {
    w.stats.refusals[error.code] = (w.stats.refusals[error.code] ?? 0) + 1
    w.refusedAs = error.code
    return true
  }
  return false
}

export const guarded = async (w: World, run: () => Promise<unknown>): Promise<void> => {
  try {
    await run()
  } catch (error) {
    if (!tolerated(w, error)) throw error
    w.trace?.(`    ${String(error)}`)
  }
}

/** Takes what the log holds into the account. */
export const absorb = async (w: World): Promise<void> => {
  const { expected, base, attempted } = w
  const { dataset } = w.project
  for (const partition of w.partitions) {
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
