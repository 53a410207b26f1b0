/**
 * The projects that are measured: one dataset of nine columns, and views. Invariant: a view's SQL is plain SQL over a table
 * `events`, so that bare DuckDB runs the very same text.
 */
import type { Engine } from '../engine/engine.ts'
import { sqlTools } from '../engine/sql-tools.ts'
import { type Project, type ProjectFile, parseProject } from '../model/project.ts'

export type ProjectName = 'stream' | 'stream-deduped' | 'year' | 'month'

const dataset = (dedupe: boolean): string => `dataset: events
eventTime: ts
id: id
${dedupe ? 'dedupe: { window: 1 hour }\n' : ''}columns:
  id: VARCHAR
  ts: TIMESTAMPTZ
  type: VARCHAR
  user: VARCHAR
  country: VARCHAR
  page: VARCHAR
  amount: DECIMAL(18,2)
  items: INTEGER
  ref: VARCHAR
`
const bucket = (grain: string): string => `time_bucket(INTERVAL '1 ${grain}', ts) AS ${grain}`
const view = (grain: string, dimensions: string[], measures: string): string =>
  `SELECT ${[bucket(grain), ...dimensions].join(', ')}, ${measures} FROM events GROUP BY ALL\n`

const SMALL = 'count(*) AS event_count, sum(amount) AS revenue'
const WIDE = `${SMALL}, sum(items) AS item_count, min(amount) AS least, max(amount) AS greatest`

export const VIEWS: Record<ProjectName, Record<string, string>> = {
  stream: {
    by_type_country: view('minute', ['type', 'country'], SMALL),
    by_page: view('minute', ['page'], SMALL),
    by_minute: view('minute', [], WIDE),
  },
  'stream-deduped': {
    by_type_country: view('minute', ['type', 'country'], SMALL),
    by_page: view('minute', ['page'], SMALL),
    by_minute: view('minute', [], WIDE),
  },
  year: { by_hour_country: view('hour', ['country'], WIDE) },
  month: {
    by_type_country: view('hour', ['type', 'country'], SMALL),
    by_page: view('hour', ['page'], SMALL),
    by_minute: view('minute', [], WIDE),
  },
}

/** All three views of `stream` over a relation in one pass, as anybody would write it by hand. */
export const groupingSetsSql = (source: string): string =>
  `SELECT grouping_id(type, country, page) AS g, minute, type, country, page, ${WIDE}
   FROM (SELECT ${bucket('minute')}, type, country, page, amount, items FROM ${source})
   GROUP BY GROUPING SETS ((minute, type, country), (minute, page), (minute))`

/** The views of `stream` as relations over the result of `groupingSetsSql`; merges it when it came in pieces. */
export const viewOfSets = (name: string, table: string): string => {
  const of = (g: number, dimensions: string[], measures: string): string =>
    `(SELECT ${['minute', ...dimensions].join(', ')}, ${measures} FROM ${table} WHERE g = ${g} GROUP BY ALL)`
  const small = 'sum(event_count)::BIGINT AS event_count, sum(revenue) AS revenue'
  if (name === 'by_type_country') return of(1, ['type', 'country'], small)
  if (name === 'by_page') return of(6, ['page'], small)
  return of(7, [], `${small}, sum(item_count)::HUGEINT AS item_count, min(least) AS least, max(greatest) AS greatest`)
}

/** weir.yaml of the servers that are measured. */
export const settingsOf = (extra = '', extend = 'every 1 minute'): string =>
  `name: bench\nserver: { port: 0 }\nschedules: { extend: "${extend}", recompute: "off", compact: "off" }\n${extra}`

export const projectFiles = (name: ProjectName, settings = settingsOf()): ProjectFile[] => [
  { path: 'weir.yaml', text: settings },
  { path: 'datasets/events.yaml', text: dataset(name === 'stream-deduped') },
  ...Object.entries(VIEWS[name]).map(([view, text]) => ({ path: `views/${view}.sql`, text })),
]

export const compileProject = (name: ProjectName, engine: Engine, settings?: string): Promise<Project> =>
  parseProject(projectFiles(name, settings), sqlTools(engine), {})
