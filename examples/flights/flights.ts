/**
 * The flights of vega-datasets through Weir, compared with what plain DuckDB says about the Parquet file.
 * Invariant: flights are sent out of order, through HTTP, and after every step each cell of each view is compared: a missing, an
 * extra or a different one is counted.
 */

import { createReadStream, existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Client, openClient } from '../../cli/client.ts'
import { auditView } from '../../cli/commands/audit.ts'
import { runJob } from '../../cli/jobs.ts'
import { linesOf } from '../../cli/lines.ts'
import { quietLogger } from '../../cli/logger.ts'
import { examplesFolder, packageRoot } from '../../cli/package.ts'
import { loadProject } from '../../cli/project-files.ts'
import { ROLES } from '../../cli/roles.ts'
import { openSender } from '../../cli/sending.ts'
import { openWeir } from '../../cli/wire.ts'
import { openEngine, type Session } from '../../engine/engine.ts'
import { literal } from '../../model/ident.ts'

export const PARQUET = join(packageRoot, 'node_modules', 'vega-datasets', 'data', 'flights-3m.parquet')

/** A Weir that runs: where events go, and where questions do. */
export type Running = { ingest: string[]; serving: string[]; stop(): Promise<unknown> }

export type FlightsOptions = {
  flights: number
  dataDir: string
  /** What to send to; default: all roles in this process, in `dataDir`. */
  running?: Running
  /** Steps of sending, each followed by an extend and a comparison. */
  steps?: number
  say?: (line: string) => void
  inProcessWorkers?: boolean
}
export type FlightsResult = { sent: number; accepted: number; cells: number; differing: number; audited: number }

/** A view, its columns as the answers bring them, and the same from the Parquet file in plain SQL. */
const VIEWS = [
  {
    name: 'delays_by_hour',
    columns: "hour: 'TIMESTAMPTZ', origin: 'VARCHAR'",
    keys: 'hour::TIMESTAMP AS bucket, origin',
    reference: "date_trunc('hour', date) AS bucket, origin",
  },
  {
    name: 'routes_by_day',
    columns: "day: 'TIMESTAMPTZ', origin: 'VARCHAR', destination: 'VARCHAR'",
    keys: 'day::TIMESTAMP AS bucket, origin, destination',
    reference: "date_trunc('day', date) AS bucket, origin, destination",
  },
]
const MEASURES = 4
const WEEK_MS = 7 * 86_400_000
const [FROM, TO] = [Date.parse('2001-01-01T00:00:00Z'), Date.parse('2001-07-03T00:00:00Z')]

/** All rows of a view, a week at a time: an answer has at most query.maxLimit rows. */
const answerLines = async (client: Client, view: string): Promise<Buffer> => {
  const parts: Buffer[] = []
  for (let from = FROM; from < TO; from += WEEK_MS) {
    const [start, end] = [from, Math.min(TO, from + WEEK_MS)].map((t) => new Date(t).toISOString())
    const answer = await client.send('POST', '/v1/query', {
      headers: { 'content-type': 'application/json', accept: 'application/x-ndjson' },
      body: JSON.stringify({ view, timeRange: { from: start, to: end }, limit: 100_000 }),
      retry: true,
    })
    if (answer.status !== 200) throw new Error(`${view}: ${answer.status} ${answer.body.toString('utf8')}`)
    if (answer.headers.get('weir-truncated')) throw new Error(`${view}: a week does not fit one answer`)
    parts.push(answer.body)
  }
  return Buffer.concat(parts)
}

/** Compares all cells of both views with the first `sent` flights of the table `flights`. */
const compare = async (session: Session, client: Client, scratch: string, sent: number) => {
  let cells = 0
  let differing = 0
  for (const view of VIEWS) {
    const file = join(scratch, `${view.name}.ndjson`)
    await writeFile(file, await answerLines(client, view.name))
    await session.run(`CREATE OR REPLACE TEMP TABLE got AS
      SELECT ${view.keys}, departures, total_delay::BIGINT AS total_delay, mean_delay, max_delay FROM read_json(${literal(file)}, format = 'newline_delimited',
        columns = {${view.columns}, departures: 'BIGINT', total_delay: 'VARCHAR', mean_delay: 'DOUBLE', max_delay: 'BIGINT'})`)
    await session.run(`CREATE OR REPLACE TEMP TABLE expected AS
      SELECT ${view.reference}, count(*) AS departures, sum(delay)::BIGINT AS total_delay, avg(delay) AS mean_delay, max(delay) AS max_delay
      FROM flights WHERE n < ${sent} GROUP BY ALL`)
    const [row] = await session.rows<{
      rows: string
      differing: string
    }>(`SELECT (SELECT count(*) FROM expected) AS rows,
      (SELECT count(*) FROM (FROM expected EXCEPT ALL FROM got)) + (SELECT count(*) FROM (FROM got EXCEPT ALL FROM expected)) AS differing`)
    cells += Number(row!.rows) * MEASURES
    differing += Number(row!.differing)
    await rm(file, { force: true })
  }
  return { cells, differing }
}

