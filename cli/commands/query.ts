/** `weir query`: the query API from a terminal. The server answers; this only words the question and lays out the rows. */
import { type Command, Option } from 'commander'
import type { Answer, Filter, OrderBy, Query } from '../../model/query/query.ts'
import { problemError } from '../client.ts'
import { badOption, type CommonOptions, clientOf, listOf, serverOptions, wholeNumber } from '../context.ts'
import { note, out, outJson, table } from '../output.ts'

export type QueryOptions = CommonOptions & {
  measures?: string[]
  by?: string[]
  grain?: string
  zone?: string
  from?: string
  to?: string
  last?: string
  where?: string
  order?: string[]
  limit?: number
  fill?: boolean
  window?: string
  every?: string
  compare?: boolean
  atLeast?: string
  wait?: number
  format?: 'table' | 'json' | 'csv' | 'ndjson'
  explain?: boolean
}

/** `revenue desc`, `-revenue`, `country`. */
const orderOf = (text: string): OrderBy => {
  const found = /^(-?)\s*([^\s]+)(?:\s+(asc|desc))?$/i.exec(text.trim())
  if (!found) throw badOption('--order', 'a column, or a column and desc, for example "revenue desc"', text)
  return { column: found[2]!, ...(found[1] === '-' || found[3]?.toLowerCase() === 'desc' ? { desc: true } : {}) }
}

const filtersOf = async (where: string): Promise<Filter[]> => {
  const [{ openEngine }, { sqlTools }, { parseWhere }] = await Promise.all([
    import('../../engine/engine.ts'),
    import('../../engine/sql-tools.ts'),
    import('../where.ts'),
  ])
  const engine = await openEngine({ memoryLimit: '128MB', folders: [] })
  try {
    return await parseWhere(where, sqlTools(engine).parse)
  } finally {
    await engine.close()
  }
}

/** The question as the API takes it. `--by ''` asks for no dimension at all. */
export const queryOf = async (view: string, o: QueryOptions): Promise<Query> => {
  if (o.last !== undefined && (o.from !== undefined || o.to !== undefined))
    throw badOption('--last', 'either --last, or --from and --to', 'both')
  const range =
    o.last !== undefined
      ? { last: o.last }
      : o.from !== undefined || o.to !== undefined
        ? { from: o.from, to: o.to }
        : undefined
  return {
    view,
    measures: o.measures,
    dimensions: o.by,
    filters: o.where === undefined ? undefined : await filtersOf(o.where),
    timeRange: range,
    grain: o.grain,
    timeZone: o.zone,
    window: o.window,
    every: o.every,
    orderBy: o.order?.map(orderOf),
    limit: o.limit,
    fill: o.fill,
    compareTo: o.compare ? 'previous' : undefined,
    atLeast: o.atLeast,
    waitMs: o.wait,
  }
}

const TEXT = /^(VARCHAR|UUID|JSON|DATE|TIMESTAMP)/

export const answerTable = (answer: Answer): string =>
  table(
    answer.columns.map((c) => ({ name: `${c.approximate ? '~' : ''}${c.name}`, numeric: !TEXT.test(c.type) })),
    answer.rows.map((row) => answer.columns.map((c) => row[c.name])),
  )

const asOfLine = (answer: Answer): string => {
  const { asOf, timing, rows } = answer
  const offsets = (cut: Record<string, string>): string =>
    Object.entries(cut)
      .map(([p, o]) => `${p}:${o}`)
      .join(' ')
  return [
    `${rows.length} row(s)${answer.truncated ? ', truncated: ask for more with --limit' : ''}`,
    `generation ${asOf.generation}, batch below ${offsets(asOf.cut)}, everything below ${offsets(asOf.upper)}`,
    ...(timing ? [`${Math.round(timing.totalMs)} ms, lag ${timing.lagRecords} record(s)`] : []),
  ].join(' · ')
}

const HELP = `
Without --measures, --by and --grain the answer has all the view has. Batch and speed are merged: what was just
accepted is in it, and it equals plain SQL over all records below the printed offsets.

Examples:
  weir query revenue_by_country
  weir query revenue_by_country --measures revenue,order_count --grain '1 hour' --by country
  weir query revenue_by_country --grain '1 day' --zone Europe/Berlin --by '' --last '7 days'
  weir query revenue_by_country --from 2026-11-01 --to 2026-12-01 --grain all --order 'revenue desc' --limit 5
  weir query revenue_by_country --where "country IN ('DE', 'FR') AND NOT (country = 'DE')" --format csv > france.csv
  weir query traffic --grain '1 hour' --by page --compare --last '24 hours'
  weir query traffic --window '15 minutes' --every '5 minutes' --by '' --last '2 hours'
  weir query revenue_by_country --explain

--where takes: = != < <= > >=, IN, NOT IN, BETWEEN, IS NULL, IS NOT NULL, contains(column, 'x'), starts_with(column, 'x'),
AND, OR, NOT.`

export const queryCommand = (program: Command): void => {
  const command = program
    .command('query')
    .argument('<view>', 'view')
    .option('--measures <names>', 'measures, with commas (default: all)', listOf)
    .option('--by <names>', "dimensions, with commas (default: all; '' for none)", listOf)
    .option(
      '--grain <grain>',
      "width of the time buckets, '1 hour'; all: one row over all time (default: the view's own)",
    )
    .option('--zone <zone>', 'time zone of days and longer, Europe/Berlin (default: UTC)')
    .option('--from <time>', 'first bucket, 2026-11-01 or 2026-11-01T08:00:00Z')
    .option('--to <time>', 'end, exclusive')
    .option('--last <length>', "the time up to now, '24 hours'")
    .option('--where <condition>', 'condition over dimensions and measures, as in SQL')
    .option('--order <columns>', "order, with commas: 'revenue desc'", listOf)
    .option('--limit <n>', 'most rows', wholeNumber('--limit', 1))
    .option('--fill', 'rows for empty buckets, too')
    .option('--window <length>', 'hopping windows of this width …')
    .option('--every <length>', '… that start this far apart')
    .option('--compare', 'each measure again for the time right before, as <measure>_previous')
    .option('--at-least <token>', 'wait until the answer holds what was sent under this token')
    .option('--wait <ms>', 'how long to wait for --at-least', wholeNumber('--wait', 0, 60_000))
    .addOption(new Option('--format <format>', 'form of the answer').choices(['table', 'json', 'csv', 'ndjson']))
    .option('--json', 'the same as --format json')
    .option('--explain', 'print the plan in place of the answer')
    .addHelpText('after', HELP)
  serverOptions(command).action(async (view: string, options: QueryOptions) => {
    const client = await clientOf(options)
    const query = await queryOf(view, options)
    const format = options.format ?? (options.json ? 'json' : 'table')
    if (options.explain) return outJson(await client.json('POST', '/v1/query/explain', query, { retry: true }))
    if (format === 'csv' || format === 'ndjson') {
      const answer = await client.send('POST', '/v1/query', {
        body: JSON.stringify(query),
        headers: { 'content-type': 'application/json', accept: format === 'csv' ? 'text/csv' : 'application/x-ndjson' },
        retry: true,
      })
      if (answer.status !== 200) throw problemError(answer, client.url)
      process.stdout.write(answer.body)
      if (answer.headers.get('weir-truncated')) note('truncated: ask for more with --limit')
      return
    }
    const answer = await client.json<Answer>('POST', '/v1/query', query, { retry: true })
    if (format === 'json') return outJson(answer)
    out(answerTable(answer))
    note(asOfLine(answer))
  })
}
