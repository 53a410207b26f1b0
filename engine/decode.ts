/**
 * Decoding a batch of records into a temporary table.
 * Invariant: never throws for what events contain. Each event is either a row of the table or one dead event with its
 * reason, and which of the two does not depend on what else is in the batch.
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Dataset } from '../model/dataset.ts'
import { decodeSql, readSql, suspectsSql, verdictOf } from '../model/decode/decode-sql.ts'
import { expectedOf } from '../model/decode/type-table.ts'
import { ident } from '../model/ident.ts'
import type { Engine, Session } from './engine.ts'
import { extraFields } from './extra-fields.ts'
import { type BatchRecord, type DeadReason, type Lines, scanLines, shorten } from './lines.ts'
import { type BatchPositions, rowNumbers } from './row-numbers.ts'

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

export type DeadEvent = {
  /** The event's number in the batch. */
  row: number
  /** The record's number in the batch, and the event's number in the record. */
  record: number
  index: number
  code: string
  column: string | null
  expected: string
  got: string
  raw: Uint8Array
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
const living = (lines: Lines): Int32Array => {
  const alive = new Int32Array(lines.count - lines.dead.size)
  let k = 0
  for (let n = 0; n < lines.count; n++) if (lines.dead.size === 0 || !lines.dead.has(n)) alive[k++] = n
  return alive
}

const NEWLINE = 10
/** A buffer for writing that is larger than this is not kept. */
const MAX_KEPT_BUFFER = 64 * 1024 * 1024

let files = 0
const scratchFile = (engine: Engine): string => join(engine.scratchDir, `events-${process.pid}-${files++}.ndjson`)

/** Writes lines into a file in memory for the time of `use`. */
const withFile = async <T>(context: Context, events: Int32Array, use: (file: string) => Promise<T>): Promise<T> => {
  const file = scratchFile(context.engine)
  writeLines(file, context.lines, events)
  try {
    return await use(file)
  } finally {
    unlinkSync(file)
  }
}

let buffer = Buffer.allocUnsafeSlow(1 << 16)

/** Copies the lines into one buffer, each ended by a line break, and writes that. Synchronous: the buffer is shared. */
const writeLines = (file: string, lines: Lines, events: Int32Array): void => {
  let size = 0
  for (let k = 0; k < events.length; k++) size += lines.end[events[k]!]! - lines.start[events[k]!]! + 1
  if (buffer.length < size)
    buffer = Buffer.allocUnsafeSlow(Math.max(size, Math.min(buffer.length * 2, MAX_KEPT_BUFFER)))
  const out = buffer
  let at = 0
  for (let k = 0; k < events.length; k++) {
    // Neighbours with nothing but one line break between them go as one piece.
    const first = events[k]!
    let last = first
    while (
      k + 1 < events.length &&
      events[k + 1] === last + 1 &&
      lines.record[last + 1] === lines.record[first] &&
      lines.start[last + 1] === lines.end[last]! + 1
    )
      last = events[++k]!
    const end = lines.end[last]!
    const text = lines.texts[lines.record[first]!]!
    at += text.copy(out, at, lines.start[first]!, end)
    out[at++] = NEWLINE
  }
  const fd = openSync(file, 'w')
  try {
    for (let from = 0; from < at; ) from += writeSync(fd, out, from, at - from)
  } finally {
    closeSync(fd)
  }
  if (buffer.length > MAX_KEPT_BUFFER) buffer = Buffer.allocUnsafeSlow(1 << 16)
}

/** One line for each event: the object of its unknown fields. */
const writeExtra = (context: Context, events: Int32Array): string => {
  const { lines, dataset } = context
  const declared = new Set(dataset.columns.map((c) => c.name))
  const file = scratchFile(context.engine)
  let text = ''
  const fd = openSync(file, 'w')
  try {
    for (const n of events) {
      text += `${extraFields(lines.texts[lines.record[n]!]!, lines.start[n]!, lines.end[n]!, declared)}\n`
      if (text.length < EXTRA_CHUNK) continue
      writeText(fd, text)
      text = ''
    }
    writeText(fd, text)
  } finally {
    closeSync(fd)
  }
  return file
}

