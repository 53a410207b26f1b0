/**
 * What the serving layer is given. Invariant: nothing here is created by the serving layer; cli/ and tests wire it. All it
 * holds itself is a copy that can be thrown away.
 */
import type { Engine } from '../engine/engine.ts'
import type { Lake } from '../lake/lake.ts'
import type { Dataset } from '../model/dataset.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { History } from '../model/ports/history.ts'
import type { Publications } from '../model/ports/publications.ts'
import type { SpeedStore } from '../model/ports/speed-store.ts'
import type { Settings } from '../model/settings.ts'
import type { Versions } from '../model/versions.ts'

export type ServingContext = {
  speed: SpeedStore
  publications: Publications
  log: EventLog
  history: History
  lake: Lake
  /** DuckDB of the serving layer; its memory limit is what answers and copies may use. */
  engine: Engine
  datasets: Dataset[]
  versions: Versions
  settings: Settings
  /** Wall clock, ms: for `last`, lag and nothing that decides an answer. */
  now(): number
  /** Bytes of published parts kept in the engine; the rest is read from its files. Default 256 MiB. */
  batchBytes?: number
  /** How long parts that do not fit together are planned again before 503, ms. Default 2,000. */
  replanMs?: number
  /**
   * How far an answer may lag behind the speed state, ms: within it answers come from a copy that is followed in the background.
   * Default 0: each query looks at the speed state itself. Tokens (`atLeast`) and audits always look.
   */
  staleMs?: number
  /** Cells that differed when a view was last verified; null: never verified. For status and metrics. */
  drift?(view: string): number | null
  /** Alarms that stand in this process; for administrators, in the status. */
  alarms?(): { source: string; code: string; message: string; next?: string; since: string; count: number }[]
}

/** Who asks: forced filters of the API key. */
export type Caller = { where?: Record<string, string> }

export type QueryHow = {
  signal?: AbortSignal
  /** ETags that the client has: when the answer would bear one of them, none is made. */
  ifNoneMatch?: string[]
}
