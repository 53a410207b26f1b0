/**
 * Decoding a batch of records into a temporary table.
 * Invariant: never throws for what events contain. Each event is either a row of the table or one dead event with its
 * reason, and which of the two does not depend on what else is in the batch.
 */
import { unlinkSync } from 'node:fs'
import type { Dataset } from '../model/dataset.ts'
import { decodeSql, suspectsSql } from '../model/decode/decode-sql.ts'
import { ident } from '../model/ident.ts'
import { type DeadEvent, deadEvent, explainMisfits, jsonFields, type Misfit, unreadable } from './dead-events.ts'
import type { Engine, Session } from './engine.ts'
import { withFile, writeExtra } from './line-files.ts'
import { type BatchRecord, type Lines, scanLines } from './lines.ts'
import { type BatchPositions, rowNumbers } from './row-numbers.ts'

export type { DeadEvent } from './dead-events.ts'
export type { BatchRecord } from './lines.ts'

export type DecodeBatchOptions = {
  /** Temporary table to create or replace with the good rows; left out: verdicts only. */
  table?: string
  /** Declared columns wanted in the table (id and event time are added); default all. All are checked either way. */
  columns?: string[]
  /** Adds `_extra`: JSON text of unknown fields, or NULL. */
  extra?: boolean
  /** Per record; adds _partition, _offset, _index (BIGINT) and _append_time (TIMESTAMPTZ). */
  positions?: BatchPositions
}

type Context = { engine: Engine; session: Session; dataset: Dataset; options: DecodeBatchOptions; lines: Lines }

/**
 * Good rows carry `_row` BIGINT (the event's number in the batch from 0, dead ones counted) and `_record` BIGINT.
 * Throws only for what is no event's fault: a cancelled session, no memory, no scratch space.
 */
export const decodeBatch = async (
  engine: Engine,
  session: Session,
  dataset: Dataset,
  records: BatchRecord[],
  options: DecodeBatchOptions,
): Promise<{ rows: number; dead: DeadEvent[] }> => {
  const lines = scanLines(records)
  const context: Context = { engine, session, dataset, options, lines }
  // Most batches need the first read alone. A batch with unreadable lines needs three queries, however many they are;
  // bisection is for what the engine refuses without being able to say why.
  let outcome = await decodeLines(context, living(lines))
  if (outcome === null) {
    await nameUnreadable(context, living(lines))
    outcome = await decodeLines(context, living(lines))
  }
  if (outcome === null) {
    await bisect(context, living(lines))
    outcome = await decodeLines(context, living(lines))
  }
  if (outcome === null) throw new Error('lines that can be read alone cannot be read together')
  const dead = [...lines.dead].map(([n, reason]) => deadEvent(lines, n, reason, null))
  if (outcome.misfits.length > 0) for (const event of await explainMisfits(context, outcome.misfits)) dead.push(event)
  return { rows: outcome.rows, dead: dead.sort((a, b) => a.row - b.row) }
}

/** Events not yet dead, by number. */
export const living = (lines: Lines): Int32Array => {
  const alive = new Int32Array(lines.count - lines.dead.size)
  let k = 0
  for (let n = 0; n < lines.count; n++) if (lines.dead.size === 0 || !lines.dead.has(n)) alive[k++] = n
  return alive
}

type Outcome = { rows: number; misfits: Misfit[] }

