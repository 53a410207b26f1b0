/**
 * docker-compose.yml without Docker: what it names exists, what it pins is pinned, and the very command lines of its services run, in their
 * environment, against real servers: only addresses, folders and ports are others.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { openClient } from '../../cli/client.ts'
import { ROLES } from '../../cli/roles.ts'
import type { Answer } from '../../model/query/query.ts'
import { settingNames } from '../../model/settings.ts'
import { type TestBucket, testBucket } from '../lake/s3-support.ts'
import { freshTopic, openTopicTools } from '../log/kafka-support.ts'
import { freePort, MAIN, ROOT, until } from '../support/server.ts'
import { service } from '../support/services.ts'

type Condition = 'service_healthy' | 'service_completed_successfully'
type Service = {
  image: string
  build?: string
  command?: string[]
  entrypoint?: string[]
  environment?: Record<string, string>
  healthcheck?: { test?: string[]; disable?: boolean }
  depends_on?: Record<string, { condition: Condition }>
  ports?: string[]
  profiles?: string[]
  restart?: string
  read_only?: boolean
  user?: string
  cap_drop?: string[]
  tmpfs?: string[]
  volumes?: string[]
  configs?: { source: string; target: string }[]
}
type Configs = Record<string, { content?: string; file?: string }> & { redis: { content: string } }
type Compose = { services: Record<string, Service>; configs: Configs; volumes: object }

/** As Compose fills variables in: `${NAME:-default}`, `${NAME:?message}`, `$$`. */
const filled = (text: string, env: Record<string, string>): string =>
  text.replace(/\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}/g, (whole, name?: string, kind?: string, rest = '') => {
    if (whole === '$$' || name === undefined) return '$'
    if (env[name]) return env[name]
    if (kind === '?') throw new Error(`${name} is required: ${rest}`)
    return rest
  })

const SECRETS = {
  REDIS_PASSWORD: randomBytes(12).toString('hex'),
  S3_ACCESS_KEY_ID: process.env.S3_ACCESS_KEY_ID ?? 'nobody',
  S3_SECRET_ACCESS_KEY: process.env.S3_SECRET_ACCESS_KEY ?? 'nothing',
}
const read = (path: string): Promise<string> => readFile(join(ROOT, path), 'utf8')
const compose = async (env: Record<string, string>): Promise<Compose> =>
  parse(filled(await read('docker-compose.yml'), env), { merge: true }) as Compose

