/**
 * Numbers of decoded rows (`_row`, `_record`, and positions in the log) as SQL, to stand beside the lines that are read.
 * Invariant: the k-th row of the query belongs to the k-th line.
 *
 * A batch of a few runs (neighbouring events of one record, or one-event records with offsets in step) is written into
 * the statement; others go through a temporary table, since a long statement is parsed at 15 µs an event.
 */
import type { Session } from './engine.ts'
import type { Lines } from './lines.ts'

export type BatchPositions = { partition: number; offsets: number[]; effectiveMs: number[] }

/** Columns of runs: number of rows; then the first row's numbers; `per`: records from one row to the next, 0 or 1. */
const FIELDS = ['rows', 'row', 'record', 'index', 'per', 'offset', 'ms'] as const
type Runs = { count: number } & Record<(typeof FIELDS)[number], Float64Array>

const INLINE = 32
const RUNS_TABLE = '_weir_runs'

const runsOf = (lines: Lines, events: Int32Array, positions: BatchPositions | undefined): Runs => {
  const runs = { count: 0 } as Runs
  for (const field of FIELDS) runs[field] = new Float64Array(events.length)
  let last = -1
  for (let k = 0; k < events.length; k++) {
    const row = events[k]!
    const record = lines.record[row]!
    const index = lines.index[row]!
    const offset = positions ? positions.offsets[record]! : 0
    const ms = positions ? positions.effectiveMs[record]! : 0
    if (last >= 0) {
      const done = runs.rows[last]!
      const per = runs.per[last]!
      const continues =
        row === runs.row[last]! + done &&
        record === runs.record[last]! + done * per &&
        index === runs.index[last]! + done * (1 - per) &&
        (per === 0 || (ms === runs.ms[last]! && offset === runs.offset[last]! + (positions ? done : 0)))
      if (continues) {
        runs.rows[last] = done + 1
        continue
      }
    }
    last = runs.count++
    const next = events[k + 1]
    runs.rows[last] = 1
    runs.row[last] = row
    runs.record[last] = record
    runs.index[last] = index
    runs.per[last] = next !== undefined && lines.record[next] === record ? 0 : 1
    runs.offset[last] = offset
    runs.ms[last] = ms
  }
  return runs
}

/** `SELECT _row, _record, …` for the given events, in order. May fill a temporary table of the session. */
export const rowNumbers = async (
  session: Session,
  lines: Lines,
  events: Int32Array,
  positions: BatchPositions | undefined,
): Promise<string> => {
  const runs = runsOf(lines, events, positions)
  let source: string
  if (runs.count <= INLINE) {
    const lists = FIELDS.map((f) => `unnest([${[...runs[f].subarray(0, runs.count)].join(',')}]::BIGINT[]) AS "${f}"`)
    source = `(SELECT ${lists.join(', ')})`
  } else {
    const columns = Object.fromEntries(FIELDS.map((f) => [f, runs[f].subarray(0, runs.count)]))
    await session.fill(RUNS_TABLE, columns)
    source = RUNS_TABLE
  }
  const single = runs.count === events.length
  const i = single ? '0' : 'i'
  const numbers = [
    [`"row" + ${i}`, '_row'],
    [`"record" + ${i} * "per"`, '_record'],
    ...(positions
      ? [
          [`${positions.partition}`, '_partition'],
          [`"offset" + ${i} * "per"`, '_offset'],
          [`"index" + ${i} * (1 - "per")`, '_index'],
        ]
      : []),
  ].map(([sql, name]) => `(${sql})::BIGINT AS ${name}`)
  if (positions) numbers.push('make_timestamptz("ms"::BIGINT * 1000) AS _append_time')
  return single
    ? `SELECT ${numbers.join(', ')} FROM ${source}`
    : `SELECT ${numbers.join(', ')} FROM (SELECT *, unnest(range("rows"::BIGINT)) AS i FROM ${source})`
}
