/**
 * What a worker keeps between steps, and how it takes over stored state.
 * Invariant: the cells, hashes and ids seen in memory are those of the header's position; whatever does not match the header
 * is loaded again from the store's blocks, or found damaged.
 */

import type { Engine, Session } from '../engine/engine.ts'
import { rebuildSeen } from '../engine/rebuild-seen.ts'
import type { Dataset } from '../model/dataset.ts'
import type { Seen } from '../model/decode/seen.ts'
import type { WeirError } from '../model/errors.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { History } from '../model/ports/history.ts'
import type { Publications } from '../model/ports/publications.ts'
import type { Header, SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import { type Position, samePosition } from '../model/position.ts'
import type { Settings } from '../model/settings.ts'
import type { Versions } from '../model/versions.ts'
import type { View } from '../model/view.ts'
import { type Habit, newHabit } from './batch.ts'
import { blocksFit, type Cells, dropCells, loadCells } from './cells.ts'
import type { Fed } from './fitness.ts'
import type { Replay } from './replay.ts'
import { epochName, openEpoch } from './store-rules.ts'

export type SpeedWorkerOptions = {
  log: EventLog
  store: SpeedStore
  history: History
  publications: Publications
  engine: Engine
  dataset: Dataset
  partition: number
  versions: Versions
  settings: Settings['speed']
  /** Told once for each reason to stop. */
  alarm?: (error: WeirError) => void
  /** Longest time (monotonic, ms) between looks at pointers, versions and fitness; default 1000. */
  lookEveryMs?: number
  /** Time (monotonic, ms) between checks of one epoch's stored blocks while idle; default 5000. */
  verifyEveryMs?: number
  /** The same while there is always something to read; default 30,000. */
  verifyBusyMs?: number
}

export type Held = { epoch: Position; cells: Cells }

export type WorkerState = {
  key: StoreKey
  session: Session | null
  header: Header | null
  held: Map<string, Held>
  seen: Seen | null
  replay: Replay | null
  /** Versions to be fed from a cut that the position has not reached; no batch crosses it. */
  waiting: Fed[]
  /** Versions whose cut the log no longer holds: the batch layer extends them from the lake. */
  belowStart: Fed[]
  stopped: WeirError | null
  /** Epochs whose stored blocks were compared with their digest, by version, name and digest. */
  verified: Set<string>
  mustLook: boolean
  lastLook: number
  lastVerify: number
  batchBytes: number
  habit: Habit
}

export const newState = (options: SpeedWorkerOptions, batchBytes: number): WorkerState => ({
  key: { dataset: options.dataset.name, partition: options.partition },
  session: null,
  header: null,
  held: new Map(),
  seen: null,
  replay: null,
  waiting: [],
  belowStart: [],
  stopped: null,
  verified: new Set(),
  mustLook: true,
  lastLook: Number.NEGATIVE_INFINITY,
  lastVerify: performance.now(),
  batchBytes,
  habit: newHabit(),
})

/** Throws everything in memory away: the temporary tables go with the session. */
export const forget = (state: WorkerState): void => {
  const { session } = state
  state.session = null
  state.header = null
  state.held = new Map()
  state.seen = null
  state.replay = null
  state.mustLook = true
  state.verified = new Set()
  session?.close()
}

/** Takes over a header: cells of its open epochs, ids seen. Returns versions whose stored blocks are not those of their digests. */
export const adopt = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  header: Header,
  views: View[],
): Promise<string[]> => {
  const session = state.session!
  for (const [version, { cells }] of [...state.held]) {
    if (header.views[version] !== undefined) continue
    await dropCells(session, cells)
    state.held.delete(version)
  }
  const damaged: string[] = []
  for (const [version, view] of Object.entries(header.views)) {
    const compiled = views.find((v) => v.version === version)!
    let whole = true
    for (const epoch of view.epochs.slice(0, -1)) whole &&= await isWhole(options, state, version, epoch)
    const open = openEpoch(view)
    const held = state.held.get(version)
    const { digest, hashes } = held?.cells ?? {}
    if (held && samePosition(held.epoch, open.from) && digest === open.digest && hashes!.size === open.blocks) {
      if (!whole) damaged.push(version)
      continue
    }
    if (held) await dropCells(session, held.cells)
    state.held.delete(version)
    const blocks = open.blocks === 0 ? [] : await options.store.blocks(state.key, version, open.from)
    const cells = whole
      ? await loadCells(options.engine, session, compiled, blocks, open, options.settings.blockBytes)
      : null
    if (cells === null) damaged.push(version)
    else state.held.set(version, { epoch: open.from, cells })
  }
  if (damaged.length > 0) return damaged
  if (state.seen === null || !samePosition(state.seen.position, header.position)) {
    state.seen = null
    const { dataset, partition, settings } = options
    state.seen = await rebuildSeen(options, dataset, partition, header.position, settings.seenIds)
  }
  state.header = header
  return []
}

/** Whether an epoch's stored blocks are those of its digest; each state of an epoch is read once, unless `again`. */
export const isWhole = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  version: string,
  epoch: Header['views'][string]['epochs'][number],
  again = false,
): Promise<boolean> => {
  const name = `${version}/${epochName(epoch.from)}/${epoch.digest}`
  if (!again && (epoch.blocks === 0 || state.verified.has(name))) return true
  const whole = blocksFit(await options.store.blocks(state.key, version, epoch.from), epoch)
  if (state.verified.size > 10_000) state.verified.clear()
  if (whole) state.verified.add(name)
  else state.verified.delete(name)
  return whole
}
