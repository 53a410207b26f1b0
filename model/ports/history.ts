/** Port: what the lake knows about a range of records of one (dataset, partition). */
import type { Position } from '../position.ts'

export type Archived = { position: Position; counted: number; duplicate: number; dead: number }

export type SeenId = {
  /** Text of the event's id, or of the record id. */
  id: string
  effectiveMs: number
}

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
  /** Last effective append time per event id and per record id, among records below `offset` with effective time > `sinceMs`. */
  window(
    dataset: string,
    partition: number,
    offset: number,
    sinceMs: number,
  ): Promise<{ events: SeenId[]; records: SeenId[] }>
}
