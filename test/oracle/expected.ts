/**
 * What must be answered: the oracle's own account of the log. It knows each event's typed values from the start, finds
 * duplicates by itself, and asks plain DuckDB. Nothing here is shared with decoding, de-duplication, partial, merge, present.
 */
import type { Session } from '../../engine/engine.ts'
import { referenceSql } from '../../model/compile/reference.ts'
import type { Dataset } from '../../model/dataset.ts'
import type { AnswerColumn, ResolvedQuery, Scalar } from '../../model/query/query.ts'
import type { View } from '../../model/view.ts'
import type { OracleEvent } from './project.ts'

const RECORD_WINDOW_MS = 3_600_000

export type Counts = { events: number; counted: number; duplicate: number; dead: number }

export type Expected = {
  /** Takes in a record that the log has acknowledged, in order of offsets. */
  append(partition: number, recordId: string, appendTimeMs: number, events: OracleEvent[]): Promise<void>
  /** 0 until there is a record. */
  end(partition: number): number
  /** The first record has this offset: what was before it is gone. Before any append. */
  begin(partition: number, offset: number): void
  /** Cumulative counts of the records below an offset. */
  counts(partition: number, offset: number): Counts
  /** Canonical rows of the reference query over the counted events below `upper`. */
  rows(view: View, query: ResolvedQuery, upper: Record<string, string>): Promise<{ rows: string[]; sql: string }>
}

/** One text for a value by its column's type, the same for what DuckDB gives and what an answer prints. */
const canonical = (type: string, value: Scalar): string => {
  if (value === null) return 'null'
  if (type === 'TIMESTAMPTZ' || type === 'TIMESTAMP WITH TIME ZONE') {
    const found = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00(:00)?)$/.exec(String(value))
    if (!found) throw new Error(`not a UTC time: ${String(value)}`)
    return `${found[1]}T${found[2]}${(found[3] ?? '').replace(/\.?0+$/, '')}Z`
  }
  if (type === 'DOUBLE') return typeof value === 'number' ? String(Object.is(value, -0) ? 0 : value) : String(value)
  return JSON.stringify(typeof value === 'number' ? String(value) : value)
}

/** Rows as one text each; names and order of columns count. */
export const canonicalRows = (columns: AnswerColumn[], rows: Record<string, Scalar>[]): string[] =>
  rows.map((row) => {
    const extra = Object.keys(row).filter((name) => !columns.some((c) => c.name === name))
    if (extra.length > 0) throw new Error(`a row has columns that were not announced: ${extra.join(', ')}`)
    return columns.map((c) => `${c.name}=${canonical(c.type, row[c.name] ?? null)}`).join(' ')
  })

const describe = async (session: Session, sql: string): Promise<AnswerColumn[]> =>
  (await session.rows<{ column_name: string; column_type: string }>(`DESCRIBE ${sql}`)).map((d) => ({
    name: d.column_name,
    type: d.column_type,
  }))

const missing = (partition: number, offset: number): never => {
  throw new Error(`offset ${offset} of partition ${partition} is beyond the log`)
}

export const openExpected = async (session: Session, dataset: Dataset, table: string): Promise<Expected> => {
  const columns = dataset.columns.map((c) => c.name)
  await session.run(
    `CREATE OR REPLACE TEMP TABLE ${table} (${dataset.columns.map((c) => `${c.name} ${c.type}`).join(', ')},
      _partition BIGINT, _offset BIGINT, _index BIGINT, _append_time TIMESTAMPTZ)`,
  )
  // A column's type is the same in every query of a version, and rows below an upper stay what they are: each is asked once.
  const types = new Map<string, Map<string, string>>()
  const known = new Map<string, string[]>()
  type Partition = {
    first: number
    prefix: Counts[]
    effectiveMs: number
    ids: Map<string, number>
    records: Map<string, number>
  }
  const partitions = new Map<number, Partition>()
  const partitionOf = (partition: number): Partition => {
    const known = partitions.get(partition)
    if (known) return known
    const zero = { events: 0, counted: 0, duplicate: 0, dead: 0 }
    const fresh = { first: 0, prefix: [zero], effectiveMs: 0, ids: new Map(), records: new Map() }
    partitions.set(partition, fresh)
    return fresh
  }

  return {
    append: async (partition, recordId, appendTimeMs, events) => {
      const p = partitionOf(partition)
      const timeMs = Math.max(p.effectiveMs, appendTimeMs)
      p.effectiveMs = timeMs
      const before = p.records.get(recordId)
      const repeated = before !== undefined && timeMs - before < RECORD_WINDOW_MS
      const counts = { ...p.prefix.at(-1)! }
      const offset = p.first + p.prefix.length - 1
      const values: string[] = []
      for (const [index, { row }] of events.entries()) {
        counts.events++
        if (row === null) {
          counts.dead++
          continue
        }
        p.records.set(recordId, timeMs)
        let duplicate = repeated
        if (dataset.id !== undefined && dataset.dedupeWindowMs !== undefined) {
          const last = p.ids.get(row.id!)
          if (last !== undefined && timeMs - last < dataset.dedupeWindowMs) duplicate = true
          p.ids.set(row.id!, timeMs)
        }
        if (duplicate) counts.duplicate++
        else {
          counts.counted++
          const own = columns.map((name) => row[name] ?? 'NULL')
          values.push(`(${[...own, partition, offset, index, `make_timestamptz(${timeMs}000)`].join(', ')})`)
        }
      }
      p.prefix.push(counts)
      if (values.length > 0) await session.run(`INSERT INTO ${table} VALUES ${values.join(', ')}`)
    },
    end: (partition) => {
      const { first, prefix } = partitionOf(partition)
      return prefix.length === 1 ? 0 : first + prefix.length - 1
    },
    begin: (partition, offset) => {
      partitionOf(partition).first = offset
    },
    counts: (partition, offset) => {
      const { first, prefix } = partitionOf(partition)
      return prefix[Math.max(0, offset - first)] ?? missing(partition, offset)
    },
    rows: async (view, query, upper) => {
      const below = Object.entries(upper).map(([p, offset]) => `(_partition = ${p} AND _offset < ${offset})`)
      const sql = referenceSql(view, query, `(SELECT * FROM ${table} WHERE ${below.join(' OR ') || 'false'})`)
      const cached = known.get(sql)
      if (cached !== undefined) return { rows: cached, sql }
      const found = await session.rows<Record<string, Scalar>>(sql)
      const columns = types.get(view.version) ?? new Map<string, string>()
      types.set(view.version, columns)
      const names = Object.keys(found[0] ?? {})
      if (names.some((name) => !columns.has(name)))
        for (const { name, type } of await describe(session, sql)) columns.set(name, type)
      const rows = canonicalRows(
        names.map((name) => ({ name, type: columns.get(name)! })),
        found,
      )
      known.set(sql, rows)
      return { rows, sql }
    },
  }
}
