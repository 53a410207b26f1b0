/** `weir doctor` and the servers that settings name: what is well, what is not and how to mend it; silent ones; no secrets. */
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Finding } from '../../cli/commands/doctor-finding.ts'
import { testBucket } from '../lake/s3-support.ts'
import { freshTopic, openTopicTools, type TopicTools } from '../log/kafka-support.ts'
import { openRedisServer } from '../speed-layer/redis-server.ts'
import { freePort, ROOT } from '../support/server.ts'
import { service } from '../support/services.ts'
import { weir } from '../support/weir.ts'

const kafka = service('KAFKA_BROKERS')
const redis = service('REDIS_URL')
const cluster = service('REDIS_CLUSTER')
const s3 = service('S3_ENDPOINT')

const SECRET = 'hunter2-never-shown'
const SERVERS = /^(kafka|topic|redis|job queues|s3)/

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-doctor-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Findings about servers, and all that was printed. */
const doctor = async (env: Record<string, string>, project = join(ROOT, 'examples', 'starter')) => {
  const where = ['--project', project, '--data', join(folder, 'data')]
  const { code, out, err } = await weir(['doctor', ...where, '--json'], env)
  const all = JSON.parse(out) as Finding[]
  return { code, found: all.filter((f) => SERVERS.test(f.check)), printed: out + err }
}
const shortly = (found: Finding[]): string[] => found.map((f) => `${f.state} ${f.check}`)

const bucketEnv = (endpoint: string, bucket: string): Record<string, string> => ({
  WEIR_S3_ENDPOINT: endpoint,
  WEIR_S3_BUCKET: bucket,
  WEIR_S3_ACCESS_KEY_ID: process.env.S3_ACCESS_KEY_ID ?? 'nobody',
  WEIR_S3_SECRET_ACCESS_KEY: process.env.S3_SECRET_ACCESS_KEY ?? SECRET,
})

describe('the environment', () => {
  it('names a misspelt variable and a file that is not there, and shows no value', async () => {
    const missing = join(folder, 'no-such-ca.pem')
    const { printed } = await doctor({
      WEIR_REDIS_URI: `redis://:${SECRET}@127.0.0.1:1`,
      WEIR_KAFKA_BROKERS: `127.0.0.1:${await freePort()}`,
      WEIR_KAFKA_TLS: 'true',
      WEIR_KAFKA_CA_FILE: missing,
    })
    expect(printed).toContain('WEIR_REDIS_URI is no setting and does nothing: did you mean WEIR_REDIS_URL?')
    expect(printed).toContain(missing)
    expect(printed).not.toContain(SECRET)
    const config = await weir(['config', '--project', join(ROOT, 'examples', 'starter')], { WEIR_REDIS_URI: SECRET })
    expect(config).toMatchObject({ code: 0, err: expect.stringContaining('did you mean WEIR_REDIS_URL?') })
    expect(config.out + config.err).not.toContain(SECRET)
  })
})