describe('docker-compose.yml', () => {
  it('names settings that exist, and no secret', async () => {
    const known = new Set([...settingNames().map((s) => s.env), 'WEIR_URL', 'WEIR_API_KEY', 'WEIR_LOG_LEVEL'])
    for (const path of ['docker-compose.yml', 'Dockerfile', '.env.example'])
      for (const name of (await read(path)).match(/WEIR_[A-Z0-9_]+[A-Z0-9]/g) ?? [])
        if (name !== 'WEIR_HTTP_OPEN_BINDING') expect(known, `${path}: ${name}`).toContain(name)
    const secrets = settingNames().filter((s) => s.secret)
    const { services } = parse(await read('docker-compose.yml'), { merge: true }) as Compose
    for (const [name, { environment = {} }] of Object.entries(services))
      for (const { env } of secrets)
        if (environment[env] !== undefined) expect(environment[env], `${name}: ${env}`).toMatch(/^\$\{[A-Z0-9_]+:\?/)
  })

  it('refuses to start without each secret, and .env.example lists every variable', async () => {
    for (const name of Object.keys(SECRETS))
      await expect(compose({ ...SECRETS, [name]: '' })).rejects.toThrow(`${name} is required`)
    const used = [...(await read('docker-compose.yml')).matchAll(/\$\{(\w+)/g)].map(([, name]) => name!)
    const listed = [...(await read('.env.example')).matchAll(/^#?([A-Z0-9_]+)=/gm)].map(([, name]) => name!)
    expect([...new Set(used)].sort()).toEqual([...listed].sort())
  })

  it('pins images; ours has the version of the package', async () => {
    const { services } = await compose(SECRETS)
    const { version } = JSON.parse(await read('package.json')) as { version: string }
    for (const [name, { image }] of Object.entries(services)) expect(image, name).toMatch(/:v?\d+\.\d+\.\d+(-[\w.]+)?$/)
    expect(services.ingest!.image).toBe(`weir:${version}`)
    const dockerfile = await read('Dockerfile')
    expect(dockerfile).toContain(`org.opencontainers.image.version="${version}"`)
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base!)
    expect(new Set(bases).size).toBe(1)
    expect(bases[0]).toMatch(/^node:\d+\.\d+\.\d+-\w+-slim$/)
  })

  it('hardens our services, publishes on loopback only, and waits for what it needs', async () => {
    const { services, volumes } = await compose(SECRETS)
    for (const [name, s] of Object.entries(services)) {
      expect(s.cap_drop, name).toEqual(['ALL'])
      for (const port of s.ports ?? []) expect(port, name).toMatch(/^127\.0\.0\.1:\d+:8080$/)
      for (const needed of Object.keys(s.depends_on ?? {})) expect(Object.keys(services), name).toContain(needed)
      for (const [needed, { condition }] of Object.entries(s.depends_on ?? {}))
        if (condition === 'service_healthy') expect(services[needed]!.healthcheck?.test, needed).toBeDefined()
      for (const volume of s.volumes ?? [])
        if (/^\w+:/.test(volume)) expect(Object.keys(volumes), name).toContain(volume.split(':')[0])
      if (s.build === undefined) continue
      expect(s, name).toMatchObject({ read_only: true, user: '1000:1000' })
      expect(s.tmpfs, name).toEqual([
        expect.stringMatching(/^\/tmp:/),
        expect.stringMatching(/^\/var\/lib\/weir\/run:/),
      ])
    }
    for (const role of ROLES) {
      expect(services[role]!.command).toEqual(['start', '--role', role, '--project', '/project'])
      expect(services[role]).toMatchObject({
        restart: 'unless-stopped',
        depends_on: { kafka: {}, redis: {}, bucket: {} },
      })
    }
  })

  it('gives no config by its content to a read-only service: Compose refuses to create that', async () => {
    const { services, configs } = await compose(SECRETS)
    for (const [name, s] of Object.entries(services))
      for (const { source } of s.configs ?? [])
        expect({ name, readOnly: s.read_only === true, isFile: configs[source]?.file !== undefined }).not.toEqual({
          name,
          readOnly: true,
          isFile: false,
        })
  })

  it('takes into the image what the build and the product need', async () => {
    const kept = (await read('.dockerignore')).split('\n').filter((line) => line.startsWith('!'))
    const build = JSON.parse(await read('tsconfig.build.json')) as { include: string[] }
    for (const room of build.include) expect(kept).toContain(`!${room}`)
  })
})

const kafka = service('KAFKA_BROKERS')
const s3 = service('S3_ENDPOINT')
const hasRedis = service('REDIS_URL') !== null

describe.skipIf(kafka === null || s3 === null || !hasRedis)('its services on real servers', () => {
  const running: ChildProcess[] = []
  const prefix = `${freshTopic('compose')}.`
  let folder: string
  let bucket: TestBucket
  let services: Record<string, Service>
  /** What stands in the file → what it is here. */
  const places: Record<string, string> = { '/project': join(ROOT, 'examples', 'shop') }
  const here = (text: string): string => places[text] ?? text
  let own: Record<string, string>

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weir-compose-'))
    const whole = await compose(SECRETS)
    services = whole.services
    bucket = await testBucket(s3!)
    const redisPort = await freePort()
    const conf = join(folder, 'redis.conf')
    const data = join(folder, 'redis')
    await mkdir(data)
    await writeFile(conf, whole.configs.redis.content.replace('dir /data', `dir ${data}`))
    running.push(spawn('redis-server', [conf, '--bind', '127.0.0.1', '--port', `${redisPort}`], { stdio: 'ignore' }))
    const redis = new Redis({
      port: redisPort,
      host: '127.0.0.1',
      password: SECRETS.REDIS_PASSWORD,
      retryStrategy: () => 50,
    })
    redis.on('error', () => undefined)
    await until('Redis', 20_000, async () => ((await redis.ping()) === 'PONG' ? true : undefined))
    redis.disconnect()
    places['kafka:9092'] = kafka!
    places['redis://redis:6379'] = `redis://127.0.0.1:${redisPort}`
    places['http://s3:7070'] = s3!
    own = {
      // Of the image; and what keeps this test apart from others on the same servers.
      WEIR_DATA_DIR: join(folder, 'data'),
      WEIR_KAFKA_TOPIC_PREFIX: prefix,
      WEIR_KAFKA_GROUP: prefix,
      WEIR_S3_BUCKET: `weir-test-${randomBytes(8).toString('hex')}`,
    }
  })
  afterAll(async () => {
    await Promise.all(
      running.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill('SIGKILL')
        await once(child, 'exit')
      }),
    )
    const tools = openTopicTools(kafka!)
    for (const name of ['orders', 'page_views', 'inventory', 'promotions']) await tools.remove(prefix + name)
    await tools.close()
    await rm(folder, { recursive: true, force: true })
    const { client, sdk } = bucket.s3
    const Bucket = own.WEIR_S3_BUCKET!
    for (;;) {
      const { Contents = [] } = await client
        .send(new sdk.ListObjectsV2Command({ Bucket }))
        .catch(() => ({ Contents: [] }))
      if (Contents.length === 0) break
      await client.send(
        new sdk.DeleteObjectsCommand({ Bucket, Delete: { Objects: Contents.map(({ Key }) => ({ Key })) } }),
      )
    }
    await client.send(new sdk.DeleteBucketCommand({ Bucket })).catch(() => undefined)
    await bucket.remove()
  })

  const environment = (name: string): Record<string, string> => {
    const given = Object.entries(services[name]!.environment ?? {}).map(([key, value]) => [key, here(value)])
    // Nothing of the machine's own environment but what a program needs to run.
    return { PATH: process.env.PATH ?? '', ...Object.fromEntries(given), ...own }
  }
  /** The service's process: its command behind its entrypoint, or the image's. */
  const launch = (name: string, more: Record<string, string> = {}): { child: ChildProcess; printed: () => string } => {
    const { entrypoint = ['node', MAIN], command = [] } = services[name]!
    const [program, ...args] = [...entrypoint, ...command.map(here)]
    const child = spawn(program === 'node' ? process.execPath : program!, args, {
      cwd: ROOT,
      env: { ...environment(name), ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.push(child)
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (text += String(chunk)))
    return { child, printed: () => text }
  }
  const runToEnd = async (name: string, more?: Record<string, string>): Promise<{ code: number; printed: string }> => {
    const { child, printed } = launch(name, more)
    const [code] = (await once(child, 'close')) as [number]
    return { code, printed: printed() }
  }

  it('bucket, keys, doctor, then each role: an event in at ingest comes out at serving', {
    timeout: 180_000,
  }, async () => {
    for (const _ of ['creates it', 'leaves it']) expect(await runToEnd('bucket')).toMatchObject({ code: 0 })
    const withoutKeys = await runToEnd('ingest', { WEIR_SERVER_PORT: String(await freePort()) })
    expect(withoutKeys).toMatchObject({ code: 1, printed: expect.stringContaining('WEIR_HTTP_OPEN_BINDING') })
    const key = /wk_\w+/.exec((await runToEnd('keys')).printed)?.[0]
    expect(key).toBeDefined()
    const doctor = await runToEnd('doctor')
    expect(doctor.printed).not.toMatch(/PROBLEM|warning {2}(?!user)/)
    expect(doctor.code).toBe(0)

    const ports = new Map<string, number>()
    const roles: ChildProcess[] = []
    const outputs = new Map<string, () => string>()
    for (const role of ROLES) {
      const port = await freePort()
      ports.set(role, port)
      const launched = launch(role, { WEIR_SERVER_PORT: String(port) })
      roles.push(launched.child)
      outputs.set(role, launched.printed)
    }
    const printed = (): string => [...outputs].map(([role, text]) => `${role}:\n${text()}`).join('\n')
    for (const role of ROLES) {
      // The service's own health check.
      const [, , ...check] = services[role]!.healthcheck!.test!.map((t) => t.replace(':8080', `:${ports.get(role)}`))
      await until(`${role} is healthy`, 60_000, async () => {
        const child = spawn(process.execPath, check, { stdio: 'ignore' })
        const [code] = (await once(child, 'exit')) as [number]
        return code === 0 ? true : undefined
      }).catch((error: Error) => {
        throw new Error(`${error.message}\n${printed()}`)
      })
    }

    // And the image's own.
    const [, image] = /HEALTHCHECK[^\n]*\n\s+CMD (\[.*\])/.exec(await read('Dockerfile'))!
    const env = { ...process.env, WEIR_SERVER_PORT: String(ports.get('ingest')) }
    const alive = spawn(process.execPath, (JSON.parse(image!) as string[]).slice(1), { env, stdio: 'ignore' })
    expect(await once(alive, 'exit')).toEqual([0, null])

    const at = (role: string) => openClient({ url: `http://127.0.0.1:${ports.get(role)}`, key })
    const order = {
      event_id: 'e-1',
      order_id: 'o-1',
      ts: new Date().toISOString(),
      country: 'DE',
      status: 'paid',
      amount: '3.50',
    }
    const { accepted, token } = await at('ingest').json<{ accepted: number; token: string }>(
      'POST',
      '/v1/events/orders',
      order,
    )
    expect(accepted).toBe(1)
    const count = async (more: object): Promise<number> => {
      const query = { view: 'revenue_by_country', measures: ['order_count'], dimensions: [], grain: 'all', ...more }
      return Number((await at('serving').json<Answer>('POST', '/v1/query', query)).rows[0]!.order_count)
    }
    expect(await count({ atLeast: token, waitMs: 20_000 })).toBe(1)

    places['http://ingest:8080'] = `http://127.0.0.1:${ports.get('ingest')}`
    const load = launch('load', { WEIR_API_KEY: key! })
    await until('the load', 30_000, async () => ((await count({})) > 50 ? true : undefined))

    for (const child of [load.child, ...roles]) {
      child.kill('SIGTERM')
      if (child.exitCode === null) await once(child, 'exit')
      expect(child.exitCode, printed()).toBe(0)
    }
  })
})
