/**
 * Dead events: each with a code, what was expected, what came, and its bytes.
 * Invariant: the reason is a function of the event alone.
 */
import type { Dataset } from '../model/dataset.ts'
import { readSql, verdictOf } from '../model/decode/decode-sql.ts'
import { expectedOf } from '../model/decode/type-table.ts'
import type { Engine, Session } from './engine.ts'
import { withFile } from './line-files.ts'
import { type DeadReason, type Lines, shorten } from './lines.ts'

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

export const jsonFields = (dataset: Dataset, file: string): string =>
  readSql(
    file,
    dataset.columns.map((c) => ({ name: c.name, type: 'JSON' })),
  )

const textOf = (lines: Lines, n: number): Buffer =>
  lines.texts[lines.record[n]!]!.subarray(lines.start[n], lines.end[n])

export const unreadable = (lines: Lines, n: number, twice: boolean): DeadReason => ({
  code: twice ? 'WEIR_DECODE_KEY_TWICE' : 'WEIR_DECODE_JSON',
  expected: twice ? 'each declared column at most once' : 'one JSON object on one line',
  got: shorten(textOf(lines, n).toString('utf8', 0, 800)),
})

export const deadEvent = (lines: Lines, n: number, reason: DeadReason, column: string | null): DeadEvent => ({
  row: n,
  record: lines.record[n]!,
  index: lines.index[n]!,
  code: reason.code,
  column,
  expected: reason.expected,
  got: reason.got,
  raw: new Uint8Array(lines.raw[lines.record[n]!]!.subarray(lines.start[n], lines.end[n])),
})

/** A time as people read it; beyond what JavaScript's dates reach, in microseconds. */
const timeText = (us: bigint): string => {
  const date = new Date(Number(us / 1000n))
  return Number.isNaN(date.getTime()) ? `${us} µs since 1970` : date.toISOString()
}

/** An event's number and its verdict (not good). */
export type Misfit = { row: number; verdict: number }

/** Reasons for readable events that do not fit, with the fields in the engine's words. */
export const explainMisfits = async (
  context: { engine: Engine; session: Session; dataset: Dataset; lines: Lines },
  misfits: Misfit[],
): Promise<DeadEvent[]> => {
  const { engine, session, dataset, lines } = context
  const events = Int32Array.from(misfits, (m) => m.row)
  const fields = await withFile(engine, lines, events, (file) =>
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
        return deadEvent(
          lines,
          m.row,
          {
            code: 'WEIR_DECODE_EVENT_TIME',
            expected: `a time from ${timeText(from)} to before ${timeText(to)}`,
            got: text,
          },
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
