/**
 * `npm start -- --once`: the whole main job once, in seconds. Invariant: every number is compared with one that was got
 * another way; any difference is named and makes the result false.
 */
import { formatError } from '../model/errors.ts'
import type { Answer } from '../model/query/query.ts'
import { type Client, openClient } from './client.ts'
import { auditView } from './commands/audit.ts'
import { differencesOf } from './commands/batch.ts'
import { answerTable } from './commands/query.ts'
import { DISORDER, openStream, total } from './demo-load.ts'
import { runJob } from './jobs.ts'
import type { Sent } from './sending.ts'
import type { Status } from './status-text.ts'
import type { Weir } from './wire.ts'

export type OnceResult = { ok: boolean; differences: string[]; lines: string[] }

const EVENTS: Record<string, number> = { orders: 12_000, page_views: 12_000, inventory: 4_000, promotions: 4_000 }

/** Polls `/v1/status` until the speed side has everything that was appended; bounded by a deadline. */
const settledStatus = async (client: Client, deadlineMs: number): Promise<Status> => {
  const end = performance.now() + deadlineMs
  for (;;) {
    const status = await client.json<Status>('GET', '/v1/status')
    const behind = status.datasets.some((d) => d.counted + d.duplicate + d.dead < d.appended)
    if (!behind || performance.now() > end) return status
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export const runOnce = async (weir: Weir, say: (line: string) => void): Promise<OnceResult> => {
  const client = openClient({ url: weir.url, retries: 5 })
  const { datasets, views } = weir.project
  const differences: string[] = []
  const lines: string[] = []
  const tell = (line: string): void => {
    lines.push(line)
    say(line)
  }
  const same = (what: string, got: unknown, expected: unknown): void => {
    if (JSON.stringify(got) !== JSON.stringify(expected))
      differences.push(`${what}: ${JSON.stringify(got)}, expected ${JSON.stringify(expected)}`)
  }
  const now = Date.now()
  const streams = datasets.map((dataset) => ({
    dataset,
    sums: { accepted: 0, rejected: 0, token: '' },
    stream: openStream(dataset, { ...DISORDER, seed: 7, startMs: now - 3_600_000, stepMs: 300 }),
  }))
  const send = async (part: number): Promise<void> => {
    for (const { dataset, sums, stream } of streams) {
      const sent: Sent = await stream.send(client, Math.ceil((EVENTS[dataset.name] ?? 2_000) * part))
      sums.accepted += sent.accepted
      sums.rejected += sent.rejected
      if (sent.token !== null) sums.token = sent.token
    }
    const accepted = streams.reduce((n, s) => n + s.sums.accepted, 0)
    const rejected = streams.reduce((n, s) => n + s.sums.rejected, 0)
    tell(`ingest      ${accepted} events accepted, ${rejected} rejected, through ${weir.url}`)
  }
  const jobs = async (action: string): Promise<void> => {
    let differing = 0
    for (const view of views) {
      const job = await runJob(client, view.name, action, {}, true)
      const found = differencesOf(job)
      differing += found
      if (found !== 0) differences.push(`${action} of ${view.name}: ${found} cells differ`)
    }
    tell(`${action.padEnd(11)} ${views.length} views, ${differing} differing cells`)
  }
  const audit = async (): Promise<void> => {
    let rows = 0
    let events = 0
    for (const view of views) {
      const result = await auditView(client, view.name)
      rows += result.rows
      events += result.events
      if (result.differences !== 0)
        differences.push(
          `audit of ${view.name}: ${result.differences} cells differ, first ${JSON.stringify(result.cells[0])}`,
        )
      if (result.rows === 0 || result.events === 0) differences.push(`audit of ${view.name}: nothing was compared`)
    }
    tell(`audit       ${rows} rows of ${views.length} views against plain SQL over ${events} events`)
  }
  const readOwnWrites = async (): Promise<void> => {
    for (const { dataset, sums } of streams) {
      const view = views.find((v) => v.dataset === dataset.name)
      if (!view || sums.token === '') continue
      await client.json<Answer>('POST', '/v1/query', { view: view.name, limit: 1, atLeast: sums.token, waitMs: 20_000 })
    }
  }

  try {
    await send(0.6)
    await readOwnWrites()
    await audit()
    await jobs('extend')
    await send(0.4)
    await readOwnWrites()
    const status = await settledStatus(client, 20_000)
    for (const { dataset, sums, stream } of streams) {
      const own = status.datasets.find((d) => d.name === dataset.name)
      const { made } = stream
      same(`${dataset.name}: accepted + rejected`, sums.accepted + sums.rejected, total(made))
      same(`${dataset.name}: rejected`, sums.rejected, made.bad)
      same(`${dataset.name}: appended`, own?.appended, sums.accepted)
      same(`${dataset.name}: counted + duplicate + dead`, own && own.counted + own.duplicate + own.dead, sums.accepted)
      same(`${dataset.name}: duplicates`, own?.duplicate, dataset.dedupeWindowMs === undefined ? 0 : made.duplicate)
    }
    tell(
      `status      ${status.datasets.map((d) => `${d.name} ${d.counted} counted, ${d.duplicate} duplicate`).join('; ')}`,
    )
    await audit()
    await jobs('recompute')
    await jobs('verify')
    await audit()
    const answer = await client.json<Answer>('POST', '/v1/query', {
      view: 'revenue_by_country',
      measures: ['order_count', 'revenue', 'revenue_per_order'],
      dimensions: ['country'],
      grain: 'all',
      orderBy: [{ column: 'revenue', desc: true }],
      limit: 5,
    })
    tell(`query       generation ${answer.asOf.generation}, everything below ${JSON.stringify(answer.asOf.upper)}`)
    lines.push(answerTable(answer))
    say(answerTable(answer))
  } catch (error) {
    differences.push(formatError(error))
  }
  for (const alarm of weir.alarms.list()) differences.push(`alarm ${alarm.source}: ${alarm.message} [${alarm.code}]`)
  return { ok: differences.length === 0, differences, lines }
}
