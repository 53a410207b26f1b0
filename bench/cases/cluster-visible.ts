/**
 * Produce → visible at a steady rate, on one server with all roles over Kafka, Redis and S3: each request is followed by a
 * query that waits for its events.
 */
import { join } from 'node:path'
import { type Env, type Measured, percentile } from '../harness/case.ts'
import { treeCpuS } from '../harness/cpu.ts'
import { startLoad } from '../load.ts'
import { START_MS } from '../prepare.ts'
import { type Client, openClient, startServer, until } from '../server.ts'
import { countServers, createBucket, onAllServers, underName } from './cluster-servers.ts'

/** Requests a second. */
export const REQUESTS = 10
const QUERY = { view: 'by_minute', measures: ['event_count'], grain: 'all', dimensions: [] }

/** Events that a query answers; `more`: what it waits for. */
const count = async (client: Client, more = {}): Promise<number> => {
  const { status, body } = await client.post('/v1/query', JSON.stringify({ ...QUERY, ...more }))
  if (status !== 200) throw new Error(`a query was answered ${status} ${body.toString('utf8')}`)
  return (JSON.parse(body.toString('utf8')) as { rows: { event_count: number }[] }).rows[0]?.event_count ?? 0
}

/** Sends all events on the timetable, each request's events awaited in an answer; times in ms from the sending. */
const watch = async (client: Client, { sizes }: Env) => {
  const events = sizes.steady * sizes.seconds
  const [acknowledged, visible]: [number[], number[]] = [[], []]
  const asking: Promise<void>[] = []
  let failure: unknown
  const load = startLoad({
    client,
    rate: sizes.steady,
    batch: sizes.steady / REQUESTS,
    events: { events, startMs: START_MS, stepMs: 1 / 20 },
    answered: (beganMs, token) => {
      acknowledged.push(performance.now() - beganMs)
      const ask = async (): Promise<void> => {
        await count(client, { atLeast: token, waitMs: 20_000 })
        visible.push(performance.now() - beganMs)
      }
      asking.push(
        ask().catch((error: unknown) => {
          failure ??= error
        }),
      )
    },
  })
  const deadlineMs = sizes.seconds * 4_000 + 60_000
  const allSent = async (): Promise<boolean> => load.sent() >= events || failure !== undefined
  await until('all is sent', allSent, undefined, deadlineMs)
  await load.stop()
  await Promise.all(asking)
  if (failure !== undefined) throw failure
  return { events, acknowledged, visible, lateMs: load.lateMs() }
}

export const visibleOnServers = (env: Env): Promise<Measured> =>
  underName(env, 'visible', async (name) => {
    await createBucket(name)
    const server = await startServer({
      scratch: env.scratch,
      data: join(env.scratch, 'data'),
      project: 'stream',
      env: onAllServers(name),
    })
    const client = openClient(server.url, 64)
    const [cpu, others] = [treeCpuS(server.pid), countServers()]
    const began = performance.now()
    const { events, acknowledged, visible, lateMs } = await watch(client, env)
    const wallS = (performance.now() - began) / 1_000
    const [cpuS, servers] = [treeCpuS(server.pid) - cpu, others()]
    const answered = await count(client)
    if (answered !== events) throw new Error(`${answered} events are answered of ${events}`)
    client.close()
    await server.stop()
    // The first second warms up.
    const [acks, seen] = [acknowledged.slice(REQUESTS), visible.slice(REQUESTS)]
    return {
      figures: {
        events,
        cpuS,
        wallS,
        ...servers,
        visibleP50: percentile(seen, 0.5),
        visibleP99: percentile(seen, 0.99),
        ackP50: percentile(acks, 0.5),
        ackP99: percentile(acks, 0.99),
        lateMs,
      },
    }
  })
