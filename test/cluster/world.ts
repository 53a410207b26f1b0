/**
 * A Weir on real servers under the oracle: random events in, random questions out, each answer equal to the reference over exactly the
 * records that it names, or a loud refusal. Invariant: what must be answered is computed from the log as Kafka gives it and the events
 * as they were made, never from what a Weir process says.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Producer } from 'kafkajs'
import { loadProject } from '../../cli/project-files.ts'
import type { Random } from '../../cli/random.ts'
import type { Session } from '../../engine/engine.ts'
import { openKafkaLog } from '../../log/kafka-log.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import type { AnswerColumn, Query, Scalar } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import type { View } from '../../model/view.ts'
import { canonicalRows, type Expected, openExpected } from '../oracle/expected.ts'
import { type OracleEvent, randomEvent, randomProject } from '../oracle/project.ts'
import { randomQuery, wholeQuery } from '../oracle/queries.ts'
import { Difference } from '../oracle/state.ts'
import { type S3Proxy, startS3Proxy } from '../support/s3-proxy.ts'
import { type Server, until } from '../support/server.ts'
import { makeAgedTopic } from './aged-topic.ts'
import { type Cluster, openCluster, type Places } from './processes.ts'

export type Stats = { answers: number; refusals: Record<string, number>; acknowledged: number; foreign: number }

type Request = { body: string; key: string; events: OracleEvent[] }

export type ClusterWorld = {
  r: Random
  cluster: Cluster
  proxy: S3Proxy
  views: View[]
  stats: Stats
  trace(line: string): void
  /** Layout of roles that the world began with; what is killed comes back. */
  layout: string[]
  send(): Promise<void>
  produce(): Promise<void>
  ask(): Promise<void>
  job(): Promise<void>
  /** All quiet: everything acknowledged is answered, exactly, by each serving process, and nothing drifts. */
  settle(deadlineMs: number): Promise<void>
  /** What the processes printed. */
  logs(): string
  close(): Promise<void>
}

const DATASET = 'facts'
const LAYOUTS = [
  ['ingest,speed,batch,serving', 'ingest,speed,batch,serving'],
  ['ingest,serving', 'speed,batch', 'speed', 'ingest,serving'],
  ['ingest', 'speed', 'speed', 'batch', 'batch', 'serving'],
]

type Problem = { status: number; code: string; retryable: boolean; text: string }
type Reply = { ok: true; json: Record<string, unknown> } | ({ ok: false } & Problem)

/** Null: the process is gone, or was killed meanwhile. */
const call = async (url: string, path: string, init: RequestInit = {}): Promise<Reply | null> => {
  let status: number
  let text: string
  try {
    const answer = await fetch(url + path, { ...init, signal: AbortSignal.timeout(60_000) })
    status = answer.status
    text = await answer.text()
  } catch {
    return null
  }
  const json = JSON.parse(text) as Record<string, unknown>
  if (status < 300) return { ok: true, json }
  return { ok: false, status, code: String(json.code ?? ''), retryable: json.retryable === true, text }
}

const json = (value: unknown): RequestInit => ({
  method: 'POST',
  body: JSON.stringify(value),
  headers: { 'content-type': 'application/json' },
})

const writeProject = async (folder: string, r: Random): Promise<ReturnType<typeof randomProject>> => {
  const project = randomProject(r)
  const { dataset } = project
  const partitions = r.int(2, 5)
  const lines = [
    `dataset: ${DATASET}`,
    `eventTime: ${dataset.eventTime}`,
    ...(dataset.id === undefined ? [] : [`id: ${dataset.id}`]),
    ...(dataset.dedupeWindowMs === undefined ? [] : [`dedupe: { window: ${dataset.dedupeWindowMs / 1_000} seconds }`]),
    `extra: ${dataset.extra}`,
    `partitions: ${partitions}`,
    'columns:',
    ...dataset.columns.map((c) => `  ${c.name}: ${c.required ? `{ type: ${c.type}, required: true }` : c.type}`),
  ]
  const files: Record<string, string> = {
    'weir.yaml':
      'name: oracle\narchive: { maxAgeMs: 500 }\nbatch: { retireAfterMs: 500, recomputeShardBytes: 2048 }\nspeed: { waitMs: 50 }\n',
    [`datasets/${DATASET}.yaml`]: `${lines.join('\n')}\n`,
    ...Object.fromEntries(project.views.map((v) => [`views/${v.name}.sql`, `${v.definitions[0]}\n`])),
  }
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  return project
}

