/**
 * `kill -9` of a started server at random moments under ingest load.
 * What must hold: every acknowledged event is in the answers (a token and `atLeast` make sure that they are looked at),
 * no event is counted twice however often its request is retried, and in the log accepted = counted + duplicate + dead.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Random, random } from '../../cli/random.ts'
import { type Server, startServer, until } from '../support/server.ts'

const PROJECT: Record<string, string> = {
  'weir.yaml': `name: chaos
schedules: { extend: every 1 seconds, recompute: "off" }
archive: { maxAgeMs: 300 }
batch: { retireAfterMs: 500 }
`,
  'datasets/facts.yaml': `dataset: facts
eventTime: ts
id: id
dedupe: { window: 1 hour }
partitions: 2
columns:
  id: VARCHAR
  ts: TIMESTAMPTZ
  k: VARCHAR
  amount: DECIMAL(18,2)
`,
  'views/by_minute.sql': `SELECT time_bucket(INTERVAL '1 minute', ts) AS minute, k, count(*) AS n, sum(amount) AS amount_total
FROM facts GROUP BY ALL`,
  'views/totals.sql': 'SELECT count(*) AS n, approx_count_distinct(id) AS ids FROM facts',
}

type Request = { key: string; body: string; ids: string[]; tries: number }
type Total = { n: number; upper: Record<string, string> }

export type ChaosResult = { rounds: number; sent: number; acknowledged: number; retried: number; recomputes: number }

const request = (r: Random, round: number, n: number): Request => {
  const ids = Array.from({ length: r.int(1, 60) }, (_, i) => `r${round}-${n}-${i}`)
  const lines = ids.map((id) => {
    const ts = new Date(Date.now() - r.int(0, 3_600_000)).toISOString()
    return JSON.stringify({ id, ts, k: r.pick(['a', 'b', 'é', null]), amount: `${r.int(0, 1_000)}.25` })
  })
  // Some events come twice inside one request.
  if (r.chance(0.3)) lines.push(lines[0]!)
  return { key: `key-${round}-${n}`, body: `${lines.join('\n')}\n`, ids, tries: 0 }
}

const post = async (url: string, path: string, body: string, headers: Record<string, string> = {}) => {
  const response = await fetch(url + path, { method: 'POST', body, headers, signal: AbortSignal.timeout(30_000) })
  return { status: response.status, json: (await response.json()) as Record<string, unknown> }
}

/** Counts of a view, at least as new as the token. */
const total = async (url: string, view: string, token: string | null): Promise<Total> =>
  until(`an answer of ${view}`, 60_000, async () => {
    const query = { view, measures: ['n'], dimensions: [], grain: view === 'by_minute' ? 'all' : undefined }
    const { status, json } = await post(
      url,
      '/v1/query',
      JSON.stringify({ ...query, ...(token === null ? {} : { atLeast: token, waitMs: 5_000 }) }),
      { 'content-type': 'application/json' },
    )
    if (status === 503 || status === 504) return undefined
    if (status !== 200) throw new Error(`query of ${view}: ${status} ${JSON.stringify(json)}`)
    const answer = json as { rows: { n: number }[]; asOf: { upper: Record<string, string> } }
    return { n: answer.rows[0]!.n, upper: answer.asOf.upper }
  })

export const runChaos = async (options: {
  rounds: number
  seed: number
  log?: (line: string) => void
}): Promise<ChaosResult> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-chaos-'))
  const project = join(folder, 'project')
  for (const [path, text] of Object.entries(PROJECT)) {
    await mkdir(join(project, path, '..'), { recursive: true })
    await writeFile(join(project, path), text)
  }
  const r = random(options.seed)
  const sent = new Set<string>()
  const acknowledged = new Set<string>()
  let unanswered: Request[] = []
  let token: string | null = null
  let retried = 0
  let recomputes = 0
  let server: Server | undefined

  const send = async (url: string, one: Request): Promise<boolean> => {
    if (one.tries++ > 0) retried++
    for (const id of one.ids) sent.add(id)
    try {
      const { status, json } = await post(url, '/v1/events/facts', one.body, {
        'content-type': 'application/x-ndjson',
        'idempotency-key': one.key,
      })
      if (status === 429 || status === 503) return false
      if (status !== 200 || json.rejectedCount !== 0) throw new Error(`ingest: ${status} ${JSON.stringify(json)}`)
      for (const id of one.ids) acknowledged.add(id)
      token = String(json.token)
      return true
    } catch (error) {
      // A killed server: the outcome is unknown, the same request goes again.
      if (error instanceof TypeError || (error as Error).name === 'TimeoutError') return false
      throw error
    }
  }

  const check = async (url: string): Promise<void> => {
    for (const view of ['by_minute', 'totals']) {
      const least = acknowledged.size
      const { n } = await total(url, view, token)
      if (n < least) throw new Error(`${view} counts ${n} events, but ${least} were acknowledged before: some are lost`)
      if (n > sent.size)
        throw new Error(`${view} counts ${n} events, but only ${sent.size} were sent: some count twice`)
    }
  }

  try {
    for (let round = 0; round < options.rounds; round++) {
      const at = performance.now()
      server = await startServer({ project, data: join(folder, 'data') })
      const { url } = server
      await check(url)
      if (r.chance(0.3)) {
        const { status } = await post(url, '/v1/views/by_minute/batch/recompute', '{}', {
          'content-type': 'application/json',
        })
        if (status === 202) recomputes++
      }
      const again = unanswered
      unanswered = []
      const goal = acknowledged.size + r.int(1, 1_500)
      let n = 0
      let stop = false
      const loaders = Array.from({ length: 4 }, async () => {
        while (!stop) {
          const one = again.pop() ?? request(r, round, n++)
          if (!(await send(url, one))) unanswered.push(one)
        }
      })
      await until('acknowledged events', 60_000, async () => (acknowledged.size >= goal ? true : undefined))
      await server.kill()
      stop = true
      await Promise.all(loaders)
      unanswered.push(...again)
      options.log?.(
        `round ${round + 1}: ${acknowledged.size} acknowledged, ${unanswered.length} unanswered, ${Math.round(performance.now() - at)} ms`,
      )
    }
    server = await startServer({ project, data: join(folder, 'data') })
    const { url } = server
    for (const one of unanswered)
      await until('the last requests', 60_000, async () => ((await send(url, one)) ? true : undefined))
    await check(url)
    const final = await total(url, 'by_minute', token)
    if (final.n !== sent.size) throw new Error(`${final.n} events count, ${sent.size} were sent and acknowledged`)
    await until('counters that agree', 60_000, async () => {
      const status = (await (await fetch(`${url}/v1/status`)).json()) as {
        datasets: { name: string; appended: number; counted: number; duplicate: number; dead: number }[]
      }
      const facts = status.datasets.find((d) => d.name === 'facts')!
      if (facts.counted !== sent.size || facts.dead !== 0) throw new Error(JSON.stringify(facts))
      return true
    })
    const code = await server.stop()
    if (code !== 0) throw new Error(`a stopped server ended with ${code}\n${server.output()}`)
    return { rounds: options.rounds, sent: sent.size, acknowledged: acknowledged.size, retried, recomputes }
  } catch (error) {
    throw new Error(`seed ${options.seed}: ${String(error)}\n${server?.output().slice(-3_000) ?? ''}`)
  } finally {
    if (server && server.child.exitCode === null && server.child.signalCode === null) await server.kill()
    await rm(folder, { recursive: true, force: true })
  }
}
