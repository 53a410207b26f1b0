/**
 * One batch of log records: decoded once, given verdicts, merged into the cells of every view.
 * Invariant: what a batch changes (cells, counters, watermark, ids seen) is a function of its records and of the state at
 * the position before it; nothing becomes real until the caller commits.
 */
import { decodeBatch } from '../engine/decode.ts'
import { findDuplicates, findRepeats, idColumn } from '../engine/duplicates.ts'
import type { Engine, Session } from '../engine/engine.ts'
import { reduceBatch } from '../engine/reduce-batch.ts'
import type { Dataset } from '../model/dataset.ts'
import type { Seen, SeenChange } from '../model/decode/seen.ts'
import { ident } from '../model/ident.ts'
import type { LogRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { aggregate, aggregateDecoded, canFuse, type Part } from './aggregate.ts'
import { type CellChange, type Cells, mergePart } from './cells.ts'

export type Counters = { counted: number; duplicate: number; dead: number; watermarkUs: string | null }

/** A decoded batch: `table` holds its counted rows, or `parts` are the views' cells of them already. */
export type Decoded = Counters & { table: string; change: SeenChange; parts?: Part[] }

/**
 * What earlier batches tell about the way to take the next one; never about its effect.
 * `skip`: batches to decode into a table before the short way is tried again; `failed`: how many that were last time;
 * `times`: batches for which event times are compared with those of their own records at once.
 */
export type Habit = { skip: number; failed: number; times: number }

const COMPARED = 32
const MOST_SKIPPED = 64

export const newHabit = (): Habit => ({ skip: 0, failed: 0, times: 0 })

export type BatchContext = { engine: Engine; session: Session; dataset: Dataset; partition: number; habit: Habit }

/** Position after a record that follows `before`. */
export const positionAfter = (before: Position, records: LogRecord[]): Position => {
  const last = records[records.length - 1]
  if (last === undefined) return before
  const effectiveMs = records.reduce((max, r) => Math.max(max, r.appendTimeMs), before.effectiveMs)
  return { logId: before.logId, offset: last.offset + 1, fingerprint: last.fingerprint, effectiveMs }
}

/** Effective append times of records that follow `before`. */
const effectiveTimes = (before: Position, records: LogRecord[]): number[] => {
  let effectiveMs = before.effectiveMs
  return records.map((r) => {
    effectiveMs = Math.max(effectiveMs, r.appendTimeMs)
    return effectiveMs
  })
}

/** Decodes records, without duplicates, in the shortest way. `seen` stays as it is: the caller lets it accept `change`. */
export const decode = async (
  ctx: BatchContext,
  table: string,
  before: Position,
  records: LogRecord[],
  views: View[],
  seen: Seen,
): Promise<Decoded> => {
  const { engine, session, dataset, partition, habit } = ctx
  const times = effectiveTimes(before, records)
  const columns = [...new Set([dataset.eventTime, ...views.flatMap((v) => v.columns)])]
  if (habit.skip > 0) habit.skip--
  else if (views.length > 0 && idColumn(dataset) === null && canFuse(views)) {
    const reduced = await reduce(ctx, table, records, times, columns, views, seen)
    habit.failed = reduced === null ? Math.min(MOST_SKIPPED, habit.failed * 2 || 4) : 0
    if (reduced !== null) return reduced
    habit.skip = habit.failed
  }
  const needsPosition = views.some((v) => v.needsPosition || v.needsAppendTime)
  const positions = { partition, offsets: records.map((r) => r.offset), effectiveMs: times }
  const decoded = await decodeBatch(engine, session, dataset, records, {
    table,
    columns,
    ...(needsPosition ? { positions } : {}),
  })
  const { rows, change } = await findDuplicates(
    session,
    dataset,
    table,
    records.map((r, i) => ({ recordId: r.recordId, effectiveMs: times[i]! })),
    seen,
  )
  if (rows.length > 0) {
    await session.run(`DELETE FROM ${table} WHERE _row IN (SELECT unnest([${rows.join(', ')}]))`)
  }
  return {
    table,
    change,
    counted: decoded.rows - rows.length,
    duplicate: rows.length,
    dead: decoded.dead.length,
    watermarkUs: await watermark(session, dataset, table, times),
  }
}

/**
 * The short way: views aggregated straight from the bytes. Null when that cannot be, or when a record repeats: then rows
 * have to be told apart. The effect is the same either way.
 */
const reduce = async (
  { engine, session, dataset, partition, habit }: BatchContext,
  table: string,
  records: LogRecord[],
  times: number[],
  columns: string[],
  views: View[],
  seen: Seen,
): Promise<Decoded | null> => {
  const needed = views.some((v) => v.needsPosition || v.needsAppendTime)
  for (;;) {
    const all = { partition, offsets: records.map((r) => r.offset), effectiveMs: times }
    const compared = habit.times > 0
    const positions = needed || compared ? { positions: all } : {}
    const timely = compared ? `${ident(dataset.eventTime)} <= _append_time` : null
    let found: Awaited<ReturnType<typeof aggregateDecoded>> | undefined
    const batch = await reduceBatch(engine, session, dataset, records, { columns, ...positions }, async (source) => {
      found = await aggregateDecoded(session, views, source, `${table}_all`, dataset.eventTime, timely)
      return found.summary
    })
    if (batch === null) return null
    const { parts, summary } = found!
    // Unless all are older than the first record, some event may be from the future of its own.
    const young = summary.greatestUs !== null && BigInt(summary.greatestUs) > BigInt(times[0]!) * 1000n
    habit.times = young ? COMPARED : Math.max(0, habit.times - 1)
    if (young && !compared) continue
    const decoded = records.flatMap((r, i) =>
      batch.decoded[i] ? [{ recordId: r.recordId, effectiveMs: times[i]! }] : [],
    )
    const change = findRepeats(decoded, seen)
    if (change === null) return null
    return {
      table,
      parts,
      change,
      counted: batch.good,
      duplicate: 0,
      dead: batch.dead,
      watermarkUs: summary.greatestUs,
    }
  }
}

/** Greatest event time (µs) of the counted rows that is not after its own record's effective append time. */
const watermark = async (
  session: Session,
  dataset: Dataset,
  table: string,
  times: number[],
): Promise<string | null> => {
  const time = `epoch_us(${ident(dataset.eventTime)})`
  const [greatest] = await session.rows<{ us: string | null }>(
    `SELECT epoch_us(max(${ident(dataset.eventTime)})) AS us FROM ${table}`,
  )
  if (greatest!.us === null || times.length === 0 || BigInt(greatest!.us) <= BigInt(times[0]!) * 1000n)
    return greatest!.us
  // Some event is from the future of the first record: each one is compared with its own record.
  const [row] = await session.rows<{ us: string | null }>(
    `SELECT max(${time}) AS us FROM ${table}
     WHERE ${time} <= ([${times.join(', ')}]::BIGINT[])[_record + 1] * 1000`,
  )
  return row!.us
}

export const maxWatermark = (a: string | null, b: string | null): string | null =>
  a === null || (b !== null && BigInt(b) > BigInt(a)) ? b : a

/** Merges a decoded batch into the cells of the views, inside the caller's transaction. */
export const mergeAll = async (
  session: Session,
  cells: Map<string, Cells>,
  { table, parts }: Decoded,
  pack = true,
): Promise<Map<string, CellChange>> => {
  const views = [...cells.values()].map((c) => c.view)
  const changes = new Map<string, CellChange>()
  for (const { view, sql } of parts ?? (await aggregate(session, views, table, `${table}_all`))) {
    changes.set(view.version, await mergePart(session, cells.get(view.version)!, sql, pack))
  }
  return changes
}