export const openClusterWorld = async (
  at: Places,
  r: Random,
  options: { folder: string; session: Session; extend: string; trace?: (line: string) => void },
): Promise<ClusterWorld> => {
  const { folder, session, trace = () => undefined } = options
  await writeProject(folder, r)
  const { datasets, views } = await loadProject(folder)
  const dataset = datasets[0]!
  const proxy = await startS3Proxy(at.s3.WEIR_S3_ENDPOINT!)
  const env = { WEIR_S3_ENDPOINT: proxy.endpoint, WEIR_SCHEDULES_EXTEND: options.extend }
  const cluster = await openCluster(at, { project: folder, env })
  const layout = r.pick(LAYOUTS)
  for (const view of views) trace(`view ${view.name}: ${view.sql}`)
  trace(`${dataset.partitions} partitions, processes: ${layout.join(' · ')}`)

  /** Every event ever sent, by its line. */
  const known = new Map<string, OracleEvent>()
  const make = (count: number): OracleEvent[] => {
    const events = Array.from({ length: count }, () => randomEvent(r, dataset, Date.now()))
    for (const event of events) known.set(event.json, event)
    return events
  }
  const topic = `${cluster.name}.${DATASET}`
  const lines = (count: number): string[] => make(count).map((e) => e.json)
  const origin = r.chance(0.4) ? await makeAgedTopic(at.kafka, topic, dataset.partitions, r, lines) : undefined
  if (origin !== undefined) trace(`the topic begins at ${JSON.stringify(origin.offsets)}`)
  const begin = (partition: number): number => origin?.offsets[partition] ?? 0
  await Promise.all(layout.map(cluster.start))

  const log: EventLog = await openKafkaLog({
    brokers: at.kafka.split(','),
    topicOf: () => topic,
    originOf: () => origin,
  })
  const { Kafka, logLevel } = (await import('kafkajs')).default
  const producer: Producer = new Kafka({
    brokers: at.kafka.split(','),
    logLevel: logLevel.NOTHING,
    retry: { retries: 60, initialRetryTime: 100, maxRetryTime: 1_000 },
  }).producer()
  await producer.connect()

  const expected: Expected = await openExpected(session, dataset, 'facts_expected')
  for (let partition = 0; partition < dataset.partitions; partition++) expected.begin(partition, begin(partition))
  const at0 = new Map<number, Position>()
  const stats: Stats = { answers: 0, refusals: {}, acknowledged: 0, foreign: 0 }
  let waiting: Request[] = []
  let tokens: string[] = []
  let serial = 0

  /** Takes what the log holds into the account. */
  const absorb = async (): Promise<void> => {
    for (const partition of await log.partitions(DATASET)) {
      let from = at0.get(partition) ?? genesis((await log.range(DATASET, partition)).logId)
      for (;;) {
        const read = await log.read(DATASET, partition, from, { maxBytes: 1 << 22 })
        if (read.kind !== 'records') throw new Error(`the log says ${read.kind}`)
        for (const record of read.records) {
          if (record.offset !== Math.max(expected.end(partition), begin(partition)))
            throw new Error(`a hole before offset ${record.offset}`)
          const lines = Buffer.from(record.bytes)
            .toString('utf8')
            .split('\n')
            .filter((line) => line !== '')
          const events = lines.map((line) => known.get(line) ?? { json: line, row: null })
          await expected.append(partition, record.recordId, record.appendTimeMs, events)
        }
        from = read.to
        if (read.records.length === 0) break
      }
      at0.set(partition, from)
    }
  }

  const refused = (problem: Problem): void => {
    if (!problem.retryable && ![429, 503, 504].includes(problem.status))
      throw new Error(`${problem.status} ${problem.text}`)
    stats.refusals[problem.code] = (stats.refusals[problem.code] ?? 0) + 1
    trace(`    refused: ${problem.status} ${problem.code}`)
  }

  const post = async (one: Request): Promise<void> => {
    const urls = cluster.urls('ingest')
    if (urls.length === 0) return void waiting.push(one)
    const reply = await call(r.pick(urls), `/v1/events/${DATASET}`, {
      method: 'POST',
      body: one.body,
      headers: { 'content-type': 'application/x-ndjson', 'idempotency-key': one.key },
    })
    if (reply === null) return void waiting.push(one)
    if (!reply.ok) {
      if (reply.status === 422) return
      waiting.push(one)
      return refused(reply)
    }
    const good = one.events.filter((e) => e.row !== null).length
    if (reply.json.accepted !== good)
      throw new Difference(`${String(reply.json.accepted)} events accepted of ${good} good ones: ${one.body}`)
    stats.acknowledged += good
    tokens.push(String(reply.json.token))
  }

  /** One answer against the reference; null when it is refused. */
  const compare = async (server: Server, view: View, query: Query): Promise<Record<string, string> | null> => {
    const nowMs = Date.now()
    const reply = await call(server.url, '/v1/query', json(query))
    if (reply === null) return null
    if (!reply.ok) {
      refused(reply)
      return null
    }
    await absorb()
    stats.answers++
    const answer = reply.json as {
      columns: AnswerColumn[]
      rows: Record<string, Scalar>[]
      truncated?: boolean
      asOf: { upper: Record<string, string> }
    }
    const { upper } = answer.asOf
    const limits = { defaultLimit: 1_000, maxLimit: 100_000 }
    const resolved = resolveQuery(query, view, dataset, { nowMs, limits })
    const reference = await expected.rows(view, resolved, upper)
    const got = canonicalRows(answer.columns, answer.rows)
    const rows = answer.truncated ? reference.rows.slice(0, got.length) : reference.rows
    if (got.length === rows.length && got.every((row, i) => row === rows[i])) return upper
    const missing = rows.filter((row) => !got.includes(row)).slice(0, 5)
    const extra = got.filter((row) => !rows.includes(row)).slice(0, 5)
    throw new Difference(
      `answer differs for ${JSON.stringify(query)}\n  view: ${view.sql}\n  asOf: ${JSON.stringify(answer.asOf)}\n  missing: ${missing.join('\n           ')}\n  extra:   ${extra.join('\n           ')}\n  reference: ${reference.sql}`,
    )
  }

  const settle = async (deadlineMs: number): Promise<void> => {
    await until('all requests to be taken', deadlineMs, async () => {
      const again = waiting
      waiting = []
      for (const one of again) await post(one)
      return waiting.length === 0 ? true : undefined
    })
    await absorb()
    for (const server of cluster.running('serving'))
      for (const view of views)
        await until(`an answer of ${view.name} that covers all`, deadlineMs, async () => {
          const upper = await compare(server, view, wholeQuery(view))
          const behind = (await log.partitions(DATASET)).some((p) => Number(upper?.[p] ?? -1) < expected.end(p))
          return behind ? undefined : true
        })
    // The last acknowledged tokens are met, whichever process is asked.
    for (const atLeast of tokens.slice(-3))
      await until('a token to be met', deadlineMs, async () => {
        const query = { view: views[0]!.name, limit: 1, atLeast, waitMs: 5_000 }
        const reply = await call(r.pick(cluster.urls('serving')), '/v1/query', json(query))
        if (reply !== null && !reply.ok) refused(reply)
        return reply?.ok ? true : undefined
      })
    tokens = []
    const status = await call(r.pick(cluster.urls('serving')), '/v1/status')
    const drift = status?.ok ? (status.json.views as { name: string; drift?: number | null }[]) : []
    for (const view of drift) if ((view.drift ?? 0) > 0) throw new Difference(`${view.name} drifts by ${view.drift}`)
  }

  return {
    r,
    cluster,
    proxy,
    views,
    stats,
    trace,
    layout,
    send: async () => {
      const again = r.chance(0.5) ? waiting.pop() : undefined
      const events = make(r.int(1, 40))
      const fresh = { body: `${events.map((e) => e.json).join('\n')}\n`, key: `k${serial++}`, events }
      await post(again ?? fresh)
      // A client that saw no answer, or that is not sure, sends the same again.
      if (r.chance(0.15)) await post(again ?? fresh)
    },
    produce: async () => {
      const events = make(r.int(1, 15))
      stats.foreign += events.length
      const messages = events.map((e) => ({
        value: `${e.json}${r.chance(0.5) ? '\n' : ''}`,
        key: r.chance(0.5) ? `key${r.int(0, 5)}` : null,
      }))
      await producer.send({ topic, acks: -1, messages })
    },
    ask: async () => {
      const servers = cluster.running('serving')
      const view = r.pick(views)
      if (servers.length > 0)
        await compare(r.pick(servers), view, r.chance(0.4) ? wholeQuery(view) : randomQuery(r, view, Date.now()))
    },
    job: async () => {
      const urls = cluster.urls('serving')
      if (urls.length === 0) return
      const action = r.pick(['extend', 'extend', 'extend', 'recompute', 'verify'])
      const reply = await call(r.pick(urls), `/v1/views/${r.pick(views).name}/batch/${action}`, json({}))
      if (reply !== null && !reply.ok) refused(reply)
    },
    settle,
    logs: cluster.logs,
    close: async () => {
      await producer.disconnect()
      await log.close()
      await cluster.close()
      await proxy.close()
    },
  }
}
