/**
 * The query as a client writes it, and as a plain value after it was checked against a view.
 * Invariant: a `ResolvedQuery` needs no clock, no defaults and no names looked up: equal ones over equal records give equal bytes.
 */

export type Scalar = string | number | boolean | null
export type FilterOp =
  | '='
  | '!='
  | '<'
  | '<='
  | '>'
  | '>='
  | 'in'
  | 'notIn'
  | 'isNull'
  | 'isNotNull'
  | 'contains'
  | 'startsWith'

/** A list of filters is AND. */
export type Filter =
  | { column: string; op: FilterOp; value?: Scalar | Scalar[] }
  | { or: Filter[] }
  | { and: Filter[] }
  | { not: Filter }

export type OrderBy = { column: string; desc?: boolean }

export type Query = {
  view: string
  measures?: string[]
  dimensions?: string[]
  filters?: Filter[]
  /** Bucket starts, `[from, to)`; RFC 3339 times aligned to the grain, or a length of time up to now, resolved outward. */
  timeRange?: { from?: string; to?: string } | { last: string }
  /** `<n> <unit>` or the view's own grain; 'all': one row over all buckets. */
  grain?: string
  /** IANA zone of the asked grain; default UTC. */
  timeZone?: string
  window?: string
  every?: string
  orderBy?: OrderBy[]
  limit?: number
  fill?: boolean
  compareTo?: 'previous'
  /** Token of an ingest answer. */
  atLeast?: string
  waitMs?: number
}

/** An asked grain: `n` of a unit. Units under a day are elapsed time, the others local calendar in the zone. */
export type QueryGrain = {
  unit: 'second' | 'minute' | 'hour' | 'day' | 'week' | 'month' | 'quarter' | 'year'
  n: number
}

export type ResolvedQuery = {
  view: string
  version: string
  measures: string[]
  dimensions: string[]
  /** Null: no bucket in the answer. `name` is the view's bucket column. `hop` (µs): hopping windows. */
  bucket: {
    name: string
    grain: QueryGrain
    timeZone: string
    hop: { windowUs: bigint; everyUs: bigint } | null
  } | null
  /** On starts of the view's buckets, µs since 1970, `[from, to)`; null: unbounded. */
  range: { fromUs: bigint | null; toUs: bigint | null }
  filters: Filter[]
  orderBy: { column: string; desc: boolean }[]
  /** Rows; null: all (audits). */
  limit: number | null
  fill: boolean
  /** The range of the same length right before; measures come again as `<measure>_previous`. */
  previous: { fromUs: bigint; toUs: bigint } | null
}

/** Types as answers name them: SQL types, and COUNT for counts that are safe as JSON numbers. */
export type AnswerColumn = { name: string; type: string; approximate?: boolean }

export type AsOf = {
  view: string
  version: string
  generation: string
  logId: string
  /** Partition → exclusive offset. */
  cut: Record<string, string>
  upper: Record<string, string>
  /** RFC 3339; null: none yet. */
  watermark: string | null
}

export type Answer = {
  columns: AnswerColumn[]
  rows: Record<string, Scalar>[]
  asOf: AsOf
  truncated?: true
  /** The range that `last` was resolved to. */
  timeRange?: { from: string; to: string }
  timing?: { planMs: number; readMs: number; totalMs: number; lagRecords: number; lagMs: number }
}