/** Decodes lines that are thought readable into the table; null when the read as a whole fails. */
const decodeLines = async (context: Context, events: Int32Array): Promise<Outcome | null> => {
  const { session, dataset, options, lines } = context
  if (options.table === undefined) return judgeLines(context, events)
  const table = ident(options.table)
  return withFile(context.engine, context.lines, events, async (file) => {
    const numbers = await rowNumbers(session, lines, events, options.positions)
    const extraFile = options.extra ? writeExtra(context.engine, dataset, lines, events) : undefined
    const decoded = decodeSql(dataset, file, {
      longest: lines.longest,
      ...(options.columns ? { columns: options.columns } : {}),
      ...(extraFile === undefined ? {} : { extraFile }),
    })
    try {
      await session.run(
        `CREATE OR REPLACE TEMP TABLE ${table} AS SELECT n.*, d.* FROM (${decoded}) d POSITIONAL JOIN (${numbers}) n`,
      )
    } catch (error) {
      if (isUnreadable(error)) return null
      throw error
    } finally {
      if (extraFile !== undefined) unlinkSync(extraFile)
    }
    const [counted] = await session.rows<{ rows: string; bad: string; odd: string }>(
      `SELECT count(*) AS rows, count(*) FILTER (_verdict <> 0) AS bad, count(*) FILTER (_verdict IS NULL OR _row IS NULL) AS odd FROM ${table}`,
    )
    if (Number(counted!.rows) !== events.length || Number(counted!.odd) !== 0) return null
    let misfits: Misfit[] = []
    if (Number(counted!.bad) > 0) {
      const found = await session.columns(`SELECT _row, _verdict FROM ${table} WHERE _verdict <> 0 ORDER BY _row`)
      misfits = (found[0] as bigint[]).map((row, i) => ({ row: Number(row), verdict: Number(found[1]![i]) }))
      await session.run(`DELETE FROM ${table} WHERE _verdict <> 0`)
    }
    await session.run(`ALTER TABLE ${table} DROP COLUMN _verdict`)
    return { rows: events.length - misfits.length, misfits }
  })
}

/** The verdicts of the same statement, with nothing kept: the engine computes no value that no verdict needs. */
const judgeLines = (context: Context, events: Int32Array): Promise<Outcome | null> =>
  withFile(context.engine, context.lines, events, async (file) => {
    const { session, dataset, lines } = context
    const decoded = decodeSql(dataset, file, { columns: [], longest: lines.longest })
    let counted: { rows: string; bad: string; odd: string } | undefined
    try {
      ;[counted] = await session.rows<{ rows: string; bad: string; odd: string }>(
        `SELECT count(*) AS rows, count(*) FILTER (_verdict <> 0) AS bad, count(*) FILTER (_verdict IS NULL) AS odd FROM (${decoded})`,
      )
    } catch (error) {
      if (isUnreadable(error)) return null
      throw error
    }
    if (Number(counted!.rows) !== events.length || Number(counted!.odd) !== 0) return null
    if (Number(counted!.bad) === 0) return { rows: events.length, misfits: [] }
    const found = await session.columns(
      `SELECT n.i, d._verdict FROM (${decoded}) d POSITIONAL JOIN (SELECT unnest(range(${events.length})) AS i) n WHERE d._verdict <> 0 ORDER BY n.i`,
    )
    const misfits = (found[0] as bigint[]).map((i, k) => ({ row: events[Number(i)]!, verdict: Number(found[1]![k]) }))
    return { rows: events.length - misfits.length, misfits }
  })

/** The engine's errors that come from a file's text. */
const isUnreadable = (error: unknown): boolean =>
  /Invalid Input Error: .*(Malformed JSON|JSON transform error|maximum_object_size|duplicate key)/s.test(String(error))

/** Marks the lines that the engine's own parser names as unreadable. */
const nameUnreadable = async (context: Context, events: Int32Array): Promise<void> => {
  const { session, dataset, lines } = context
  const [numbers = [], twice = []] = await withFile(context.engine, context.lines, events, (file) =>
    session.numbers(suspectsSql(dataset, file)),
  )
  for (let i = 0; i < numbers.length; i++) {
    const n = events[Number(numbers[i])]!
    lines.dead.set(n, unreadable(lines, n, twice[i] === 1))
  }
}

/** Halves until the lines that fail stand alone, and marks them: log2(n) reads for each. */
const bisect = async (context: Context, events: Int32Array): Promise<void> => {
  if (events.length === 0 || (await canRead(context, events))) return
  if (events.length === 1) {
    context.lines.dead.set(events[0]!, unreadable(context.lines, events[0]!, false))
    return
  }
  const half = events.length >> 1
  await bisect(context, events.subarray(0, half))
  await bisect(context, events.subarray(half))
}

const canRead = (context: Context, events: Int32Array): Promise<boolean> =>
  withFile(context.engine, context.lines, events, async (file) => {
    try {
      const [read] = await context.session.rows<{ _lines: string }>(
        `SELECT count(COLUMNS(*)), count(*) AS _lines FROM ${jsonFields(context.dataset, file)}`,
      )
      return Number(read!._lines) === events.length
    } catch (error) {
      if (isUnreadable(error)) return false
      throw error
    }
  })
