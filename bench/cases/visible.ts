/** Ingest → visible: at 20,000 events a second, the time from sending a request to an answer that has its events. */
import { join } from 'node:path'
import { type Case, type Env, figuresOf, type Measured, median, percentile, type Row } from '../harness/case.ts'
import { treeCpuS } from '../harness/cpu.ts'
import { startLoad } from '../load.ts'
import { START_MS } from '../prepare.ts'
import { openClient, startServer, until } from '../server.ts'

const RATE = 20_000
const BATCH = 1_000

const run = async (env: Env): Promise<Measured> => {
  const server = await startServer({ scratch: env.scratch, data: join(env.scratch, 'data'), project: 'stream' })
  const client = openClient(server.url, 64)
  const visible: number[] = []
  const acknowledged: number[] = []
  const asking = new Set<Promise<void>>()
  let failure: unknown
  const query = { view: 'by_minute', measures: ['event_count'], grain: 'all', dimensions: [] }
  const ask = async (beganMs: number, token: string): Promise<void> => {
    const answer = await client.post('/v1/query', JSON.stringify({ ...query, atLeast: token, waitMs: 20_000 }))
    if (answer.status !== 200) throw new Error(`a query was answered ${answer.status} ${answer.body.toString('utf8')}`)
    visible.push(performance.now() - beganMs)
  }
  const cpu = treeCpuS(server.pid)
  const events = RATE * env.sizes.seconds
  const load = startLoad({
    client,
    rate: RATE,
    batch: BATCH,
    events: { events, startMs: START_MS, stepMs: 1 / 20 },
    answered: (beganMs, token) => {
      acknowledged.push(performance.now() - beganMs)
      const one = ask(beganMs, token)
        .catch((error: unknown) => {
          failure ??= error
        })
        .finally(() => asking.delete(one))
      asking.add(one)
    },
  })
  await until(
    'all is sent',
    async () => load.sent() >= events || failure !== undefined,
    () => '',
    env.sizes.seconds * 4_000 + 60_000,
  )
  await load.stop()
  await Promise.all(asking)
  if (failure !== undefined) throw failure
  const cpuS = treeCpuS(server.pid) - cpu
  const last = JSON.parse((await client.post('/v1/query', JSON.stringify(query))).body.toString('utf8')) as {
    rows: { event_count: number }[]
  }
  if (last.rows[0]?.event_count !== events) throw new Error(`${JSON.stringify(last.rows)} instead of ${events} events`)
  client.close()
  await server.stop()
  // The first second warms up.
  const warm = RATE / BATCH
  const [seen, acks] = [visible.slice(warm), acknowledged.slice(warm)]
  return {
    figures: {
      events,
      cpuS,
      visibleP50: percentile(seen, 0.5),
      visibleP99: percentile(seen, 0.99),
      ackP50: percentile(acks, 0.5),
      ackP99: percentile(acks, 0.99),
      lateMs: load.lateMs(),
    },
  }
}

export const visible: Case = {
  name: 'visible',
  about: 'ingest → visible at 20,000 events a second in requests of 1,000, each followed by a query that waits for it',
  variants: { server: run },
  report: (results) => {
    const row = (what: string, figure: string): Row => {
      const all = figuresOf(results, 'server', figure)
      return { what, best: `${Math.min(...all).toFixed(0)} ms`, median: `${median(all).toFixed(0)} ms` }
    }
    const load = (results.server ?? []).map((m) => m.figures.cpuS! / (m.figures.events! / RATE))
    return {
      rows: [
        row('acknowledged (durable), p50', 'ackP50'),
        row('acknowledged (durable), p99', 'ackP99'),
        row('visible in an answer, p50', 'visibleP50'),
        row('visible in an answer, p99', 'visibleP99'),
        {
          what: 'CPU of the server (ingest, speed, archive, 20 queries a second)',
          best: `${(Math.min(...load) * 100).toFixed(0)} % of a core`,
          median: `${(median(load) * 100).toFixed(0)} % of a core`,
        },
      ],
      notes: [
        `The timetable fell behind by at most ${Math.max(...figuresOf(results, 'server', 'lateMs')).toFixed(0)} ms.`,
      ],
    }
  },
}