/** Sends a range of the flights, piece by piece to each of the doors in turn; the tokens of the last pieces cover all. */
const sendFlights = async (session: Session, doors: Client[], scratch: string, from: number, to: number) => {
  const file = join(scratch, 'flights.ndjson')
  const senders = doors.map((client) => openSender({ client, dataset: 'flights', parallel: 2 }))
  const chunk = Math.ceil(Math.min(200_000, (to - from) / doors.length))
  for (let at = from; at < to; at += chunk) {
    await session.run(`COPY (SELECT flight_id, strftime(date, '%Y-%m-%dT%H:%M:%SZ') AS departed, origin, destination, delay, distance
      FROM flights WHERE n >= ${at} AND n < ${Math.min(to, at + chunk)} ORDER BY n) TO ${literal(file)} (FORMAT json)`)
    let line = 0
    const sender = senders[Math.floor((at - from) / chunk) % senders.length]!
    for await (const bytes of linesOf(createReadStream(file, { highWaterMark: 1 << 20 })))
      await sender.write(bytes, ++line)
    await rm(file, { force: true })
  }
  const sent = await Promise.all(senders.map((s) => s.end()))
  const sum = (of: (s: (typeof sent)[number]) => number): number => sent.reduce((n, s) => n + of(s), 0)
  return {
    events: sum((s) => s.events),
    accepted: sum((s) => s.accepted),
    rejected: sum((s) => s.rejected),
    tokens: sent.flatMap((s) => s.token ?? []),
  }
}

/** All roles in this process. */
const openEmbedded = async ({ dataDir, inProcessWorkers = false }: FlightsOptions): Promise<Running> => {
  const project = await loadProject(join(examplesFolder, 'flights'))
  project.settings.schedules = { extend: 'off', recompute: 'off', verify: 'off', compact: 'off' }
  const weir = await openWeir({ project, dataDir, roles: ROLES, logger: quietLogger(), port: 0, inProcessWorkers })
  return { ingest: [weir.url], serving: [weir.url], stop: weir.stop }
}

export const runFlights = async (options: FlightsOptions): Promise<FlightsResult> => {
  const { flights, steps = 4, say = () => undefined } = options
  if (!existsSync(PARQUET)) throw new Error(`${PARQUET} is missing: npm install`)
  const result: FlightsResult = { sent: 0, accepted: 0, cells: 0, differing: 0, audited: 0 }
  const engine = await openEngine({ memoryLimit: '2GB' })
  const running = options.running ?? (await openEmbedded(options))
  try {
    const doors = running.ingest.map((url) => openClient({ url }))
    const servers = running.serving.map((url) => openClient({ url }))
    const client = servers[0]!
    const session = await engine.session()
    // The first ones of the file (it is in order of time), in an order that has nothing to do with time.
    await session.run(`CREATE TEMP TABLE flights AS
      SELECT (row_number() OVER (ORDER BY hash(file_row_number + 7)) - 1) AS n, file_row_number AS flight_id, * EXCLUDE (file_row_number)
      FROM read_parquet(${literal(PARQUET)}, file_row_number = true) WHERE file_row_number < ${flights} ORDER BY n`)
    const check = async (what: string): Promise<void> => {
      const began = performance.now()
      let cells = 0
      let differing = 0
      for (const server of servers) {
        const found = await compare(session, server, engine.scratchDir, result.sent)
        cells += found.cells
        differing += found.differing
      }
      const seconds = ((performance.now() - began) / 1_000).toFixed(1)
      result.cells += cells
      result.differing += differing
      say(`${what}: ${cells} cells compared with the Parquet file, ${differing} rows differ (${seconds} s)`)
    }
    for (let step = 1; step <= steps; step++) {
      const to = Math.floor((flights * step) / steps)
      const began = performance.now()
      const sent = await sendFlights(session, doors, engine.scratchDir, result.sent, to)
      const seconds = (performance.now() - began) / 1_000
      result.sent = to
      result.accepted += sent.accepted
      say(
        `sent ${sent.events} flights in ${seconds.toFixed(1)} s, ${sent.accepted} accepted, ${sent.rejected} rejected`,
      )
      for (const { name } of VIEWS)
        for (const server of servers)
          for (const atLeast of sent.tokens)
            await server.json('POST', '/v1/query', { view: name, limit: 1, atLeast, waitMs: 60_000 }, { retry: true })
      // The last piece stays with the speed layer alone, so that answers are merged from both.
      if (step < steps) for (const { name } of VIEWS) await runJob(client, name, 'extend', {}, true)
      await check(step < steps ? `extend ${step}` : 'before the recompute')
    }
    for (const { name } of VIEWS) await runJob(client, name, 'recompute', {}, true)
    await check('recompute')
    for (const { name } of VIEWS) {
      const audit = await auditView(client, name)
      result.audited += audit.rows
      result.differing += audit.differences
    }
    say(`audit: ${result.audited} rows against plain SQL over lake and log`)
    session.close()
    return result
  } finally {
    await running.stop()
    await engine.close()
  }
}
