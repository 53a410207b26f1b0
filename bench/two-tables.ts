/**
 * Bare DuckDB over the two tables of a view: cells of the published parts, cells of the speed state, copied from where the
 * server keeps them. The queries are written by hand. Invariant: a copy is of one header and one pointer.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cellsOf } from '../batch-layer/parts.ts'
import { type Json, openEngine } from '../engine/engine.ts'
import { openFolderStore } from '../lake/folder-object-store.ts'
import { openPublications } from '../lake/publications.ts'
import { cellColumns, unpackSql } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import { openLmdbSpeedStore } from '../speed-layer/lmdb-speed-store.ts'
import { compileProject } from './project.ts'
import { DATASET } from './world.ts'

type Asked = { name: string; query: Record<string, unknown>; sql: string; limit: number }

/** `sql` is over `<view>_cells`, whose states bear the names of their measures; both get a LIMIT, see `limited`. */
export const BARE_QUERIES: Asked[] = [
  {
    name: 'revenue by day of all 30 days',
    limit: 1000,
    query: { view: 'by_minute', grain: '1 day', measures: ['event_count', 'revenue', 'greatest'] },
    sql: `SELECT make_timestamptz(epoch_us(_bucket) // 86400000000 * 86400000000) AS minute, sum(event_count) AS event_count, sum(revenue) AS revenue, max(greatest) AS greatest
      FROM by_minute_cells GROUP BY 1 ORDER BY 1`,
  },
  {
    name: 'countries by revenue over 30 days',
    limit: 1000,
    query: {
      view: 'by_type_country',
      grain: 'all',
      dimensions: ['country'],
      orderBy: [{ column: 'revenue', desc: true }],
    },
    sql: `SELECT country, sum(event_count) AS event_count, sum(revenue) AS revenue FROM by_type_country_cells
      GROUP BY 1 ORDER BY revenue DESC, country`,
  },
  {
    name: 'orders by hour and country of the last week',
    limit: 10_000,
    query: {
      view: 'by_type_country',
      dimensions: ['country'],
      filters: [{ column: 'type', op: '=', value: 'order' }],
      timeRange: { from: '2025-01-29T00:00:00Z', to: '2025-02-06T00:00:00Z' },
    },
    sql: `SELECT _bucket AS hour, country, sum(event_count) AS event_count, sum(revenue) AS revenue FROM by_type_country_cells
      WHERE type = 'order' AND _bucket >= TIMESTAMPTZ '2025-01-29T00:00:00Z' AND _bucket < TIMESTAMPTZ '2025-02-06T00:00:00Z'
      GROUP BY 1, 2 ORDER BY 1, 2`,
  },
  {
    name: 'top ten pages over 30 days',
    limit: 10,
    query: {
      view: 'by_page',
      grain: 'all',
      measures: ['event_count'],
      orderBy: [{ column: 'event_count', desc: true }],
    },
    sql: `SELECT page, sum(event_count) AS event_count FROM by_page_cells GROUP BY 1 ORDER BY event_count DESC, page`,
  },
  {
    name: 'minutes of the last two days',
    limit: 10_000,
    query: {
      view: 'by_minute',
      timeRange: { from: '2025-02-04T00:00:00Z', to: '2025-02-06T00:00:00Z' },
      measures: ['event_count', 'item_count'],
    },
    sql: `SELECT _bucket AS minute, sum(event_count) AS event_count, sum(item_count) AS item_count FROM by_minute_cells
      WHERE _bucket >= TIMESTAMPTZ '2025-02-04T00:00:00Z' AND _bucket < TIMESTAMPTZ '2025-02-06T00:00:00Z'
      GROUP BY 1 ORDER BY 1`,
  },
]

/** With another limit for each round: answers that the server keeps in memory are not what is measured. */
export const limited = (
  { query, sql, limit }: Asked,
  round: number,
): { query: Record<string, unknown>; sql: string } => ({
  query: { ...query, limit: limit + round },
  sql: `${sql} LIMIT ${limit + round}`,
})

export type Bare = {
  /** Copies the speed state anew. */
  refresh(): Promise<void>
  rows(sql: string): Promise<Record<string, Json>[]>
  close(): Promise<void>
}

export const openBare = async (data: string): Promise<Bare> => {
  const engine = await openEngine({ memoryLimit: '1GB', threads: 1 })
  const { views } = await compileProject('month', engine)
  const store = await openFolderStore(join(data, 'lake'))
  const publications = openPublications(store)
  const speed = await openLmdbSpeedStore({ folder: join(data, 'speed') })
  const session = await engine.session()
  /** Keys, and each state once under the name of the first measure that is it. */
  const named = (view: (typeof views)[number], relation: string): string => {
    const columns = cellColumns(view).map((c) => {
      const measure = view.measures.find((m) => m.states.length === 1 && m.states[0] === c.name)
      return `${ident(c.name)}${measure ? ` AS ${ident(measure.name)}` : ''}`
    })
    return `SELECT ${columns.join(', ')} FROM ${relation}`
  }
  for (const view of views) {
    const current = await publications.current(view.name, view.version)
    if (current === null || current === 'dropped') throw new Error(`${view.name} is not published`)
    const cells = await cellsOf(store, view, current.pointer.files)
    await session.run(`CREATE TABLE ${view.name}_batch AS ${named(view, cells)}`)
    await session.run(`CREATE TABLE ${view.name}_speed AS SELECT * FROM ${view.name}_batch WHERE false`)
    await session.run(
      `CREATE VIEW ${view.name}_cells AS SELECT * FROM ${view.name}_batch UNION ALL SELECT * FROM ${view.name}_speed`,
    )
  }
  const refresh = async (): Promise<void> => {
    const key = { dataset: DATASET, partition: 0 }
    const header = await speed.header(key)
    for (const view of views) {
      const file = join(engine.scratchDir, `${view.name}.ndjson`)
      const blocks = []
      for (const epoch of header?.views[view.version]?.epochs ?? [])
        blocks.push(...(await speed.blocks(key, view.version, epoch.from)))
      await writeFile(file, Buffer.concat(blocks.map((b) => b.bytes)))
      await session.run(`CREATE OR REPLACE TABLE ${view.name}_speed AS ${named(view, `(${unpackSql(view, file)})`)}`)
      await rm(file)
    }
  }
  return {
    refresh,
    rows: (sql) => session.rows(sql),
    close: async () => {
      session.close()
      await speed.close()
      await store.close()
      await engine.close()
    },
  }
}

const TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d/

const textOf = (value: unknown): string => {
  const text = String(value)
  return TIME.test(text) ? new Date(text.replace(' ', 'T').replace(/\+00$/, 'Z')).toISOString() : text
}

/** Null when two answers have the same rows in the same order; else what differs first. */
export const sameRows = (a: Record<string, unknown>[], b: Record<string, unknown>[]): string | null => {
  if (a.length !== b.length) return `${a.length} rows against ${b.length}`
  for (const [i, row] of a.entries()) {
    const other = b[i]!
    for (const key of new Set([...Object.keys(row), ...Object.keys(other)]))
      if (textOf(row[key]) !== textOf(other[key]))
        return `row ${i}: ${JSON.stringify(row)} against ${JSON.stringify(other)}`
  }
  return null
}
