/**
 * What every function of the batch layer is given. Invariant: nothing here is created by the batch layer; cli/ and tests wire it, and
 * all state that must outlive a call is in the log, the speed store or the lake.
 */
import type { Engine } from '../engine/engine.ts'
import type { Lake } from '../lake/lake.ts'
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { History } from '../model/ports/history.ts'
import type { Publications } from '../model/ports/publications.ts'
import type { SpeedStore } from '../model/ports/speed-store.ts'
import type { Settings } from '../model/settings.ts'
import type { Versions } from '../model/versions.ts'
import type { WorkerRunner } from './shard.ts'

export type BatchContext = {
  log: EventLog
  speed: SpeedStore
  publications: Publications
  history: History
  lake: Lake
  engine: Engine
  datasets: Dataset[]
  versions: Versions
  settings: Settings
  /** Wall clock, ms: only for ages, leases and times that people read. */
  now(): number
  /** Runs the shards of a recompute; default: in this process, one after the other. */
  runWorker?: WorkerRunner
  /** Told of what needs a person, and of what went wrong without harm. Default: a process warning. */
  alarm?(error: unknown): void
}

export const alarm = (ctx: BatchContext, error: unknown): void => {
  if (ctx.alarm) ctx.alarm(error)
  else process.emitWarning(String(error), { code: error instanceof WeirError ? error.code : 'WEIR_BATCH_ALARM' })
}

export const datasetOf = (ctx: BatchContext, name: string): Dataset => {
  const found = ctx.datasets.find((d) => d.name === name)
  if (found) return found
  throw new WeirError({
    code: 'WEIR_BATCH_DATASET',
    message: `There is no dataset ${name}.`,
    expected: `one of ${ctx.datasets.map((d) => d.name).join(', ')}`,
    got: name,
    next: 'check the name, or add datasets/<name>.yaml',
  })
}

/** Throws when a job was cancelled. */
export const checkSignal = (signal: AbortSignal | undefined): void => {
  if (signal?.aborted)
    throw new WeirError({
      code: 'WEIR_BATCH_CANCELLED',
      message: 'The job was cancelled.',
      expected: 'a job that runs to its end',
      next: 'submit it again; nothing half-done is visible',
      retryable: true,
    })
}
