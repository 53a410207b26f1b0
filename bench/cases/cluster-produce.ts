/** Produce: events through the door of a server with the ingest role alone into a topic of one partition. */
import { join } from 'node:path'
import type { KafkaLog } from '../../log/kafka-log.ts'
import { type Chunk, eventChunks } from '../events.ts'
import type { Env, Measured } from '../harness/case.ts'
import { treeCpuS } from '../harness/cpu.ts'
import { START_MS } from '../prepare.ts'
import { accepted, type Client, EVENTS_PATH, NDJSON, openClient, startServer } from '../server.ts'
import { DATASET } from '../world.ts'
import { countServers, kafkaLog, onKafka, underName } from './cluster-servers.ts'

/** Requests under way at a time. */
export const SOCKETS = { 1000: 32, 5000: 8 } as const
export type Batch = keyof typeof SOCKETS

const sizeOf = ({ sizes }: Env, batch: Batch): number => sizes.posts[batch === 5000 ? 5000 : 100]

/** Sends in as many lanes as requests may be under way; throws unless each is accepted. */
const sendAll = async (client: Client, chunks: Chunk[], lanes: number): Promise<void> => {
  const rest = chunks.values()
  const lane = async (): Promise<void> => {
    for (const { bytes, events } of rest) accepted(await client.post(EVENTS_PATH, bytes, NDJSON), events)
  }
  await Promise.all(Array.from({ length: lanes }, lane))
}

/** Events and bytes of the topic, by reading all of it: lines are counted, no header is believed. */
const contentOf = async (log: KafkaLog): Promise<{ events: number; bytes: number }> => {
  const end = (await log.range(DATASET, 0)).endOffset
  const content = { events: 0, bytes: 0 }
  for (let at = (await log.positionAt(DATASET, 0, 0))!; at.offset < end; ) {
    const read = await log.read(DATASET, 0, at, { maxBytes: 8 * 1024 * 1024 })
    if (read.kind !== 'records') throw new Error(`the topic cannot be read: ${read.kind}`)
    for (const { bytes } of read.records) {
      content.bytes += bytes.byteLength
      for (let i = bytes.indexOf(10); i >= 0; i = bytes.indexOf(10, i + 1)) content.events++
    }
    at = read.to
  }
  return content
}

export const produce =
  (batch: Batch) =>
  (env: Env): Promise<Measured> =>
    underName(env, `produce-${batch}`, async (name) => {
      const chunks = [...eventChunks({ events: sizeOf(env, batch), startMs: START_MS, stepMs: 1 / 20 }, batch)]
      const server = await startServer({
        scratch: env.scratch,
        data: join(env.scratch, 'data'),
        project: 'stream',
        roles: 'ingest',
        env: onKafka(name),
      })
      const client = openClient(server.url, SOCKETS[batch])
      // A server that has been up for a while is what is measured: the first tenth warms it up.
      const warm = Math.ceil(chunks.length / 10)
      await sendAll(client, chunks.slice(0, warm), SOCKETS[batch])
      const timed = chunks.slice(warm)
      const [cpu, others] = [treeCpuS(server.pid), countServers()]
      const began = performance.now()
      await sendAll(client, timed, SOCKETS[batch])
      const wallS = (performance.now() - began) / 1_000
      const figures = { cpuS: treeCpuS(server.pid) - cpu, brokerS: others().brokerS }
      client.close()
      await server.stop()
      const log = await kafkaLog(name)
      const kept = await contentOf(log).finally(() => log.close())
      const sent = chunks.reduce((n, c) => n + c.bytes.byteLength, 0)
      if (kept.events !== sizeOf(env, batch) || kept.bytes !== sent)
        throw new Error(
          `${JSON.stringify(kept)} in the topic of ${sizeOf(env, batch)} events, ${sent} bytes acknowledged`,
        )
      const events = timed.reduce((n, c) => n + c.events, 0)
      return { figures: { events, wallS, cpuS: figures.cpuS, ...optional(figures.brokerS) } }
    })

const optional = (brokerS: number | undefined): { brokerS?: number } => (brokerS === undefined ? {} : { brokerS })
