/**
 * Merged queries over 30 days of history while events come in, against bare DuckDB that answers from the same two tables:
 * the cells of the published parts and the cells of the speed state. Both run under the same load, query by query in turn.
 * Invariant: after the load both give the same rows for every query.
 */
import { constants } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { type Case, type Env, figuresOf, type Measured, median, percentile, type Row } from '../harness/case.ts'
import { startLoad } from '../load.ts'
import { monthOf, paths, preparedData } from '../prepare.ts'
import { type Client, openClient, startServer, until } from '../server.ts'
import { BARE_QUERIES, type Bare, limited, openBare, sameRows } from '../two-tables.ts'

const RATE = 5_000
const BATCH = 500

const ask = async (client: Client, query: object): Promise<{ rows: Record<string, unknown>[]; totalMs: number }> => {
  const { status, body } = await client.post('/v1/query', JSON.stringify(query))
  if (status !== 200) throw new Error(`a query was answered ${status} ${body.toString('utf8').slice(0, 1_000)}`)
  const answer = JSON.parse(body.toString('utf8')) as { rows: Record<string, unknown>[]; timing: { totalMs: number } }
  return { rows: answer.rows, totalMs: answer.timing.totalMs }
}

const check = async (client: Client, bare: Bare, token: string): Promise<void> => {
  for (const asked of BARE_QUERIES) {
    const { query, sql } = limited(asked, 0)
    const own = await ask(client, { ...query, atLeast: token, waitMs: 20_000 })
    await bare.refresh()
    const theirs = await bare.rows(sql)
    const difference = sameRows(own.rows, theirs)
    if (difference !== null || own.rows.length === 0) throw new Error(`${asked.name}: ${difference ?? 'no rows'}`)
  }
}

const run = async (env: Env): Promise<Measured> => {
  const data = join(env.scratch, 'data')
  await cp(paths(env.shared, env.sharedMemory).month, data, { recursive: true, mode: constants.COPYFILE_FICLONE })
  const server = await startServer({ scratch: env.scratch, data, project: 'month', extend: 'off' })
  const client = openClient(server.url, 32)
  const bare = await openBare(data)
  try {
    const { events, startMs, stepMs } = monthOf(env.sizes.month)
    let token = ''
    const load = startLoad({
      client,
      rate: RATE,
      batch: BATCH,
      events: { events: 10_000_000, first: events, startMs: startMs + events * stepMs, stepMs: 1_000 / RATE },
      answered: (_beganMs, got) => {
        token = got
      },
    })
    const [own, inside, theirs]: number[][] = [[], [], []]
    try {
      await until('events come in', async () => load.sent() >= RATE)
      const begin = performance.now()
      for (let round = 0; performance.now() - begin < env.sizes.seconds * 1_000; round++) {
        await bare.refresh()
        for (const [i, asked] of BARE_QUERIES.entries()) {
          const { query, sql } = limited(asked, round)
          const server = async (): Promise<void> => {
            const from = performance.now()
            const { totalMs } = await ask(client, query)
            own!.push(performance.now() - from)
            inside!.push(totalMs)
          }
          const duckdb = async (): Promise<void> => {
            const from = performance.now()
            await bare.rows(sql)
            theirs!.push(performance.now() - from)
          }
          // Who comes first alternates; the first round warms up.
          for (const one of (round + i) % 2 === 0 ? [server, duckdb] : [duckdb, server]) await one()
        }
        if (round === 0) for (const list of [own, inside, theirs]) list!.length = 0
      }
    } finally {
      await load.stop()
    }
    await check(client, bare, token)
    const both = (name: string, list: number[]): Record<string, number> => ({
      [`${name}P50`]: percentile(list, 0.5),
      [`${name}P99`]: percentile(list, 0.99),
    })
    return {
      figures: {
        queries: own!.length,
        ...both('own', own!),
        ...both('inside', inside!),
        ...both('bare', theirs!),
        lateMs: load.lateMs(),
      },
    }
  } finally {
    await bare.close()
    client.close()
    await server.stop()
  }
}

export const query: Case = {
  name: 'query',
  about: 'merged queries over 30 days of history, at 5,000 events a second coming in',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    await preparedData(paths(shared, sharedMemory).month, 'month', monthOf(sizes.month), true)
  },
  variants: { both: run },
  report: (results, sizes) => {
    const row = (what: string, figure: string): Row => {
      const all = figuresOf(results, 'both', figure)
      return { what, best: `${Math.min(...all).toFixed(1)} ms`, median: `${median(all).toFixed(1)} ms` }
    }
    const ratio = (q: 'P50' | 'P99'): Row => {
      const bare = figuresOf(results, 'both', `bare${q}`)
      const all = figuresOf(results, 'both', `own${q}`).map((own, i) => own / bare[i]!)
      const text = (n: number): string => `${n.toFixed(2)} ×`
      return {
        what: `merged query over HTTP / bare DuckDB, ${q.toLowerCase()}`,
        best: text(Math.min(...all)),
        median: text(median(all)),
        target: '≤ 1.5 ×',
        met: median(all) <= 1.5,
      }
    }
    return {
      rows: [
        row('merged query over HTTP, p50', 'ownP50'),
        row('merged query over HTTP, p99', 'ownP99'),
        row('… of it inside the server, p50', 'insideP50'),
        row('… of it inside the server, p99', 'insideP99'),
        row('bare DuckDB, p50', 'bareP50'),
        row('bare DuckDB, p99', 'bareP99'),
        ratio('P50'),
        ratio('P99'),
      ],
      notes: [
        `${sizes.month.toLocaleString('en')} events in 30 days; ${BARE_QUERIES.map((q) => q.name).join('; ')}.`,
        'No answer comes from the server’s memory of answers. Client, bare DuckDB and server share the machine’s cores.',
      ],
    }
  },
}
