/**
 * One batch of log records: decoded once, given verdicts, merged into the cells of every view.
 * Invariant: what a batch changes (cells, counters, watermark, ids seen) is a function of its records and of the state at
 * the position before it; nothing becomes real until the caller commits.
 */
import { decodeBatch } from '../engine/decode.ts'
import { findDuplicates } from '../engine/duplicates.ts'
import type { Engine, Session } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import type { Seen, SeenChange } from '../model/decode/seen.ts'
import { ident } from '../model/ident.ts'
import type { LogRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { aggregate } from './aggregate.ts'
import { type CellChange, type Cells, mergePart } from './cells.ts'

export type Counters = { counted: number; duplicate: number; dead: number; watermarkUs: string | null }

/** A decoded batch: `table` holds its counted rows. */
export type Decoded = Counters & { table: string; change: SeenChange }

export type BatchContext = { engine: Engine; session: Session; dataset: Dataset; partition: number }

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

/** Decodes records into `table` and removes its duplicates. `seen` stays as it is: the caller lets it accept `change`. */
export const decode = async (
  ctx: BatchContext,
  table: string,
  before: Position,
  records: LogRecord[],
  views: View[],
  seen: Seen,
): Promise<Decoded> => {
  const { engine, session, dataset, partition } = ctx
  const times = effectiveTimes(before, records)
  const columns = [...new Set([dataset.eventTime, ...views.flatMap((v) => v.columns)])]
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
  table: string,
  pack = true,
): Promise<Map<string, CellChange>> => {
  const views = [...cells.values()].map((c) => c.view)
  const changes = new Map<string, CellChange>()
  for (const { view, sql } of await aggregate(session, views, table, `${table}_all`)) {
    changes.set(view.version, await mergePart(session, cells.get(view.version)!, sql, pack))
  }
  return changes
}
