/** Port: what the lake knows about a range of records of one (dataset, partition). */
import type { Position } from '../position.ts'

export type Archived = { position: Position; counted: number; duplicate: number; dead: number }

export type SeenId = {
  /** Text of the event's id, or of the record id. */
  id: string
  effectiveMs: number
}

/**
 * The same for many ids: entry i has the words `[4 i, 4 i + 4)`, MD5 of the event's id or the record id itself as the de-duplication map
 * keys them (`idWords`, `recordWords` in model/decode/seen.ts), and the time `effectiveMs[i]`.
 */
export type SeenHashes = { words: Uint32Array; effectiveMs: Float64Array }

export type SeenIds = SeenId[] | SeenHashes

export type History = {
  /** End of the lake for the partition; null before the first archive commit. */
  archived(dataset: string, partition: number): Promise<Archived | null>
  /** Position at an offset ≤ archived; null when the lake has no record `offset − 1`. */
  positionAt(dataset: string, partition: number, offset: number): Promise<Position | null>
  /** Counters over all records below an offset ≤ archived. */
  countsBelow(
    dataset: string,
    partition: number,
    offset: number,
  ): Promise<{ counted: number; duplicate: number; dead: number; watermarkUs: string | null }>
  /**
   * Last effective append time per event id and per record id, among records below `offset` with effective time > `sinceMs`. No event
   * ids for a dataset without a de-duplication window.
   */
  window(
    dataset: string,
    partition: number,
    offset: number,
    sinceMs: number,
  ): Promise<{ events: SeenIds; records: SeenIds }>
}
