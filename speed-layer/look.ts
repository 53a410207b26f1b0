/**
 * Looking around: attach, fitness, sweeps, entering and leaving versions.
 * Invariant: after a look that returns null, the memory stands for the stored header, the header's position is in the log's
 * own history, and every version in the header is fed and fit. What is lost or unfit is repaired from published cuts and
 * the log, or the partition stops with an alarm; nothing is ever reset to offset 0 or skipped.
 */
import { WeirError } from '../model/errors.ts'
import { genesis, type Position, samePosition } from '../model/position.ts'
import { type Fed, latest, misplaced, type Survey, standing, survey } from './fitness.ts'
import { closeReplay, isReplayOf, startReplay } from './replay.ts'
import { emptyEpoch } from './store-rules.ts'
import { adopt, isWhole, type SpeedWorkerOptions, type WorkerState } from './worker-state.ts'

/** Blocks deleted by one sweep. */
const SWEEP_BLOCKS = 1_000

/** What a look did: null when all is well and a batch may be read. */
export type Looked = 'rebuilt' | 'stopped' | null

export const look = async (options: SpeedWorkerOptions, state: WorkerState): Promise<Looked> => {
  const { store, engine, versions } = options
  const { key } = state
  state.session ??= await engine.session()
  let seen = await survey(options, key)
  // Tombstones are swept on every pass: a worker that had not heard of them may have written again (rule 16).
  for (const v of versions.all()) if (v.state === 'dropped') await store.dropVersion(key, v.version)
  if (seen.header === null) return rebuild(options, state, seen)
  const where = await standing(options.log, key, seen.header.position)
  if (where !== 'same') return leave(options, state, seen, where)
  if (misplaced(seen).length > 0) {
    seen = await survey(options, key)
    const gone = misplaced(seen)
    for (const version of gone) await store.dropVersion(key, version)
    // The header has changed, or had: look at it anew.
    return again(state)
  }
  const { header, fed } = seen
  const damaged = await adopt(
    options,
    state,
    header!,
    fed.map((f) => f.view),
  )
  if (damaged.length > 0) return repair(options, state, seen, damaged)
  if (Object.values(header!.views).some((v) => v.retiring.length > 0)) await store.sweep(key, SWEEP_BLOCKS)

  const absent = await placeAbsent(options, state, seen)
  if (absent === 'stopped') return 'stopped'
  // Only what a look found is over with it; a full map of ids is over when a batch is applied.
  if (state.stopped?.code.startsWith('WEIR_SPEED_')) state.stopped = null
  state.lastLook = performance.now()
  state.mustLook = false
  return null
}

const again = (state: WorkerState): 'rebuilt' => {
  state.mustLook = true
  return 'rebuilt'
}

/** Stops with an alarm, told once per reason. Every later step looks again. */
const stop = (options: SpeedWorkerOptions, state: WorkerState, error: WeirError): 'stopped' => {
  if (state.stopped?.message !== error.message) options.alarm?.(error)
  state.stopped = error
  state.mustLook = true
  return 'stopped'
}

/** Versions that are fed and not in the header: waiting for their cut, below the log's start, or replayed. */
const placeAbsent = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  seen: Survey,
): Promise<'stopped' | null> => {
  const { position, views } = seen.header!
  const absent = seen.fed.filter((f) => views[f.view.version] === undefined)
  state.waiting = absent.filter((f) => f.cut.offset > position.offset)
  state.belowStart = []
  const wanted: Fed[] = []
  for (const f of absent.filter((a) => a.cut.offset <= position.offset)) {
    const where = await standing(options.log, state.key, f.cut)
    if (where === 'replaced') return stop(options, state, cutReplaced(state, f.cut))
    if (where === 'same') wanted.push(f)
    else state.belowStart.push(f)
  }
  for (const f of state.belowStart) tellBelowStart(options, state, f)
  const { replay } = state
  if (replay !== null && !isReplayOf(replay, wanted)) {
    state.replay = null
    await closeReplay({ ...options, session: state.session! }, replay)
  }
  if (wanted.length > 0) state.replay ??= startReplay(wanted)
  return null
}

/** Blocks that do not match their digests: true damage only if the header is still the one that was read. */
const repair = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  seen: Survey,
  damaged: string[],
): Promise<Looked> => {
  const { store } = options
  const now = await store.header(state.key)
  if (JSON.stringify(now) !== JSON.stringify(seen.header)) return again(state)
  for (const version of damaged) await store.dropVersion(state.key, version)
  return again(state)
}

