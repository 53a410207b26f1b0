/**
 * A compiled view as a plain value: what the compiler (model/compile/) makes of one SELECT, and what every layer prints SQL from.
 * Invariant: all SQL here is printed by the engine from a checked tree; nobody splices user text.
 *
 * SQL fragments speak of two row shapes:
 * - a *decoded* row: the dataset's columns, plus `_partition`, `_offset`, `_index` (BIGINT) and `_append_time` (TIMESTAMPTZ, effective);
 * - a *cell*: `_bucket` (TIMESTAMPTZ; absent without a bucket), one column per dimension, one per state.
 */
import type { ColumnType } from './dataset.ts'

export type StateColumn = {
  /** Unique in the view: `_s0`, `_s1`, … */
  name: string
  type: ColumnType
  /** Aggregate over *inner* rows (decoded columns and dimensions): state of those rows. */
  partial: string
  /** Aggregate over cells: merged state, from the column of the same name. Neutral element for no cells. */
  merge: string
  /** Light states may share one GROUPING SETS query; heavy ones (sketches) run in their own. */
  heavy: boolean
}

export type ViewDimension = { name: string; type: ColumnType /** over decoded columns */; sql: string }

export type ViewMeasure = {
  name: string
  type: ColumnType | 'COUNT'
  approximate: boolean
  /** Names of the states it is presented from; arithmetic over measures names those of all its parts. */
  states: string[]
  /** Scalar expression over merged state columns, of the measure's type; arithmetic has its parts written out. */
  present: string
  /** One-pass aggregate over inner rows: the published definition; null: `present` over reference values (no measure now). */
  reference: string | null
}

export type Grain = {
  /** text as DuckDB prints an INTERVAL */ interval: string /** fixed width; null for months */
  us: bigint | null
  months: number | null
}

export type View = {
  name: string
  dataset: string
  /** 16 hex digits: hash of all that gives the view its meaning (DESIGN §5). */
  version: string
  /** Canonical SQL of the whole view. */
  sql: string
  bucket: {
    name: string
    grain: Grain
    /** over decoded columns, TIMESTAMPTZ */
    sql: string
    /** the event time column; the reference query buckets it in its own way */
    column?: string
  } | null
  dimensions: ViewDimension[]
  states: StateColumn[]
  measures: ViewMeasure[]
  /** Boolean over decoded columns; null: every row. */
  where: string | null
  /** Dataset columns that partial needs (event time and id included where used). */
  columns: string[]
  /** Whether states need `_partition`, `_offset`, `_index`. */
  needsPosition: boolean
  needsAppendTime: boolean
  file?: string
}

/** What `model/` needs of DuckDB's parser; engine/ provides it. */
export type SqlTools = {
  /** `json_serialize_sql` of one statement: JSON text; throws WEIR_MODEL_SQL with the parser's message and position. */
  parse(sql: string): Promise<string>
  /** `json_deserialize_sql`. */
  print(tree: string): Promise<string>
  /** Names and types of a SELECT's columns without running it (DESCRIBE), over an empty table with the given columns. */
  describe(
    sql: string,
    tables: Record<string, { name: string; type: ColumnType }[]>,
  ): Promise<{ name: string; type: ColumnType }[]>
}
