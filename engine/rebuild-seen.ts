/**
 * The de-duplication map at a position, rebuilt: from the lake's rows below min(archived, position), then from the log.
 * Invariant: effective times continue from the one kept with the archived position; raw append times never bound a look-back
 * (rule 15; a clock that stepped back would hide ids that are still within the window).
 */
import type { Dataset } from '../model/dataset.ts'
import { createSeen, idWords, RECORD_WINDOW_MS, recordWords, type Seen } from '../model/decode/seen.ts'
import { WeirError } from '../model/errors.ts'
import type { EventLog, LogRecord } from '../model/ports/event-log.ts'
import type { History, SeenIds } from '../model/ports/history.ts'
import { genesis, type Position, samePosition } from '../model/position.ts'
import { decodeBatch } from './decode.ts'
import { findDuplicates } from './duplicates.ts'
import type { Engine } from './engine.ts'

const READ_BYTES = 8 * 1024 * 1024
const TABLE = '_weir_rebuild'

/**
 * Throws WEIR_DECODE_SEEN_POSITION when lake or log hold another history than `at`'s, WEIR_DECODE_SEEN_LOG when the log
 * cannot be read from the archived position on, and WEIR_DECODE_SEEN_FULL when the window holds more than `capacity` ids.
 */
export const rebuildSeen = async (
  ctx: { engine: Engine; log: EventLog; history: History },
  dataset: Dataset,
  partition: number,
  at: Position,
  capacity: number,
): Promise<Seen> => {
  const { engine, log, history } = ctx
  const windowMs = dataset.id === undefined ? undefined : dataset.dedupeWindowMs
  const archived = (await history.archived(dataset.name, partition))?.position
  const below = Math.min(archived?.offset ?? 0, at.offset)
  const start = below === at.offset ? at : archived !== undefined && below > 0 ? archived : genesis(at.logId)
  if (below > 0 && below === at.offset) {
    const own = await history.positionAt(dataset.name, partition, below)
    if (own !== null && !samePosition(own, at)) throw otherHistory(dataset.name, partition, at, own.fingerprint)
  }
  const seen = createSeen(start, { capacity, ...(windowMs === undefined ? {} : { windowMs }) })
  if (below > 0) {
    const since = at.effectiveMs - Math.max(windowMs ?? 0, RECORD_WINDOW_MS)
    const known = await history.window(dataset.name, partition, below, since)
    const overlay = seen.overlay()
    // Ids of the lake come once each, in no order: only what they leave in the map counts, not the verdict.
    if (windowMs !== undefined)
      forEachSeen(known.events, idWords, (words, place, ms) => {
        if (at.effectiveMs - ms < windowMs) overlay.event(words, place, ms)
      })
    forEachSeen(known.records, recordWords, (words, place, ms) => {
      if (at.effectiveMs - ms < RECORD_WINDOW_MS) overlay.record(words, place, ms)
    })
    seen.accept(overlay.change(), start)
  }
  if (start.offset === at.offset) return seen

  await engine.withSession(async (session) => {
    let from = start
    while (from.offset < at.offset) {
      const read = await log.read(dataset.name, partition, from, { maxBytes: READ_BYTES })
      if (read.kind !== 'records') throw unreadable(dataset.name, partition, from, read.kind)
      if (read.to.offset === from.offset) throw unreadable(dataset.name, partition, from, 'its end')
      const records = read.records.filter((r) => r.offset < at.offset)
      const to = positionAfter(from, records, read.to, at)
      const times = effectiveTimes(from.effectiveMs, records)
      await decodeBatch(engine, session, dataset, records, { table: TABLE, columns: [] })
      const { change } = await findDuplicates(
        session,
        dataset,
        TABLE,
        records.map((r, i) => ({ recordId: r.recordId, effectiveMs: times[i]! })),
        seen,
      )
      seen.accept(change, to)
      from = to
    }
    await session.run(`DROP TABLE IF EXISTS ${TABLE}`)
  })
  if (!samePosition(seen.position, at)) throw otherHistory(dataset.name, partition, at, seen.position.fingerprint)
  return seen
}

/** Calls `take` for each id with its hash. */
const forEachSeen = (
  ids: SeenIds,
  wordsOf: (id: string) => Uint32Array,
  take: (words: Uint32Array, place: number, effectiveMs: number) => void,
): void => {
  if (Array.isArray(ids)) for (const { id, effectiveMs } of ids) take(wordsOf(id), 0, effectiveMs)
  else for (let i = 0; i < ids.effectiveMs.length; i++) take(ids.words, 4 * i, ids.effectiveMs[i]!)
}

const effectiveTimes = (before: number, records: LogRecord[]): number[] => {
  let last = before
  return records.map((r) => {
    last = Math.max(last, r.appendTimeMs)
    return last
  })
}

/** Where the map stands after the records; what a read brought beyond `at` is left out. */
const positionAfter = (from: Position, records: LogRecord[], to: Position, at: Position): Position => {
  if (to.offset <= at.offset) return to
  const last = records.at(-1)
  return {
    logId: to.logId,
    offset: at.offset,
    fingerprint: last?.fingerprint ?? from.fingerprint,
    effectiveMs: effectiveTimes(from.effectiveMs, records).at(-1) ?? from.effectiveMs,
  }
}

const otherHistory = (dataset: string, partition: number, at: Position, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_DECODE_SEEN_POSITION',
    message: `Lake or log of ${dataset}/${partition} hold another record before offset ${at.offset} than the position.`,
    expected: `fingerprint ${at.fingerprint}`,
    got,
    next: 'the log was replaced or cut: the position is to be compared, and the state rebuilt',
  })

const unreadable = (dataset: string, partition: number, from: Position, why: string): WeirError =>
  new WeirError({
    code: 'WEIR_DECODE_SEEN_LOG',
    message: `The log of ${dataset}/${partition} cannot be read from offset ${from.offset} to rebuild the ids seen.`,
    expected: 'the records from the archived position on',
    got: why,
    next: 'the log was replaced, cut or trimmed below what is archived: see the alarm of the partition',
    retryable: true,
  })
