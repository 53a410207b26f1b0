/**
 * Durable ingest over HTTP: the server with the ingest role alone, and 1, 100 or 5,000 events a request, against bare
 * DuckDB that decodes the same bytes. The client's CPU is apart from the server's.
 */
import { join } from 'node:path'
import { openEngine } from '../../engine/engine.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { decodeSql } from '../../model/decode/decode-sql.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import { type Chunk, checkSize, eventChunks } from '../events.ts'
import {
  type Case,
  type Env,
  figuresOf,
  type Measured,
  median,
  type Row,
  rateRow,
  rates,
  ratioRow,
} from '../harness/case.ts'
import { measured, treeCpuS } from '../harness/cpu.ts'
import { paths, preparedLog, START_MS, streamOf, usedLog } from '../prepare.ts'
import { compileProject } from '../project.ts'
import { accepted, EVENTS_PATH, NDJSON, openClient, startServer } from '../server.ts'
import { DATASET } from '../world.ts'

/** Requests under way at a time. */
const SOCKETS = { 1: 128, 100: 64, 5000: 32 } as const
type Batch = keyof typeof SOCKETS

/** What rows say of the log, where there are both. */
const LOGS: Record<string, string> = { '5000': ', log under retention', '5000-new': ', log that grows' }

/** Events that a log holds, by reading all of it. */
const eventsOf = async (log: EventLog): Promise<{ kept: number; records: number }> => {
  const { startOffset } = await log.range(DATASET, 0)
  let at = (await log.positionAt(DATASET, 0, startOffset))!
  for (let kept = 0; ; ) {
    const read = await log.read(DATASET, 0, at, { maxBytes: 8 * 1024 * 1024 })
    if (read.kind !== 'records') throw new Error(`the log cannot be read: ${read.kind}`)
    if (read.records.length === 0) return { kept, records: at.offset - startOffset }
    for (const { events } of read.records) kept += events
    at = read.to
  }
}

/** `log`: 'new', or 'used': as it is after a while under retention. */
const post =
  (batch: Batch, log: 'new' | 'used') =>
  async (env: Env): Promise<Measured> => {
    const events = env.sizes.posts[batch]
    const data = join(env.scratch, 'data')
    const chunks: Chunk[] = [...eventChunks({ events, startMs: START_MS, stepMs: 1 / 20 }, batch)]
    checkSize(
      chunks.reduce((n, c) => n + c.bytes.byteLength, 0),
      events,
    )
    // A tenth more than will be sent: free room is in pieces.
    if (log === 'used') await usedLog(join(data, 'log'), streamOf(Math.round(events * 1.1)))
    const server = await startServer({ scratch: env.scratch, data, project: 'stream', roles: 'ingest' })
    const client = openClient(server.url, SOCKETS[batch])
    const send = async (list: Chunk[]): Promise<void> => {
      const lane = async (): Promise<void> => {
        for (let next = list.pop(); next !== undefined; next = list.pop())
          accepted(await client.post(EVENTS_PATH, next.bytes, NDJSON), next.events)
      }
      await Promise.all(Array.from({ length: SOCKETS[batch] }, lane))
    }
    // A server that has been up for a while is what is measured: the first quarter warms it up.
    await send(chunks.splice(0, Math.ceil(chunks.length / 4)))
    const timed = chunks.reduce((n, c) => n + c.events, 0)
    const [serverCpu, clientCpu] = [treeCpuS(server.pid), process.cpuUsage()]
    const began = performance.now()
    await send(chunks)
    const wallS = (performance.now() - began) / 1_000
    const cpuS = treeCpuS(server.pid) - serverCpu
    const { user, system } = process.cpuUsage(clientCpu)
    client.close()
    await server.stop()
    const written = await openLmdbLog({ folder: join(data, 'log'), readOnly: true })
    const { kept, records } = await eventsOf(written)
    await written.close()
    if (kept !== events) throw new Error(`the log has ${kept} events of ${events} acknowledged`)
    return { figures: { events: timed, cpuS, wallS, clientCpuS: (user + system) / 1e6, records } }
  }

const bare = async (env: Env): Promise<Measured> => {
  const engine = await openEngine({ memoryLimit: '1GB', threads: 1 })
  try {
    const { datasets } = await compileProject('stream', engine)
    const sql = decodeSql(datasets[0]!, paths(env.shared, env.sharedMemory).streamFile, { columns: [] })
    const session = await engine.session()
    const { value, cpuS, wallS } = await measured(() =>
      session.rows<{ n: string }>(`SELECT count(*) FILTER (_verdict = 0) AS n FROM (${sql})`),
    )
    session.close()
    if (Number(value[0]!.n) !== env.sizes.events) throw new Error(`${value[0]!.n} good events of ${env.sizes.events}`)
    return { figures: { events: env.sizes.events, cpuS, wallS } }
  } finally {
    await engine.close()
  }
}

export const ingest: Case = {
  name: 'ingest',
  about: 'durable ingest over HTTP, the ingest role alone',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    const { streamLog, streamFile } = paths(shared, sharedMemory)
    await preparedLog(streamLog, streamOf(sizes.events), streamFile)
  },
  variants: {
    bare,
    'posts-5000': post(5000, 'used'),
    'posts-5000-new': post(5000, 'new'),
    'posts-100': post(100, 'new'),
    'posts-1': post(1, 'new'),
  },
  report: (results) => {
    const row = (what: string, all: number[], text: (n: number) => string, best: (...n: number[]) => number): Row => ({
      what,
      best: text(best(...all)),
      median: text(median(all)),
    })
    const rowsOf = (n: string): Row[] => {
      const v = `posts-${n}`
      const [events, wallS, cpuS, clientS] = ['events', 'wallS', 'cpuS', 'clientCpuS'].map((f) =>
        figuresOf(results, v, f),
      )
      const over = (a: number[], b: number[]): number[] => a.map((x, i) => x / b[i]!)
      return [
        rateRow(`server, ${n.replace('-new', '')} events a request${LOGS[n] ?? ''}`, results, v),
        ratioRow('… / bare decoding', rates(results, v), rates(results, 'bare'), n === '5000' ? 0.5 : undefined),
        row('… per second', over(events!, wallS!), (x) => `${Math.round(x).toLocaleString('en')} events/s`, Math.max),
        row('… cores busy in the server', over(cpuS!, wallS!), (x) => x.toFixed(2), Math.max),
        row('… CPU of the client / of the server', over(clientS!, cpuS!), (x) => `${x.toFixed(2)} ×`, Math.min),
      ]
    }
    return {
      rows: [rateRow('bare decoding', results, 'bare'), ...['5000', '5000-new', '100', '1'].flatMap(rowsOf)],
      notes: [
        `Requests under way at a time: ${Object.entries(SOCKETS)
          .map(([b, n]) => `${n} with ${b} events`)
          .join(', ')}.`,
      ],
    }
  },
}