/** The header's position is not in the log: rebuilt at the published cut, or stopped (rules 8 and 9). */
const leave = async (
  options: SpeedWorkerOptions,
  state: WorkerState,
  seen: Survey,
  where: 'below-start' | 'replaced',
): Promise<Looked> => {
  if (where === 'replaced') return rebuild(options, state, seen)
  const target = latest(seen.fed.map((f) => f.cut))
  const caughtUp =
    target !== null &&
    target.offset > seen.header!.position.offset &&
    (await standing(options.log, state.key, target)) === 'same'
  return caughtUp ? rebuild(options, state, seen) : stop(options, state, belowStart(state, seen.header!.position))
}

/** A fresh header at the latest published cut, which is compared with the log first. */
const rebuild = async (options: SpeedWorkerOptions, state: WorkerState, seen: Survey): Promise<Looked> => {
  const { log, store, history, dataset, partition } = options
  const { logId } = await log.range(dataset.name, partition)
  for (const { cut } of seen.fed) {
    if ((await standing(log, state.key, cut)) === 'replaced') return stop(options, state, cutReplaced(state, cut))
  }
  const target =
    latest(seen.fed.map((f) => f.cut)) ?? (await history.archived(dataset.name, partition))?.position ?? genesis(logId)
  const where = await standing(log, state.key, target)
  if (where === 'replaced') return stop(options, state, cutReplaced(state, target))
  if (where === 'below-start') {
    state.belowStart = seen.fed
    return stop(options, state, belowStart(state, target))
  }
  const counts =
    target.offset === 0
      ? { counted: 0, duplicate: 0, dead: 0, watermarkUs: null }
      : await history.countsBelow(dataset.name, partition, target.offset)
  const fresh = seen.fed.filter((f) => samePosition(f.cut, target))
  await store.rebuild(state.key, seen.header?.position ?? null, {
    formatVersion: 1,
    position: target,
    ...counts,
    views: Object.fromEntries(fresh.map((f) => [f.view.version, { epochs: [emptyEpoch(target)], retiring: [] }])),
  })
  return again(state)
}

/** Compares one epoch's stored blocks with its digest, in turn; damage leads to a look that repairs it. */
export const verifyNext = async (options: SpeedWorkerOptions, state: WorkerState, turn: number): Promise<void> => {
  const epochs = Object.entries(state.header!.views).flatMap(([version, view]) =>
    view.epochs.filter((e) => e.blocks > 0).map((epoch) => ({ version, epoch })),
  )
  if (epochs.length === 0) return
  const { version, epoch } = epochs[turn % epochs.length]!
  if (await isWhole(options, state, version, epoch, true)) return
  const now = await options.store.header(state.key)
  state.mustLook = true
  if (JSON.stringify(now) === JSON.stringify(state.header)) await options.store.dropVersion(state.key, version)
}

const told = new WeakMap<WorkerState, Set<string>>()
const tellBelowStart = (options: SpeedWorkerOptions, state: WorkerState, fed: Fed): void => {
  const names = told.get(state) ?? new Set()
  told.set(state, names)
  const name = `${fed.view.version}/${fed.cut.offset}`
  if (names.has(name)) return
  names.add(name)
  options.alarm?.(belowStart(state, fed.cut, fed.view.name))
}

const belowStart = (state: WorkerState, position: Position, view?: string): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_BELOW_START',
    message: `The log of ${state.key.dataset}/${state.key.partition} begins after offset ${position.offset}, from where ${
      view === undefined ? 'the speed state' : `view ${view}`
    } has to go on.`,
    expected: 'every record from the published cut on',
    got: `no record ${position.offset}`,
    next: 'the batch layer extends the view from the lake up to a cut that the log holds; run `weir batch extend`',
    retryable: true,
  })

const cutReplaced = (state: WorkerState, cut: Position): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_LOG_REPLACED',
    message: `The log of ${state.key.dataset}/${state.key.partition} is not the one that was published up to offset ${cut.offset}.`,
    expected: `log ${cut.logId}, fingerprint ${cut.fingerprint || '(the beginning)'} before offset ${cut.offset}`,
    got: 'another history',
    next: 'bring the log back, or give the replaced log a new dataset; run `weir doctor`',
  })
