/**
 * Port: the event log. One append-only sequence of records per (dataset, partition).
 *
 * An implementation must promise:
 * - `append` resolves only when every record is durable (fsynced); concurrent appends may share one commit;
 * - offsets count records, from 0, without reuse inside one `logId`;
 * - a fingerprint identifies the append: equal bytes appended again have another one;
 * - `read` proves record `from − 1` in the same snapshot that brings the records (rule 5), every time.
 */
import type { Position } from '../position.ts'

export type NewRecord = {
  /** 32 hex digits: hash of (dataset, partition, idempotency key or a fresh one, chunk number, bytes). */
  recordId: string
  /** NDJSON: exactly one non-blank line per event, each ended by \n. */
  bytes: Uint8Array
  /** Number of events (lines) in `bytes`. */
  events: number
}

export type LogRecord = NewRecord & {
  offset: number
  /** Raw append time, ms. Windows use the effective time: the running maximum (see Position.effectiveMs). */
  appendTimeMs: number
  fingerprint: string
}

export type ReadLimits = {
  maxBytes: number
  maxRecords?: number /** Wait this long for a record when there is none. */
  waitMs?: number
  signal?: AbortSignal
}

export type ReadResult =
  /** `records` may be empty (nothing new); `to` is the position after the last one (holes skipped), `from` when empty. */
  | { kind: 'records'; records: LogRecord[]; to: Position; logEndOffset: number }
  | { kind: 'below-start'; startOffset: number }
  | { kind: 'beyond-end'; endOffset: number }
  /** Another log id, or record `from − 1` has another fingerprint. */
  | { kind: 'replaced' }

/**
 * Where a log that others had written to began when a dataset was put on it: the first offset of each partition whose earlier
 * records were gone by then. Below it is a hole, like any other; in another log than `logId` it means nothing.
 */
export type Origin = { logId: string; offsets: Record<string, number> }

export type LogRange = {
  logId: string
  startOffset: number
  endOffset: number
  /** Below it no record ever was the dataset's (see Origin); absent: 0. */
  originOffset?: number
  /** Events in all records ever appended, trimmed ones included, for logs that count them. */
  events?: number
}

export type EventLog = {
  /** Creates the dataset's partitions if missing; never changes existing ones. */
  create(dataset: string, partitions: number): Promise<void>
  partitions(dataset: string): Promise<number[]>
  range(dataset: string, partition: number): Promise<LogRange>
  /** Position with `offset`, from the log's own records; null below the log's start or beyond its end (offset 0 of an untrimmed log is genesis). */
  positionAt(dataset: string, partition: number, offset: number): Promise<Position | null>
  /** Appends in order; resolves, when durable, to the position after the last record; then `bytes` are the caller's again. Throws retryable WEIR_LOG_* on overload, a full disk or a clock behind. */
  append(dataset: string, partition: number, records: NewRecord[]): Promise<Position>
  read(dataset: string, partition: number, from: Position, limits: ReadLimits): Promise<ReadResult>
  /** Where the log begins now, for a dataset that is defined on it now; null: at its beginning. Absent: nobody else writes to such a log. */
  origin?(dataset: string): Promise<Origin | null>
  /** Removes whole blocks of records below `offset`; may keep more, never less. */
  trim(dataset: string, partition: number, offset: number): Promise<void>
  close(): Promise<void>
}
