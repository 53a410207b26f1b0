/**
 * The speed worker of one (dataset, partition): reads the log from the position stored with the state, and applies batches.
 * Invariant: memory is only a cache of the stored header and its blocks. A step does a bounded piece of work; whatever goes
 * wrong in one (a lost reply, an engine gone, another worker) makes the next one look at what is stored before it goes on.
 */
import { WeirError } from '../model/errors.ts'
import type { LogRecord } from '../model/ports/event-log.ts'
import type { Apply, Header } from '../model/ports/speed-store.ts'
import { type Position, samePosition } from '../model/position.ts'
import { decode, maxWatermark, mergeAll, positionAfter } from './batch.ts'
import { commitCells } from './cells.ts'
import { look, verifyNext } from './look.ts'
import { stepReplay } from './replay.ts'
import { decideApply, openEpoch } from './store-rules.ts'
import { adopt, forget, newState, type SpeedWorkerOptions, type WorkerState } from './worker-state.ts'

export type { SpeedWorkerOptions } from './worker-state.ts'

export type StepResult = {
  /** 'rebuilt': stored state was looked at, repaired or brought up; 'stopped': see `state().stopped`. */
  kind: 'applied' | 'idle' | 'rebuilt' | 'stopped'
  /** Records read in this step. */
  records: number
}

export type SpeedWorkerState = {
  position: Position | null
  counted: number
  duplicate: number
  dead: number
  watermarkUs: string | null
  /** Per version: fed; building (its cells are read again from the log); waiting for its cut; below the log's start. */
  versions: Record<string, 'fed' | 'building' | 'waiting' | 'below-start'>
  stopped: WeirError | null
  seenIds: number
}

export type SpeedWorker = {
  /** Does one bounded piece of work. Throws what went wrong; the next step begins by looking at what is stored. */
  step(signal?: AbortSignal): Promise<StepResult>
  state(): SpeedWorkerState
  close(): Promise<void>
}

const SMALLEST_BATCH = 64 * 1024
const TABLE = 'speed_batch'

export const openSpeedWorker = async (options: SpeedWorkerOptions): Promise<SpeedWorker> => {
  const { log, settings, lookEveryMs = 1_000, verifyEveryMs = 5_000, verifyBusyMs = 30_000 } = options
  const smallest = Math.min(SMALLEST_BATCH, settings.batchBytes)
  const state = newState(options, smallest)
  let running: Promise<StepResult> | null = null
  let isOpen = true
  let turn = 0

  const lookDue = (): boolean =>
    state.mustLook || state.header === null || performance.now() - state.lastLook >= lookEveryMs

  const step = async (signal?: AbortSignal): Promise<StepResult> => {
    if (lookDue()) {
      const looked = await look(options, state)
      if (looked === 'stopped') await pause(settings.waitMs, signal)
      if (looked !== null) return { kind: looked, records: 0 }
    }
    if (state.replay !== null) return replayStep()
    // A worker that never comes to rest must notice blocks that are gone, too.
    if (await verified(verifyBusyMs)) return { kind: 'rebuilt', records: 0 }
    const header = state.header!
    const stop = nextStop(state, header)
    const read = await log.read(options.dataset.name, options.partition, header.position, {
      maxBytes: state.batchBytes,
      waitMs: settings.waitMs,
      ...(Number.isFinite(stop) ? { maxRecords: stop - header.position.offset } : {}),
      ...(signal === undefined ? {} : { signal }),
    })
    if (read.kind !== 'records') {
      state.mustLook = true
      return { kind: 'rebuilt', records: 0 }
    }
    const records = read.records.filter((r) => r.offset < stop)
    if (records.length === 0) return idle()
    const to = records.length === read.records.length ? read.to : positionAfter(header.position, records)
    const behind = read.logEndOffset > to.offset
    state.batchBytes = behind
      ? Math.min(settings.batchBytes, state.batchBytes * 4)
      : Math.max(smallest, state.batchBytes >> 1)
    return apply(options, state, header, records, to)
  }

  /** No room for the ids of another batch: nothing was changed; smaller batches are tried, and somebody is told. */
  const holdBack = async (error: WeirError, signal?: AbortSignal): Promise<StepResult> => {
    if (state.stopped?.code !== error.code) options.alarm?.(error)
    state.stopped = error
    state.batchBytes = smallest
    await pause(settings.waitMs, signal)
    return { kind: 'stopped', records: 0 }
  }

  const replayStep = async (): Promise<StepResult> => {
    const replay = state.replay!
    const { seenIds, blockBytes } = settings
    const ctx = { ...options, session: state.session!, habit: state.habit, key: state.key, seenIds, blockBytes }
    const { kind, records } = await stepReplay(ctx, replay, state.header!.position, settings.batchBytes)
    if (kind === 'more') return { kind: 'rebuilt', records }
    if (kind === 'installed') {
      for (const { fed, cells } of replay.targets) state.held.set(fed.view.version, { epoch: fed.cut, cells: cells! })
      state.replay = null
    }
    if (kind === 'lost') state.replay = null
    state.mustLook = true
    return { kind: 'rebuilt', records }
  }

  /** Looks whether one epoch's blocks are all there, when that is due; true when something has to be done about it. */
  const verified = async (everyMs: number): Promise<boolean> => {
    if (performance.now() - state.lastVerify < everyMs) return false
    await verifyNext(options, state, turn++)
    state.lastVerify = performance.now()
    return state.mustLook
  }

  /** Nothing to read: the read has compared the log's side; now the store's side (rule 11). */
  const idle = async (): Promise<StepResult> => {
    const stored = await options.store.header(state.key)
    if (stored === null || !samePosition(stored.position, state.header!.position)) state.mustLook = true
    else if (JSON.stringify(stored.views) !== JSON.stringify(state.header!.views)) {
      const views = [...state.held.values()].map((h) => h.cells.view)
      const known = Object.keys(stored.views).every((version) => state.held.has(version))
      if (!known || (await adopt(options, state, stored, views)).length > 0) state.mustLook = true
      if (Object.values(stored.views).some((v) => v.retiring.length > 0)) state.mustLook = true
    }
    if (!state.mustLook) await verified(verifyEveryMs)
    return { kind: 'idle', records: 0 }
  }

  return {
    step: async (signal) => {
      if (!isOpen || running !== null) throw new Error('a speed worker takes one step at a time, while it is open')
      running = step(signal)
      try {
        return await running
      } catch (error) {
        if (isFull(error)) return await holdBack(error, signal)
        forget(state)
        throw error
      } finally {
        running = null
      }
    },
    state: () => {
      const { header } = state
      const of = (list: { view: { version: string } }[], kind: SpeedWorkerState['versions'][string]) =>
        list.map((f) => [f.view.version, kind] as const)
      return {
        position: header?.position ?? null,
        counted: header?.counted ?? 0,
        duplicate: header?.duplicate ?? 0,
        dead: header?.dead ?? 0,
        watermarkUs: header?.watermarkUs ?? null,
        versions: Object.fromEntries([
          ...[...state.held.keys()].map((version) => [version, 'fed'] as const),
          ...of(
            (state.replay?.targets ?? []).map((t) => t.fed),
            'building',
          ),
          ...of(state.waiting, 'waiting'),
          ...of(state.belowStart, 'below-start'),
        ]),
        stopped: state.stopped,
        seenIds: state.seen?.size ?? 0,
      }
    },
    close: async () => {
      isOpen = false
      await running?.catch(() => undefined)
      forget(state)
    },
  }
}

