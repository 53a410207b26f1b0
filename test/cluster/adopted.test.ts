/**
 * A topic that others have written to for longer than its retention: its start is gone, in part or wholly, before Weir ever sees it. What is
 * left counts, exactly, all the way: door, extend, recompute, restart, a lost speed store. What goes missing later is loud.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Client, openClient } from '../../cli/client.ts'
import { openTopicTools, type TopicTools } from '../log/kafka-support.ts'
import { startServer, until } from '../support/server.ts'
import { weir } from '../support/weir.ts'
import { type Cluster, openCluster, places } from './processes.ts'
import { openServers } from './steps.ts'

const at = places()

const visit = (n: number): string =>
  JSON.stringify({
    visit_id: `v-${n}`,
    ts: new Date(Date.UTC(2026, 10, 25, 10, 0, n % 600)).toISOString(),
    site: ['blog', 'shop'][n % 2],
    user_id: `u-${n % 17}`,
    seconds: n / 10,
    paid: '1.50',
  })
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

type Answer = {
  rows: { visits_total: number }[]
  asOf: { upper: Record<string, string>; cut: Record<string, string> }
  timing: { lagRecords: number; lagMs: number }
}
type PartitionStatus = { originOffset: number; startOffset: number; endOffset: number; archived: number | null }
type Status = {
  datasets: {
    appended: number
    records: number
    counted: number
    duplicate: number
    dead: number
    partitions: PartitionStatus[]
  }[]
  views: { lag: { records: number; ms: number }; problem: string | null; drift: number | null }[]
}

const asked = (client: Client): Promise<Answer> =>
  client.json<Answer>(
    'POST',
    '/v1/query',
    { view: 'visits_by_site', measures: ['visits_total'], dimensions: [], grain: 'all' },
    { retry: true },
  )
const answered = (client: Client, n: number): Promise<Answer> =>
  until(`${n} visits`, 60_000, async () => {
    const answer = await asked(client)
    return Number(answer.rows[0]?.visits_total ?? 0) === n ? answer : undefined
  })
const done = async (client: Client, action: string): Promise<void> => {
  const { id } = await client.json<{ id: string }>('POST', `/v1/views/visits_by_site/batch/${action}`, {})
  await until(action, 60_000, async () => {
    const job = await client.json<{ state: string }>('GET', `/v1/jobs/${id}`)
    if (job.state === 'failed') throw new Error(JSON.stringify(job))
    return job.state === 'done' ? true : undefined
  })
}

describe.skipIf(at === null)('a topic that is older than its retention', () => {
  let folder: string
  let tools: TopicTools
  let cluster: Cluster
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weir-adopted-'))
    await weir(['init', join(folder, 'project')])
  })
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  const topicOf = (): string => `${cluster.name}.visits`
  const produce = async (partition: number, from: number, to: number): Promise<void> => {
    const producer = await tools.producer()
    for (let n = from; n < to; n += 7) {
      const messages = range(n, Math.min(to, n + 7)).map((i) => ({ value: visit(i), key: `v-${i}`, partition }))
      await producer.send({ topic: topicOf(), messages })
    }
  }
  const deleteBelow = async (partition: number, offset: number): Promise<void> => {
    await tools.admin.fetchTopicOffsets(topicOf())
    await tools.admin.deleteTopicRecords({ topic: topicOf(), partitions: [{ partition, offset: String(offset) }] })
  }
  /** Partition 0 has lost a part, in the middle of a batch; 1 everything; 2 nothing; 3 never had anything. */
  const age = async (): Promise<number> => {
    await tools.make(topicOf(), 4)
    await produce(0, 0, 40)
    await produce(1, 100, 130)
    await produce(2, 200, 220)
    await deleteBelow(0, 25)
    await deleteBelow(1, 30)
    return 15 + 20
  }
  const withCluster = async (run: () => Promise<void>): Promise<void> => {
    cluster = await openCluster(at!, {
      project: join(folder, 'project'),
      env: { WEIR_ARCHIVE_MAX_AGE_MS: '300', WEIR_BATCH_RETIRE_AFTER_MS: '300' },
    })
    tools = openTopicTools(at!.kafka)
    try {
      await run()
    } catch (error) {
      throw new Error(`${String(error)}\n${cluster.logs()}`, { cause: error })
    } finally {
      await tools.close()
      await cluster.close()
    }
  }
  const loseRedis = async (): Promise<number> => {
    const servers = await openServers(at!.redis)
    try {
      const all = { chance: () => true } as unknown as Parameters<typeof servers.lose>[2]
      return await servers.lose(cluster.name, 1, all)
    } finally {
      servers.close()
    }
  }

  test('counts what is left, exactly, all the way', { timeout: 300_000 }, () =>
    withCluster(async () => {
      let expected = await age()
      const roles = ['ingest', 'serving', 'speed,batch']
      await Promise.all(roles.map(cluster.start))
      let client = openClient({ url: cluster.urls('serving')[0]! })
      const first = await answered(client, expected)
      expect(first.asOf.upper).toEqual({ '0': '40', '1': '0', '2': '20', '3': '0' })
      expect(first.timing).toMatchObject({ lagRecords: 0, lagMs: 0 })

      const consistent = async (): Promise<void> => {
        const { datasets, views } = await until('nothing lags', 60_000, async () => {
          const status = await client.json<Status>('GET', '/v1/status')
          return status.views.every((v) => v.lag.records === 0 && v.problem === null) ? status : undefined
        })
        const [d] = datasets
        expect(d!.counted + d!.duplicate + d!.dead).toBe(d!.appended)
        expect(d!.counted).toBe(expected)
        expect(d!.partitions.map((p) => p.originOffset)).toEqual([25, 30, 0, 0])
        for (const view of views) expect(view.drift ?? 0).toBe(0)
        const audit = await client.json('POST', '/v1/views/visits_by_site/audit', {})
        expect(audit).toMatchObject({ differences: 0, events: expected })
      }
      await consistent()

      // Both the door and the others go on writing, into the emptied partition too.
      const body = `${range(300, 360).map(visit).join('\n')}\n`
      const door = openClient({ url: cluster.urls('ingest')[0]! })
      const sent = await door.send('POST', '/v1/events/visits', {
        body,
        headers: { 'content-type': 'application/x-ndjson' },
      })
      expect(sent.status).toBe(200)
      const { token } = JSON.parse(sent.body.toString('utf8')) as { token: string }
      await produce(1, 130, 140)
      expected += 70
      await answered(client, expected)
      const query = { view: 'visits_by_site', limit: 1, atLeast: token, waitMs: 20_000 }
      expect(await client.json('POST', '/v1/query', query)).toBeTruthy()
      await done(client, 'extend')
      await produce(3, 400, 405)
      expected += 5
      await answered(client, expected)
      await done(client, 'recompute')
      await done(client, 'verify')
      await consistent()

      // All processes start anew; the speed state is gone.
      for (const role of ['ingest', 'serving', 'batch'] as const)
        for (const server of cluster.running(role)) await cluster.kill(server)
      expect(await loseRedis()).toBeGreaterThan(0)
      await produce(1, 140, 145)
      expected += 5
      await Promise.all(roles.map(cluster.start))
      client = openClient({ url: cluster.urls('serving')[0]! })
      await answered(client, expected)
      await done(client, 'extend')
      await consistent()

      // Others delete what is archived and published: that is nothing new, and takes nothing away.
      const { datasets } = await client.json<Status>('GET', '/v1/status')
      const archived = datasets[0]!.partitions[0]!.archived!
      expect(archived).toBeGreaterThanOrEqual(40)
      await deleteBelow(0, 39)
      await produce(0, 40, 43)
      expected += 3
      await answered(client, expected)
      await consistent()

      // Another lake is no first start: its silence would look like a topic whose events never were.
      const elsewhere = startServer({
        project: join(folder, 'project'),
        data: join(folder, 'elsewhere'),
        args: ['--role', 'serving'],
        env: { ...cluster.env, WEIR_S3_PREFIX: 'elsewhere/' },
      })
      await expect(elsewhere).rejects.toThrow('WEIR_CLI_DATASET_FORGOTTEN')
    }),
  )

  test('a lost speed store is rebuilt before anything was published', { timeout: 180_000 }, () =>
    withCluster(async () => {
      const expected = await age()
      await cluster.start('ingest,serving,speed,batch')
      const client = openClient({ url: cluster.urls('serving')[0]! })
      await answered(client, expected)
      expect(await loseRedis()).toBeGreaterThan(0)
      await produce(1, 130, 131)
      await answered(client, expected + 1)
    }),
  )

  test('what is deleted past the origin, and was never archived, is loud', { timeout: 180_000 }, () =>
    withCluster(async () => {
      const expected = await age()
      // The dataset is defined, and nobody reads yet.
      await cluster.start('ingest')
      await deleteBelow(0, 26)
      const late = await startServer({
        project: join(folder, 'project'),
        data: join(folder, 'late'),
        args: ['--role', 'speed,batch'],
        env: cluster.env,
        ready: false,
      })
      try {
        const told = (code: string): Promise<unknown> =>
          until(code, 60_000, async () => (late.output().includes(code) ? true : undefined))
        await told('WEIR_SPEED_BELOW_START')
        await told('WEIR_BATCH_ARCHIVER_STOPPED')
        expect((await fetch(`${late.url}/readyz`)).status).toBe(503)
        // The other partitions are taken in; of this one no record is answered for.
        const client = openClient({ url: (await cluster.start('serving')).url })
        const answer = await answered(client, expected - 15)
        expect(answer.asOf.upper).toEqual({ '0': '0', '1': '0', '2': '20', '3': '0' })
      } finally {
        await late.kill()
      }
    }),
  )
})
