/** A dataset: a named stream with a schema; what `datasets/*.yaml` becomes after parsing. */

export type ColumnType = string // canonical DuckDB type text: VARCHAR, BIGINT, DECIMAL(18,2), TIMESTAMPTZ, …

export type Column = {
  name: string
  type: ColumnType
  /** For TIMESTAMPTZ given as epoch numbers. */
  unit?: 's' | 'ms' | 'us'
  required: boolean
  description?: string
}

export type Dataset = {
  name: string
  columns: Column[]
  /** Column with the event time; TIMESTAMPTZ; required in every event. */
  eventTime: string
  /** Allowed event times, microseconds since 1970, `[from, to)`. */
  eventTimeRangeUs: { from: bigint; to: bigint }
  /** Identity column; NULL is dead. Undefined: no event de-duplication. */
  id?: string
  /** De-duplication window by effective append time; undefined: off. */
  dedupeWindowMs?: number
  /** Partition key column. */
  key?: string
  extra: 'keep' | 'reject'
  /** Number of log partitions when the log is created. */
  partitions: number
  file?: string
}
