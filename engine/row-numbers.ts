/**
 * Numbers of decoded rows (`_row`, `_record`, and positions in the log) as SQL over runs of events.
 * Invariant: the k-th row of the query belongs to the k-th line that is read.
 */
import type { Lines } from './lines.ts'

export type BatchPositions = { partition: number; offsets: number[]; effectiveMs: number[] }

/** A run: neighbouring events of neighbouring records, all with the same number of events, offsets and times in step. */
type Run = { rows: number; row: number; record: number; index: number; per: number; offset: number; ms: number }

const runsOf = (lines: Lines, events: Int32Array, positions: BatchPositions | undefined): Run[] => {
  const runs: Run[] = []
  let run: Run | undefined
  const offsetOf = (record: number): number => positions?.offsets[record] ?? 0
  const msOf = (record: number): number => positions?.effectiveMs[record] ?? 0
  for (let k = 0; k < events.length; k++) {
    const n = events[k]!
    const record = lines.record[n]!
    const index = lines.index[n]!
    if (
      run !== undefined &&
      run.row + run.rows === n &&
      run.record + run.rows * run.per === record &&
      index === run.index + (1 - run.per) * run.rows
    ) {
      const sameRecord = run.per === 0
      if (sameRecord || (msOf(record) === run.ms && offsetOf(record) === run.offset + (positions ? run.rows : 0))) {
        run.rows++
        continue
      }
    }
    // per: records from one event to the next, 0 inside one record, 1 for records of one event each.
    const next = events[k + 1]
    const per = next !== undefined && lines.record[next] === record ? 0 : 1
    run = { rows: 1, row: n, record, index, per, offset: offsetOf(record), ms: msOf(record) }
    runs.push(run)
  }
  return runs
}

/** `SELECT _row, _record, …` for the given events, in order. */
export const rowNumbersSql = (lines: Lines, events: Int32Array, positions: BatchPositions | undefined): string => {
  const runs = runsOf(lines, events, positions)
  const list = (of: (run: Run) => number): string => `unnest([${runs.map(of).join(',')}]::BIGINT[])`
  const columns = [
    `row + i AS _row`,
    `record + i * per AS _record`,
    ...(positions
      ? [
          `${positions.partition}::BIGINT AS _partition`,
          `"offset" + i * per AS _offset`,
          `index + i * (1 - per) AS _index`,
          `make_timestamptz(ms * 1000) AS _append_time`,
        ]
      : []),
  ]
  const source = `SELECT ${[
    `${list((r) => r.row)} AS row`,
    `${list((r) => r.record)} AS record`,
    `${list((r) => r.index)} AS index`,
    `${list((r) => r.per)} AS per`,
    `${list((r) => r.offset)} AS "offset"`,
    `${list((r) => r.ms)} AS ms`,
    `${list((r) => r.rows)} AS n`,
  ].join(', ')}`
  return `SELECT ${columns.join(', ')} FROM (SELECT *, unnest(range(n)) AS i FROM (${source}))`
}
