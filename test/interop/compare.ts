/** What DuckDB reads from the files that the product says are live, and whether a foreign reader finds the same. */
import type { Engine, Session } from '../../engine/engine.ts'
import type { DeltaTable } from '../../lake/delta-table.ts'
import { liveFiles } from '../../lake/live-files.ts'
import { ident, literal } from '../../model/ident.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import {
  type Aggregate,
  aggregateSql,
  aggregates,
  type Column,
  canonical,
  type Dialect,
  type Filter,
  filterLabel,
  filters,
  filtersSql,
} from './aggregates.ts'
import type { Reader, Reply } from './reader.ts'

const PARTITION = '_append_date'

/** Expected of a table at one of its versions. `rows` is a table of the session. */
export type Truth = {
  root: string
  version: number
  session: Session
  rows: string
  count: number
  columns: Column[]
  aggregates: Map<string, string | null>
  filters: { filter: Filter; count: string }[]
  close(): void
}

const describe = async (session: Session, from: string): Promise<Column[]> =>
  (await session.rows<{ column_name: string; column_type: string }>(`DESCRIBE SELECT * FROM ${from}`)).map((d) => ({
    name: d.column_name,
    type: d.column_type,
  }))

const byLabel = (list: Aggregate[], row: (string | null)[]): Map<string, string | null> =>
  new Map(list.map((a, i) => [a.label, canonical(row[i] ?? null, a.column)]))

/** Reads the live files one by one, each checked against its size and SHA-256; the date of the folder comes from the log. */
export const truthOf = async (engine: Engine, store: ObjectStore, table: DeltaTable): Promise<Truth> => {
  const snapshot = await table.snapshot()
  if (snapshot === null) throw new Error(`there is no table ${table.root}`)
  const live = liveFiles(table.root, snapshot)
  if (live.length === 0) throw new Error(`the table ${table.root} has no live files`)
  const parts: string[] = []
  for (const file of live) {
    const path = await store.localFile(file.key, file)
    const date = snapshot.metaData.partitionColumns.includes(PARTITION)
      ? `, DATE ${literal(file.appendDate ?? '')} AS ${PARTITION}`
      : ''
    parts.push(`SELECT *${date} FROM read_parquet(${literal(path)}, hive_partitioning = false)`)
  }
  const session = await engine.session()
  try {
    await session.run(`CREATE TEMP TABLE truth AS ${parts.join(' UNION ALL BY NAME ')}`)
    const columns = await describe(session, 'truth')
    const list = aggregates('duckdb', columns)
    const [row] = await session.rows<Record<string, string | null>>(aggregateSql('duckdb', list, 'truth'))
    const found = byLabel(list, Object.values(row!))
    const asked = filters(columns, found)
    const counts = new Map(
      (await session.rows<{ i: number; n: string }>(filtersSql('duckdb', asked, 'truth'))).map((c) => [c.i, c.n]),
    )
    const { root } = table
    const count = Number(found.get('rows'))
    const close = (): void => session.close()
    return {
      root,
      version: snapshot.version,
      session,
      rows: 'truth',
      count,
      columns,
      aggregates: found,
      filters: asked.map((filter, i) => ({ filter, count: counts.get(i)! })),
      close,
    }
  } catch (error) {
    session.close()
    throw error
  }
}

/** Spark plans each filter for a long time: one column of each type, and the date, show the same. */
const filtersFor = (dialect: Dialect, truth: Truth): Truth['filters'] => {
  if (dialect !== 'spark') return truth.filters
  const first = new Map(truth.columns.toReversed().map((c) => [c.type, c.name]))
  return truth.filters.filter(
    ({ filter: { column } }) => column.name === PARTITION || first.get(column.type) === column.name,
  )
}

export type Compared = { differences: string[]; aggregates: number; filters: number }

/** Has a reader read the table at `place`; what differs from the truth, in words. */
export const compare = async (
  truth: Truth,
  reader: Reader,
  place: { table: string; storage?: Record<string, string>; rows: string },
): Promise<Compared> => {
  const list = aggregates(reader.dialect, truth.columns)
  const asked = filtersFor(reader.dialect, truth)
  const queries = [
    aggregateSql(reader.dialect, list, 't'),
    filtersSql(
      reader.dialect,
      asked.map(({ filter }) => filter),
      't',
    ),
  ]
  const out: Compared = { differences: [], aggregates: list.length, filters: asked.length }
  const differ = (what: string, got: unknown, expected: unknown): void => {
    if (got !== expected) out.differences.push(`${what}: ${got}, expected ${expected}`)
  }
  let reply: Reply
  try {
    reply = await reader.read({ ...place, queries })
  } catch (error) {
    out.differences.push(error instanceof Error ? error.message : String(error))
    return out
  }
  differ('version', reply.version, truth.version)
  const [first, counted] = reply.answers
  for (const [label, got] of byLabel(list, first?.[0] ?? [])) differ(label, got, truth.aggregates.get(label))
  const counts = new Map(counted?.map(([i, n]) => [Number(i), n]))
  for (const [i, { filter, count }] of asked.entries())
    differ(`rows where ${filterLabel(filter)}`, counts.get(i), count)
  out.differences.push(...(await differingRows(truth, reply.rows)))
  return out
}

/** All rows both ways, and the types of the columns as they arrived. */
const differingRows = async ({ session, rows, columns }: Truth, path: string): Promise<string[]> => {
  const theirs = `read_parquet(${literal(path)}, hive_partitioning = false)`
  const print = (list: Column[]): string => [...list.map((c) => `${c.name} ${c.type}`)].sort().join(', ')
  const types = print(await describe(session, theirs))
  if (types !== print(columns)) return [`columns: ${types}, expected ${print(columns)}`]
  const names = columns.map((c) => ident(c.name)).join(', ')
  const except = (a: string, b: string): string =>
    `(SELECT count(*) FROM (SELECT ${names} FROM ${a} EXCEPT ALL SELECT ${names} FROM ${b}))`
  const [found] = await session.rows<{ more: string; fewer: string }>(
    `SELECT ${except(theirs, rows)} AS more, ${except(rows, theirs)} AS fewer`,
  )
  const { more, fewer } = found!
  return more === '0' && fewer === '0'
    ? []
    : [`rows: ${more} that are not in the lake, ${fewer} of the lake are absent`]
}