/** Offset that no batch may cross: the nearest requested cut, or cut at which a version waits to enter. */
const nextStop = (state: WorkerState, header: Header): number =>
  [
    ...Object.values(header.views).map((v) => v.requestedCut ?? Number.POSITIVE_INFINITY),
    ...state.waiting.map((f) => f.cut.offset),
  ]
    .filter((offset) => offset > header.position.offset)
    .reduce((least, offset) => Math.min(least, offset), Number.POSITIVE_INFINITY)

const apply = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  header: Header,
  records: LogRecord[],
  to: Position,
): Promise<StepResult> => {
  const session = state.session!
  const cells = new Map([...state.held].map(([version, held]) => [version, held.cells]))
  const views = [...cells.values()].map((c) => c.view)
  const ctx = { ...options, session, habit: state.habit }
  const decoded = await decode(ctx, TABLE, header.position, records, views, state.seen!)
  await session.run('BEGIN TRANSACTION')
  const changes = await mergeAll(session, cells, decoded)
  const call: Apply = {
    from: header.position,
    to,
    counted: header.counted + decoded.counted,
    duplicate: header.duplicate + decoded.duplicate,
    dead: header.dead + decoded.dead,
    watermarkUs: maxWatermark(header.watermarkUs, decoded.watermarkUs),
    views: Object.fromEntries(
      [...changes].map(([version, { blocks, blockCount, digest }]) => [
        version,
        { epoch: openEpoch(header.views[version]!).from, blocks, blockCount, digest },
      ]),
    ),
  }
  const outcome = await options.store.apply(state.key, call)
  if (outcome !== 'applied') {
    // Somebody else went on, or a cut was asked: what is stored decides how this goes on (rule 10).
    await session.run('ROLLBACK')
    state.mustLook = true
    return { kind: 'rebuilt', records: 0 }
  }
  await session.run('COMMIT')
  state.stopped = null
  for (const [version, change] of changes) await commitCells(session, cells.get(version)!, change)
  state.seen!.accept(decoded.change, to)
  state.header = decideApply(header, call).next!
  // A requested cut that this batch reached has opened another epoch.
  for (const [version, view] of Object.entries(state.header.views)) {
    if (!samePosition(openEpoch(view).from, state.held.get(version)!.epoch)) state.mustLook = true
  }
  if (state.waiting.some((f) => f.cut.offset <= to.offset)) state.mustLook = true
  return { kind: 'applied', records: records.length }
}

const isFull = (error: unknown): error is WeirError =>
  error instanceof WeirError && error.code === 'WEIR_DECODE_SEEN_FULL'

const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const done = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done, { once: true })
  })
