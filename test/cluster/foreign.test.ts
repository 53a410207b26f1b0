/**
 * What others do to a topic: events that kcat (librdkafka) puts there count like those sent by HTTP, broken ones are dead letters and can be
 * replayed; partitions that somebody adds are taken in.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openClient } from '../../cli/client.ts'
import { hasKcat, kcatProduce } from '../support/kcat.ts'
import { until } from '../support/server.ts'
import { weir } from '../support/weir.ts'
import { openCluster, places } from './processes.ts'

const at = places()
if (at !== null && !hasKcat()) {
  if (process.env.WEIR_SERVICES === 'required') throw new Error('kcat is not installed')
  console.info('kcat is not installed: tests of foreign producers are skipped')
}

type Letter = { position: string; code: string; raw: string; status: { state: string } | null }

const visit = (n: number, more: object = {}): string =>
  JSON.stringify({
    visit_id: `v-${n}`,
    ts: new Date(Date.UTC(2026, 10, 25, 10, 0, n % 600)).toISOString(),
    site: ['blog', 'shop'][n % 2],
    user_id: `u-${n % 17}`,
    seconds: n / 10,
    paid: '1.50',
    ...more,
  })
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

test.skipIf(at === null || !hasKcat())(
  'kcat in all codecs, keyed and not, beside HTTP',
  { timeout: 240_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weir-foreign-'))
    await weir(['init', join(folder, 'project')])
    const cluster = await openCluster(at!, {
      project: join(folder, 'project'),
      env: { WEIR_ARCHIVE_MAX_AGE_MS: '300' },
    })
    try {
      const server = await cluster.start('ingest,speed,batch,serving')
      const client = openClient({ url: server.url })
      const topic = `${cluster.name}.visits`
      const total = async (): Promise<{ n: number; upper: Record<string, string> }> => {
        const query = { view: 'visits_by_site', measures: ['visits_total'], dimensions: [], grain: 'all' }
        type Answer = { rows: { visits_total: number }[]; asOf: { upper: Record<string, string> } }
        const { rows, asOf } = await client.json<Answer>('POST', '/v1/query', query, { retry: true })
        return { n: Number(rows[0]?.visits_total ?? 0), upper: asOf.upper }
      }
      const counted = (n: number): Promise<unknown> =>
        until(`${n} visits`, 60_000, async () => ((await total()).n === n ? true : undefined))

      const http = `${range(0, 100)
        .map((n) => visit(n))
        .join('\n')}\n`
      const headers = { 'content-type': 'application/x-ndjson' }
      expect((await client.send('POST', '/v1/events/visits', { body: http, headers })).status).toBe(200)
      let sent = 100
      for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)
        for (const keyed of [false, true]) {
          const lines = range(sent, sent + 20).map((n) => (keyed ? `v-${n}\t${visit(n)}` : visit(n)))
          // As the door would place it, so that an id that both send meets its first copy.
          await kcatProduce(at!.kafka, topic, lines, { codec, keyed, settings: { partitioner: 'murmur2_random' } })
          sent += 20
        }
      await counted(sent)

      // The same ids again, through the other way each: known as duplicates, where a key brings them to the same partition.
      await kcatProduce(
        at!.kafka,
        topic,
        range(0, 50).map((n) => `v-${n}\t${visit(n)}`),
        {
          keyed: true,
          settings: { partitioner: 'murmur2_random' },
        },
      )
      type Status = { datasets: { counted: number; duplicate: number; dead: number }[] }
      await until('50 duplicates', 60_000, async () => {
        const { datasets } = await client.json<Status>('GET', '/v1/status')
        return datasets[0]!.duplicate === 50 ? true : undefined
      })
      expect((await total()).n).toBe(sent)

      await kcatProduce(at!.kafka, topic, ['nonsense', visit(9_000, { site: null }), '[1]', visit(9_001)])
      await counted(sent + 1)
      const letters = (): Promise<Letter[]> =>
        client.json<{ letters: Letter[] }>('GET', '/v1/dead-letters/visits').then((r) => r.letters)
      const dead = await until('three dead letters', 60_000, async () => {
        const found = await letters()
        return found.length === 3 ? found : undefined
      })
      const mended = dead.find((l) => l.code === 'WEIR_DECODE_MISSING')!
      await client.json('POST', '/v1/dead-letters/visits/replay', { positions: [mended.position], event: visit(9_000) })
      await counted(sent + 2)
      const audit = await client.json('POST', '/v1/views/visits_by_site/audit', {})
      expect(audit).toMatchObject({ differences: 0, events: sent + 2 })
    } finally {
      await cluster.close()
      await rm(folder, { recursive: true, force: true })
    }
  },
)

test.skipIf(at === null)('a partition that is added while all runs', { timeout: 240_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-foreign-'))
  await weir(['init', join(folder, 'project')])
  const cluster = await openCluster(at!, { project: join(folder, 'project'), env: { WEIR_LOG_PARTITIONS: '2' } })
  const { Kafka, logLevel } = (await import('kafkajs')).default
  const kafka = new Kafka({ brokers: at!.kafka.split(','), logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  const producer = kafka.producer()
  try {
    const server = await cluster.start('ingest,speed,batch,serving')
    const client = openClient({ url: server.url })
    const topic = `${cluster.name}.visits`
    await Promise.all([admin.connect(), producer.connect()])
    const produce = (partition: number, from: number, to: number): Promise<unknown> =>
      producer.send({ topic, messages: range(from, to).map((n) => ({ value: visit(n), partition })) })
    const extended = async (): Promise<void> => {
      const { id } = await client.json<{ id: string }>('POST', '/v1/views/visits_by_site/batch/extend', {})
      await until('the extend', 60_000, async () => {
        const job = await client.json<{ state: string }>('GET', `/v1/jobs/${id}`)
        if (job.state === 'failed') throw new Error(JSON.stringify(job))
        return job.state === 'done' ? true : undefined
      })
    }
    const answered = (n: number): Promise<Record<string, string>> =>
      until(`${n} visits`, 60_000, async () => {
        const query = { view: 'visits_by_site', measures: ['visits_total'], dimensions: [], grain: 'all' }
        type Answer = {
          rows: { visits_total: number }[]
          asOf: { upper: Record<string, string>; cut: Record<string, string> }
        }
        const { rows, asOf } = await client.json<Answer>('POST', '/v1/query', query, { retry: true })
        return Number(rows[0]?.visits_total ?? 0) === n ? asOf.upper : undefined
      })

    await produce(1, 0, 30)
    await answered(30)
    await extended()
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    // A producer that knew two partitions drops what is sent to a third, and says nothing (kafkajs): it looks anew.
    await producer.disconnect()
    await producer.connect()
    await produce(3, 30, 50)
    const upper = await answered(50)
    expect(Object.keys(upper).sort()).toEqual(['0', '1', '2', '3'])
    await extended()
    await produce(2, 50, 55)
    await answered(55)
    const audit = await client.json('POST', '/v1/views/visits_by_site/audit', {})
    expect(audit).toMatchObject({ differences: 0, events: 55 })
  } finally {
    await Promise.all([admin.disconnect(), producer.disconnect()])
    await cluster.close()
    await rm(folder, { recursive: true, force: true })
  }
})
