/**
 * One statement over the decoded rows of a batch, with no table of them in between.
 * Invariant: what `reduce` sees, and the number of dead events, are what `decodeBatch` would give for the same records; a
 * batch for which that is not certain is answered by null, and the caller decodes it into a table.
 */
import type { Dataset } from '../model/dataset.ts'
import { decodeSql } from '../model/decode/decode-sql.ts'
import { WeirError } from '../model/errors.ts'
import { living } from './decode.ts'
import type { Engine, Session } from './engine.ts'
import { withFile } from './line-files.ts'
import { type BatchRecord, type Lines, scanLines } from './lines.ts'
import { type BatchPositions, rowNumbers } from './row-numbers.ts'

export type ReduceOptions = {
  /** Declared columns wanted; id and event time are added. */
  columns: string[]
  /** Adds `_row`, `_record`, `_partition`, `_offset`, `_index` and `_append_time`. */
  positions?: BatchPositions
}

/** `rows`: all that the statement saw; `good`: those with the verdict 0. */
export type Reduced = { rows: number; good: number }

export type ReducedBatch = {
  /** Decoded events, dead events. */
  good: number
  dead: number
  /** Per record: whether it has a decoded event. */
  decoded: boolean[]
}

/**
 * Calls `reduce` with a relation: the wanted columns and `_verdict` (0: good; other rows are no events: the statement must
 * leave them out of everything but its counts). Null when the statement fails, or when some record may have no decoded event.
 */
export const reduceBatch = async (
  engine: Engine,
  session: Session,
  dataset: Dataset,
  records: BatchRecord[],
  options: ReduceOptions,
  reduce: (source: string) => Promise<Reduced>,
): Promise<ReducedBatch | null> => {
  const lines = scanLines(records)
  const events = living(lines)
  if (events.length === 0) return null
  const reduced = await withFile(engine, lines, events, async (file) => {
    let source = `(${decodeSql(dataset, file, { columns: options.columns, longest: lines.longest })})`
    if (options.positions !== undefined) {
      const numbers = await rowNumbers(session, lines, events, options.positions)
      source = `(SELECT n.*, d.* FROM ${source} d POSITIONAL JOIN (${numbers}) n)`
    }
    try {
      return await reduce(source)
    } catch (error) {
      // An unreadable line, or an expression that cannot bear the values of a row that is dead.
      if (error instanceof WeirError) throw error
      return null
    }
  })
  if (reduced === null || reduced.rows !== events.length) return null
  const misfits = reduced.rows - reduced.good
  const alive = livingOf(lines, records.length)
  // Which rows the misfits are is not known: a record has a decoded event for certain if it has more lines than that.
  if (misfits > 0 && alive.some((n) => n > 0 && n <= misfits)) return null
  return { good: reduced.good, dead: lines.dead.size + misfits, decoded: Array.from(alive, (n) => n > 0) }
}

/** Lines of each record that are not dead on sight. */
const livingOf = (lines: Lines, records: number): Int32Array => {
  const alive = new Int32Array(records)
  for (let n = 0; n < lines.count; n++) alive[lines.record[n]!]!++
  for (const n of lines.dead.keys()) alive[lines.record[n]!]!--
  return alive
}
