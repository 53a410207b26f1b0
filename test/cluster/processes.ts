/**
 * A Weir on real servers: so many processes of each role, each with a data folder of its own, as on machines of their own.
 * Invariant: everything it makes on the servers begins with its own name, and goes when it is closed; so do its processes and folders.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { S3Client } from '@aws-sdk/client-s3'
import type { Role } from '../../cli/roles.ts'
import { type Server, startServer } from '../support/server.ts'
import { service } from '../support/services.ts'

export type Places = { kafka: string; redis: Record<string, string>; s3: Record<string, string> }

/** Kafka, one Redis and S3 of the environment; null when one is missing (its reason is printed). */
export const places = (redis: 'REDIS_URL' | 'REDIS_CLUSTER' = 'REDIS_URL'): Places | null => {
  const [kafka, at, endpoint] = [service('KAFKA_BROKERS'), service(redis), service('S3_ENDPOINT')]
  if (kafka === null || at === null || endpoint === null) return null
  const { S3_ACCESS_KEY_ID = '', S3_SECRET_ACCESS_KEY = '', S3_REGION = 'us-east-1' } = process.env
  return {
    kafka,
    redis: redis === 'REDIS_URL' ? { WEIR_REDIS_URL: at } : { WEIR_REDIS_CLUSTER: at },
    s3: {
      WEIR_S3_ENDPOINT: endpoint,
      WEIR_S3_REGION: S3_REGION,
      WEIR_S3_ACCESS_KEY_ID: S3_ACCESS_KEY_ID,
      WEIR_S3_SECRET_ACCESS_KEY: S3_SECRET_ACCESS_KEY,
    },
  }
}

export type Cluster = {
  name: string
  env: Record<string, string>
  /** Roles with commas. */
  start(roles: string): Promise<Server>
  /** Those that run a role. */
  running(role: Role): Server[]
  urls(role: Role): string[]
  rolesOf(server: Server): string
  kill(server: Server): Promise<void>
  /** TERM; throws unless it ends by itself with 0. */
  stop(server: Server): Promise<void>
  /** What the processes printed at last, those that are gone too. */
  logs(): string
  close(): Promise<void>
}

const s3Of = async (env: Record<string, string>): Promise<S3Client> => {
  const { S3Client: Client } = await import('@aws-sdk/client-s3')
  return new Client({
    endpoint: env.WEIR_S3_ENDPOINT!,
    region: env.WEIR_S3_REGION!,
    forcePathStyle: true,
    credentials: { accessKeyId: env.WEIR_S3_ACCESS_KEY_ID!, secretAccessKey: env.WEIR_S3_SECRET_ACCESS_KEY! },
  })
}

const emptyBucket = async (s3: S3Client, Bucket: string): Promise<void> => {
  const { DeleteBucketCommand, DeleteObjectCommand, ListObjectsV2Command } = await import('@aws-sdk/client-s3')
  for (;;) {
    const { Contents = [] } = await s3.send(new ListObjectsV2Command({ Bucket }))
    if (Contents.length === 0) break
    for (const { Key } of Contents) await s3.send(new DeleteObjectCommand({ Bucket, Key: Key! }))
  }
  await s3.send(new DeleteBucketCommand({ Bucket }))
}

const removeTopics = async (brokers: string, prefix: string): Promise<void> => {
  const { Kafka, logLevel } = (await import('kafkajs')).default
  const admin = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  try {
    const topics = (await admin.listTopics()).filter((t) => t.startsWith(prefix))
    if (topics.length > 0) await admin.deleteTopics({ topics })
  } finally {
    await admin.disconnect()
  }
}

const removeKeys = async (redis: Record<string, string>, prefix: string): Promise<void> => {
  const { Cluster: RedisCluster, Redis } = await import('ioredis')
  const nodes = redis.WEIR_REDIS_CLUSTER?.split(',')
  const cluster = nodes
    ? new RedisCluster(nodes.map((n) => ({ host: n.split(':')[0]!, port: Number(n.split(':')[1]) })))
    : null
  const single = cluster === null ? new Redis(redis.WEIR_REDIS_URL!) : null
  try {
    if (cluster !== null) await new Promise((resolve) => cluster.once('ready', resolve))
    for (const node of cluster?.nodes('master') ?? [single!])
      for (const pattern of [`${prefix}*`, `{${prefix}*`])
        for await (const keys of node.scanStream({ match: pattern, count: 1_000 }))
          for (const key of keys as string[]) await (cluster ?? single!).del(key)
  } finally {
    ;(cluster ?? single)!.disconnect()
  }
}

/** `env` wins over what the cluster sets by itself. */
export const openCluster = async (
  at: Places,
  options: { project: string; env?: Record<string, string> },
): Promise<Cluster> => {
  const name = `t${randomBytes(5).toString('hex')}`
  const folder = await mkdtemp(join(tmpdir(), 'weir-cluster-'))
  const env: Record<string, string> = {
    WEIR_KAFKA_BROKERS: at.kafka,
    WEIR_KAFKA_TOPIC_PREFIX: `${name}.`,
    WEIR_KAFKA_GROUP: name,
    ...at.redis,
    WEIR_REDIS_PREFIX: name,
    ...at.s3,
    WEIR_S3_BUCKET: name,
    WEIR_LOG_PARTITIONS: '4',
    WEIR_SCHEDULES_EXTEND: 'off',
    WEIR_SCHEDULES_RECOMPUTE: 'off',
    WEIR_SCHEDULES_COMPACT: 'off',
    ...options.env,
  }
  // The store itself, whatever stands before it in the processes' environment.
  const s3 = await s3Of({ ...env, ...at.s3 })
  const { CreateBucketCommand } = await import('@aws-sdk/client-s3')
  await s3.send(new CreateBucketCommand({ Bucket: name }))
  const live = new Map<Server, string>()
  const all: { roles: string; server: Server }[] = []
  let started = 0
  const running = (role: Role): Server[] =>
    [...live].flatMap(([server, roles]) => (roles.split(',').includes(role) ? [server] : []))
  const kill = async (server: Server): Promise<void> => {
    live.delete(server)
    await server.kill()
  }
  return {
    name,
    env,
    running,
    kill,
    stop: async (server) => {
      live.delete(server)
      const code = await server.stop()
      if (code !== 0) throw new Error(`a process ended with ${code} when it was told to stop:\n${server.output()}`)
    },
    logs: () => all.map(({ roles, server }) => `-- ${roles}\n${server.output().slice(-3_000)}`).join('\n'),
    rolesOf: (server) => live.get(server)!,
    start: async (roles) => {
      const data = join(folder, `${roles}-${started++}`)
      // Several start at once beside loaded servers: how long that takes is the machine's matter, and shows nothing.
      const deadlineMs = 180_000
      const server = await startServer({ project: options.project, data, args: ['--role', roles], env, deadlineMs })
      live.set(server, roles)
      all.push({ roles, server })
      return server
    },
    urls: (role) => running(role).map((server) => server.url),
    close: async () => {
      await Promise.all([...live.keys()].map(kill))
      // A recompute's own process outlives its parent for a moment, and may still write there.
      await rm(folder, { recursive: true, force: true, maxRetries: 10 })
      await removeTopics(at.kafka, `${name}.`)
      await removeKeys(at.redis, name)
      await emptyBucket(s3, name)
      s3.destroy()
    },
  }
}