const EXTRA_CHUNK = 1 << 20
const writeText = (fd: number, text: string): void => {
  const bytes = Buffer.from(text)
  for (let from = 0; from < bytes.length; ) from += writeSync(fd, bytes, from)
}

type Outcome = { rows: number; misfits: { row: number; verdict: number }[] }

/** Decodes lines that are thought readable into the table; null when the read as a whole fails. */
const decodeLines = async (context: Context, events: Int32Array): Promise<Outcome | null> => {
  const { session, dataset, options, lines } = context
  if (options.table === undefined) return judgeLines(context, events)
  const table = ident(options.table)
  return withFile(context, events, async (file) => {
    const numbers = await rowNumbers(session, lines, events, options.positions)
    const extraFile = options.extra ? writeExtra(context, events) : undefined
    const decoded = decodeSql(dataset, file, {
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
    let misfits: Outcome['misfits'] = []
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
  withFile(context, events, async (file) => {
    const { session, dataset } = context
    const decoded = decodeSql(dataset, file, { columns: [] })
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
  const [numbers = [], twice = []] = await withFile(context, events, (file) =>
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
  withFile(context, events, async (file) => {
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

const jsonFields = (dataset: Dataset, file: string): string =>
  readSql(
    file,
    dataset.columns.map((c) => ({ name: c.name, type: 'JSON' })),
  )

const textOf = (lines: Lines, n: number): Buffer =>
  lines.texts[lines.record[n]!]!.subarray(lines.start[n], lines.end[n])

const unreadable = (lines: Lines, n: number, twice: boolean): DeadReason => ({
  code: twice ? 'WEIR_DECODE_KEY_TWICE' : 'WEIR_DECODE_JSON',
  expected: twice ? 'each declared column at most once' : 'one JSON object on one line',
  got: shorten(textOf(lines, n).toString('utf8', 0, 800)),
})

const deadEvent = (lines: Lines, n: number, reason: DeadReason, column: string | null): DeadEvent => ({
  row: n,
  record: lines.record[n]!,
  index: lines.index[n]!,
  code: reason.code,
  column,
  expected: reason.expected,
  got: reason.got,
  raw: new Uint8Array(lines.raw[lines.record[n]!]!.subarray(lines.start[n], lines.end[n])),
})

/** Reasons for readable events that do not fit, with the fields in the engine's words. */
const explainMisfits = async (context: Context, misfits: Outcome['misfits']): Promise<DeadEvent[]> => {
  const { session, dataset, lines } = context
  const events = Int32Array.from(misfits, (m) => m.row)
  const fields = await withFile(context, events, (file) =>
    session.columns(`SELECT * FROM ${jsonFields(dataset, file)}`),
  )
  return misfits.map((m, i) => {
    const { kind, column: number } = verdictOf(m.verdict)
    const column = dataset.columns[number]!
    const got = fields[number]![i]
    const text = got === null || got === undefined ? 'nothing' : shorten(String(got))
    switch (kind) {
      case 'type':
        return deadEvent(
          lines,
          m.row,
          { code: 'WEIR_DECODE_TYPE', expected: expectedOf(column), got: text },
          column.name,
        )
      case 'missing':
        return deadEvent(
          lines,
          m.row,
          { code: 'WEIR_DECODE_MISSING', expected: `${expectedOf(column)}; required`, got: text },
          column.name,
        )
      case 'eventTime': {
        const { from, to } = dataset.eventTimeRangeUs
        const iso = (us: bigint): string => new Date(Number(us / 1000n)).toISOString()
        return deadEvent(
          lines,
          m.row,
          { code: 'WEIR_DECODE_EVENT_TIME', expected: `a time from ${iso(from)} to before ${iso(to)}`, got: text },
          column.name,
        )
      }
      default:
        return deadEvent(
          lines,
          m.row,
          {
            code: 'WEIR_DECODE_UNKNOWN_FIELD',
            expected: `only ${shorten(dataset.columns.map((c) => c.name).join(', '))}`,
            got: shorten(textOf(lines, m.row).toString('utf8', 0, 800)),
          },
          null,
        )
    }
  })
}