describe('servers that do not answer', () => {
  const access = {
    WEIR_KAFKA_MECHANISM: 'plain',
    WEIR_KAFKA_USERNAME: 'weir',
    WEIR_KAFKA_PASSWORD: SECRET,
    WEIR_REDIS_PASSWORD: SECRET,
    WEIR_S3_BUCKET: 'lake',
    WEIR_S3_ACCESS_KEY_ID: 'nobody',
    WEIR_S3_SECRET_ACCESS_KEY: SECRET,
  }
  const placesAt = (port: number) => ({
    WEIR_KAFKA_BROKERS: `127.0.0.1:${port}`,
    WEIR_REDIS_URL: `redis://weir:${SECRET}@127.0.0.1:${port}`,
    WEIR_S3_ENDPOINT: `http://127.0.0.1:${port}`,
  })

  it('says so of closed ports, with what to do, and no secret', async () => {
    const port = await freePort()
    const { code, found, printed } = await doctor({ ...access, ...placesAt(port) })
    expect(code).toBe(1)
    expect(shortly(found)).toEqual([`problem kafka 127.0.0.1:${port}`, 'problem redis', 'problem s3'])
    for (const { text, next } of found) {
      expect(text).toMatch(/ECONNREFUSED.*\[WEIR_/)
      expect(next).toBeTruthy()
    }
    expect(printed).not.toContain(SECRET)
  })

  it('gives up in time on ports that take a connection and say nothing', async () => {
    const sockets: Socket[] = []
    const mute = createServer((socket) => sockets.push(socket.on('error', () => undefined)))
    mute.listen(0, '127.0.0.1')
    await once(mute, 'listening')
    try {
      const began = performance.now()
      const { code, found } = await doctor({ ...access, ...placesAt((mute.address() as AddressInfo).port) })
      expect(code).toBe(1)
      expect(found.map((f) => f.state)).toEqual(['problem', 'problem', 'problem'])
      // In parallel: together not much longer than one of them.
      expect(performance.now() - began).toBeLessThan(15_000)
    } finally {
      for (const socket of sockets) socket.destroy()
      mute.close()
    }
  })
})

it('asks no server where none is named', async () => {
  expect((await doctor({})).found).toEqual([])
})

describe.skipIf(kafka === null)('Kafka', () => {
  const prefix = `${freshTopic('doctor')}.`
  const env = { WEIR_KAFKA_BROKERS: kafka ?? '', WEIR_KAFKA_TOPIC_PREFIX: prefix }
  let tools: TopicTools
  let project: string
  const KINDS = ['fine', 'compacted', 'producers', 'small', 'short', 'missing']
  beforeAll(async () => {
    project = join(folder, 'topics')
    await weir(['init', project])
    const dataset = (name: string): string =>
      `dataset: ${name}\neventTime: ts\nid: id\ndedupe: { window: 1 hour }\ncolumns: { id: VARCHAR, ts: TIMESTAMPTZ }\n`
    for (const name of KINDS) await writeFile(join(project, 'datasets', `${name}.yaml`), dataset(name))
    tools = openTopicTools(kafka!)
    const appendTime = { 'message.timestamp.type': 'LogAppendTime', 'retention.ms': '-1' }
    await tools.make(`${prefix}fine`, 3, appendTime)
    await tools.make(`${prefix}compacted`, 1, { ...appendTime, 'cleanup.policy': 'compact' })
    await tools.make(`${prefix}producers`, 1, { 'message.timestamp.type': 'CreateTime' })
    await tools.make(`${prefix}small`, 1, { ...appendTime, 'max.message.bytes': '10000' })
    await tools.make(`${prefix}short`, 1, { ...appendTime, 'retention.ms': '7200000', 'retention.bytes': '1000000' })
  })
  afterAll(async () => {
    for (const name of KINDS) await tools?.remove(prefix + name)
    await tools?.close()
  })

  it('names each broker and what each topic needs', async () => {
    const { code, found } = await doctor(env, project)
    expect(code).toBe(1)
    const of = (name: string) => found.filter((f) => f.check === `topic ${prefix}${name}`)
    expect(found[0]).toMatchObject({ check: `kafka ${kafka}`, state: 'ok' })
    expect(of('fine')).toMatchObject([{ state: 'ok', text: expect.stringContaining('3 partition(s)') }])
    expect(of('missing')).toMatchObject([{ state: 'ok', text: expect.stringContaining('missing') }])
    expect(of('compacted')).toMatchObject([{ state: 'problem', text: expect.stringContaining('WEIR_LOG_COMPACTED') }])
    expect(of('producers')).toMatchObject([
      {
        state: 'problem',
        text: expect.stringContaining('WEIR_LOG_CREATE_TIME'),
        next: expect.stringContaining('LogAppendTime'),
      },
    ])
    expect(of('small')).toMatchObject([{ state: 'problem', next: expect.stringContaining('max.message.bytes=') }])
    expect(of('short')).toMatchObject([
      { state: 'warning', text: expect.stringContaining('2 hour(s)') },
      { state: 'warning', text: expect.stringContaining('1000000 bytes') },
    ])
    expect(await tools.admin.listTopics()).not.toContain(`${prefix}missing`)
  })

  it('warns of a broker that is away while another one answers', async () => {
    const away = `127.0.0.1:${await freePort()}`
    const { found } = await doctor({ ...env, WEIR_KAFKA_BROKERS: `${kafka},${away}` }, project)
    expect(shortly(found).slice(0, 2)).toEqual([`ok kafka ${kafka}`, `warning kafka ${away}`])
    expect(found.find((f) => f.check === `topic ${prefix}missing`)?.state).toBe('ok')
  })
})

describe.skipIf(redis === null)('Redis', () => {
  it('tells version and fitness, and that BullMQ may use it; writes nothing', async () => {
    const prefix = `doctor-${crypto.randomUUID()}`
    const { found } = await doctor({ WEIR_REDIS_URL: redis!, WEIR_REDIS_PREFIX: prefix })
    expect(found.filter((f) => f.state === 'problem')).toEqual([])
    expect(found.at(-1)).toMatchObject({
      check: 'job queues',
      state: 'ok',
      text: expect.stringContaining(`{${prefix}}`),
    })
    const client = new Redis(redis!)
    try {
      expect(await client.keys(`*${prefix}*`)).toEqual([])
    } finally {
      client.disconnect()
    }
  })

  it('does not look for queues where jobs are embedded', async () => {
    const { found } = await doctor({ WEIR_REDIS_URL: redis!, WEIR_BATCH_SCHEDULER: 'embedded' })
    expect(found.some((f) => f.check === 'job queues')).toBe(false)
  })

  it('tells how to mend an evicting Redis without persistence', async () => {
    const server = await openRedisServer(['--maxmemory-policy', 'allkeys-lru', '--appendonly', 'no'])
    try {
      const { code, found } = await doctor({ WEIR_REDIS_URL: server.url })
      expect(code).toBe(1)
      const mending = found.filter((f) => f.state === 'problem').map((f) => f.next)
      expect(mending).toEqual([
        expect.stringContaining('CONFIG SET maxmemory-policy noeviction'),
        expect.stringContaining('CONFIG SET appendonly yes'),
      ])
    } finally {
      await server.remove()
    }
  })
})

describe.skipIf(cluster === null)('a Redis Cluster', () => {
  it('is asked at all masters', async () => {
    const { code, found } = await doctor({ WEIR_REDIS_CLUSTER: cluster! })
    expect(code).toBe(0)
    expect(found.at(-1)).toMatchObject({ check: 'job queues', state: 'ok' })
  })
})

describe.skipIf(s3 === null)('S3', () => {
  it('tries the bucket and leaves nothing in it', async () => {
    const bucket = await testBucket(s3!)
    try {
      const { code, found } = await doctor(bucketEnv(s3!, bucket.options.bucket))
      expect(code).toBe(0)
      expect(found).toMatchObject([{ state: 'ok', text: expect.stringContaining('conditional writes are kept') }])
      const { Contents = [] } = await bucket.s3.client.send(
        new bucket.s3.sdk.ListObjectsV2Command({ Bucket: bucket.options.bucket }),
      )
      expect(Contents).toEqual([])
      expect(await readdir(folder)).not.toContain('data')
    } finally {
      await bucket.remove()
    }
  })

  it('tells a missing bucket and a wrong secret', async () => {
    const missing = await doctor(bucketEnv(s3!, `weir-test-${crypto.randomUUID()}`))
    expect(missing.found).toMatchObject([{ state: 'problem', next: expect.stringContaining('create the bucket') }])
    const wrong = { ...bucketEnv(s3!, 'lake'), WEIR_S3_SECRET_ACCESS_KEY: SECRET }
    const { found, printed } = await doctor(wrong)
    expect(found).toMatchObject([{ state: 'problem', text: expect.stringContaining('WEIR_LAKE_ACCESS') }])
    expect(printed).not.toContain(SECRET)
  })
})
