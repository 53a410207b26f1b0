/**
 * Brings versions into a header: their cells over [published cut, stored position), read from the log again.
 * Invariant: a version is installed only at the stored position, with one epoch that starts exactly at its cut and whose
 * verdicts stand for the log from before that cut. One replay serves versions with different cuts: a version joins when the
 * cursor reaches its cut, and no batch crosses one.
 */
import type { Session } from '../engine/engine.ts'
import { rebuildSeen } from '../engine/rebuild-seen.ts'
import type { Seen } from '../model/decode/seen.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { History } from '../model/ports/history.ts'
import type { SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import { type Position, samePosition } from '../model/position.ts'
import { type BatchContext, decode, mergeAll, positionAfter } from './batch.ts'
import { type Cells, commitCells, dropCells, emptyCells, packAll } from './cells.ts'
import type { Fed } from './fitness.ts'

export type ReplayContext = BatchContext & {
  log: EventLog
  history: History
  store: SpeedStore
  key: StoreKey
  seenIds: number
  blockBytes: number
}

export type Replay = {
  targets: { fed: Fed; cells: Cells | null }[]
  cursor: Position
  seen: Seen | null
}

const TABLE = 'replay_batch'

/** Whether a replay is for exactly these versions and cuts. */
export const isReplayOf = (replay: Replay, wanted: Fed[]): boolean =>
  replay.targets.length === wanted.length &&
  wanted.every((w) =>
    replay.targets.some((t) => t.fed.view.version === w.view.version && samePosition(t.fed.cut, w.cut)),
  )

export const startReplay = (wanted: Fed[]): Replay => ({
  targets: wanted.map((fed) => ({ fed, cells: null })),
  cursor: wanted.map((f) => f.cut).reduce((first, p) => (p.offset < first.offset ? p : first)),
  seen: null,
})

/**
 * One batch of the replay towards `until`, the stored position. 'lost': the log no longer has the records, or has others:
 * look again. 'stale': the stored position has moved: go on towards the new one. 'installed': `cells` of every target are in
 * the header now.
 */
export const stepReplay = async (
  ctx: ReplayContext,
  replay: Replay,
  until: Position,
  maxBytes: number,
): Promise<{ kind: 'more' | 'stale' | 'lost' | 'installed'; records: number }> => {
  const { session, log, key } = ctx
  for (const target of replay.targets) {
    if (samePosition(target.fed.cut, replay.cursor))
      target.cells ??= await emptyCells(session, target.fed.view, ctx.blockBytes)
  }
  if (samePosition(replay.cursor, until)) return { kind: await install(ctx, replay, until), records: 0 }
  if (replay.cursor.offset >= until.offset) return { kind: 'lost', records: 0 }

  const stops = [until, ...replay.targets.filter((t) => t.cells === null).map((t) => t.fed.cut)]
  const stop = Math.min(...stops.map((p) => p.offset))
  const limits = { maxBytes, maxRecords: stop - replay.cursor.offset }
  const read = await log.read(key.dataset, key.partition, replay.cursor, limits)
  if (read.kind !== 'records' || read.records.length === 0) return { kind: 'lost', records: 0 }
  const records = read.records.filter((r) => r.offset < stop)
  const to = positionAfter(replay.cursor, records)

  replay.seen ??= await rebuildSeen(ctx, ctx.dataset, key.partition, replay.cursor, ctx.seenIds)
  const cells = new Map(replay.targets.flatMap((t) => (t.cells === null ? [] : [[t.fed.view.version, t.cells]])))
  const views = [...cells.values()].map((c) => c.view)
  const decoded = await decode(ctx, TABLE, replay.cursor, records, views, replay.seen)
  await session.run('BEGIN TRANSACTION')
  const changes = await mergeAll(session, cells, decoded, false)
  await session.run('COMMIT')
  for (const [version, change] of changes) await commitCells(session, cells.get(version)!, change)
  replay.seen.accept(decoded.change, to)
  replay.cursor = to
  return { kind: 'more', records: records.length }
}

const install = async (ctx: ReplayContext, replay: Replay, at: Position): Promise<'installed' | 'stale'> => {
  for (const { fed, cells } of replay.targets) {
    const blocks = await packAll(ctx.session, cells!)
    const epoch = { from: fed.cut, to: at, blocks: blocks.length, digest: cells!.digest }
    const outcome = await ctx.store.install(ctx.key, at, fed.view.version, [{ epoch, blocks }])
    if (outcome === 'stale') return 'stale'
  }
  return 'installed'
}

export const closeReplay = async (ctx: { session: Session }, replay: Replay): Promise<void> => {
  for (const { cells } of replay.targets) if (cells !== null) await dropCells(ctx.session, cells)
}
