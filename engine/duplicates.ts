/**
 * Verdicts of de-duplication over a decoded batch, and the same rule as one query over a whole table.
 *
 * The rule (DESIGN §7): dead events take no part. An event is a duplicate iff the previous decoded event with the same id
 * in its partition, itself counted or duplicate, has an effective append time less than the window before it; or iff the
 * previous record (with a decoded event) of the same record id has one less than an hour before it.
 * Ids are told apart by the MD5 of their text: by chance two of 10^12 ids meet with odds of 10^-15, and to make an id that
 * meets a *given* other one is beyond anybody.
 */
import type { Dataset } from '../model/dataset.ts'
import { RECORD_WINDOW_MS, recordWords, type Seen, type SeenChange } from '../model/decode/seen.ts'
import { ident } from '../model/ident.ts'
import type { Session } from './engine.ts'

export type SeenRecord = { recordId: string; effectiveMs: number }

/** Column of the ids that are remembered; null when events have no identity or no window. */
export const idColumn = (dataset: Dataset): string | null =>
  dataset.id !== undefined && dataset.dedupeWindowMs !== undefined ? ident(dataset.id) : null

/**
 * Numbers (`_row`) of the rows that are duplicates, in order, and what the batch adds to the map. `seen` is not changed.
 * `table` has `_row`, `_record` and the id column; `records` are the batch's records by number.
 * Throws WEIR_DECODE_SEEN_FULL (retryable) when the map has no room.
 */
export const findDuplicates = async (
  session: Session,
  dataset: Dataset,
  table: string,
  records: SeenRecord[],
  seen: Seen,
): Promise<{ rows: number[]; change: SeenChange }> => {
  const id = idColumn(dataset)
  const select = `SELECT _row::INTEGER AS r, _record::INTEGER AS o${id === null ? '' : `, md5_number(${id}::VARCHAR) AS h`} FROM ${ident(table)}`
  let [rows, owners, hashes] = await session.numbers(select)
  // A table as decodeBatch leaves it is in order; sorting it costs more than looking.
  if (!ascends(rows as Int32Array)) [rows, owners, hashes] = await session.numbers(`${select} ORDER BY r`)
  const overlay = seen.overlay(rows!.length)
  const duplicates: number[] = []
  let owner = -1
  let ms = 0
  let again = false
  for (let i = 0; i < rows!.length; i++) {
    const o = owners![i] as number
    if (o !== owner) {
      owner = o
      const record = records[o]
      if (record === undefined) throw new Error(`row ${rows![i]} belongs to record ${o} of ${records.length}`)
      ms = record.effectiveMs
      again = overlay.record(recordWords(record.recordId), 0, ms)
    }
    const known = hashes === undefined ? false : overlay.event(hashes as Uint32Array, i * 4, ms)
    if (again || known) duplicates.push(rows![i] as number)
  }
  return { rows: duplicates, change: overlay.change() }
}

/**
 * What a batch whose ids are not remembered adds to the map, from the records with a decoded event, in order; null when one
 * of them repeats. `seen` is not changed.
 */
export const findRepeats = (records: SeenRecord[], seen: Seen): SeenChange | null => {
  const overlay = seen.overlay()
  for (const { recordId, effectiveMs } of records)
    if (overlay.record(recordWords(recordId), 0, effectiveMs)) return null
  return overlay.change()
}

const ascends = (rows: Int32Array): boolean => {
  for (let i = 1; i < rows.length; i++) if (rows[i - 1]! >= rows[i]!) return false
  return true
}

/**
 * The rule as one query: `_partition, _offset, _index, _duplicate` for every row of a table of decoded events with
 * `_partition`, `_offset`, `_index`, `_append_time` (effective), `_record_id` and the id column. For references and tests;
 * it shares nothing with the map.
 */
export const duplicatesSql = (dataset: Dataset, table: string): string => {
  const id = idColumn(dataset)
  const event =
    id === null
      ? 'false'
      : `coalesce(_append_time - lag(_append_time) OVER (PARTITION BY _partition, ${id} ORDER BY _offset, _index) < to_milliseconds(${dataset.dedupeWindowMs}), false)`
  // Effective times never go back, so the greatest of the earlier records is the previous one.
  const record = `coalesce(_append_time - max(_append_time) OVER (PARTITION BY _partition, _record_id ORDER BY _offset RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) < to_milliseconds(${RECORD_WINDOW_MS}), false)`
  return `SELECT _partition, _offset, _index, (${event} OR ${record}) AS _duplicate FROM ${table}`
}
