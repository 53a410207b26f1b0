/**
 * The real servers that the case `cluster` stands on, named by KAFKA_BROKERS, REDIS_URL and S3_ENDPOINT.
 * Invariant: whatever a benchmark makes on them begins with its own name, and `removeAll` removes it. Clients are loaded when
 * they are first used: other cases do not pay for them.
 */
import { createHash } from 'node:crypto'
import type { S3Client } from '@aws-sdk/client-s3'
import type { Redis } from 'ioredis'
import { type KafkaLog, openKafkaLog } from '../../log/kafka-log.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import { itemsOf } from '../../model/settings-servers.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import type { Env } from '../harness/case.ts'
import { treeCpuS } from '../harness/cpu.ts'
import { pidOfPort } from '../harness/ports.ts'
import { until } from '../server.ts'

const NEEDED = ['KAFKA_BROKERS', 'REDIS_URL', 'S3_ENDPOINT'] as const

/** Why the case cannot run here; null when it can. */
export const missingServers = (): string | null => {
  const missing = NEEDED.filter((name) => !process.env[name])
  return missing.length === 0 ? null : `${missing.join(', ')} not set (scripts/services/README.md)`
}

/** A variable of the servers; throws when it is not set. */
const named = (name: (typeof NEEDED)[number]): string => {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}

/** Starts the name of everything that this benchmark makes on the servers. */
export const nameOf = ({ shared }: Env): string =>
  `weir-bench-${createHash('sha256').update(shared).digest('hex').slice(0, 12)}`

export const topicPrefix = (name: string): string => `${name}.`

/** A log over the topics under a name; its topics are made with `partitions` when the dataset is created. */
export const kafkaLog = (name: string): Promise<KafkaLog> =>
  openKafkaLog({
    brokers: itemsOf(named('KAFKA_BROKERS')),
    clientId: 'weir-bench',
    topicOf: (dataset) => topicPrefix(name) + dataset,
  })

export const redisStore = (name: string): Promise<SpeedStore> =>
  openRedisSpeedStore({ url: named('REDIS_URL'), keyPrefix: name })

const s3Place = () => {
  const { S3_ACCESS_KEY_ID = '', S3_SECRET_ACCESS_KEY = '', S3_REGION = 'us-east-1' } = process.env
  return {
    endpoint: named('S3_ENDPOINT'),
    region: S3_REGION,
    credentials: { accessKeyId: S3_ACCESS_KEY_ID, secretAccessKey: S3_SECRET_ACCESS_KEY },
  }
}

/** Environment of a server with Kafka as its log, one partition for each dataset. */
export const onKafka = (name: string): Record<string, string> => ({
  WEIR_KAFKA_BROKERS: named('KAFKA_BROKERS'),
  WEIR_KAFKA_TOPIC_PREFIX: topicPrefix(name),
  WEIR_KAFKA_GROUP: name,
  WEIR_LOG_PARTITIONS: '1',
})

/** Environment of a server that stands on Kafka, Redis and the bucket `name`. */
export const onAllServers = (name: string): Record<string, string> => {
  const { endpoint, region, credentials } = s3Place()
  return {
    ...onKafka(name),
    WEIR_REDIS_URL: named('REDIS_URL'),
    WEIR_REDIS_PREFIX: name,
    WEIR_S3_BUCKET: name,
    WEIR_S3_ENDPOINT: endpoint,
    WEIR_S3_REGION: region,
    WEIR_S3_ACCESS_KEY_ID: credentials.accessKeyId,
    WEIR_S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  }
}

const withS3 = async <T>(work: (s3: S3Client) => Promise<T>): Promise<T> => {
  const { S3Client: Client } = await import('@aws-sdk/client-s3')
  const s3 = new Client({ ...s3Place(), forcePathStyle: true })
  try {
    return await work(s3)
  } finally {
    s3.destroy()
  }
}

export const createBucket = (name: string): Promise<void> =>
  withS3(async (s3) => {
    const { CreateBucketCommand } = await import('@aws-sdk/client-s3')
    await s3.send(new CreateBucketCommand({ Bucket: name }))
  })

const removeBuckets = (name: string): Promise<void> =>
  withS3(async (s3) => {
    const { DeleteBucketCommand, DeleteObjectCommand, ListBucketsCommand, ListObjectsV2Command } = await import(
      '@aws-sdk/client-s3'
    )
    const { Buckets = [] } = await s3.send(new ListBucketsCommand({}))
    for (const { Name: Bucket = '' } of Buckets.filter((b) => b.Name?.startsWith(name))) {
      for (;;) {
        const { Contents = [] } = await s3.send(new ListObjectsV2Command({ Bucket }))
        if (Contents.length === 0) break
        for (const { Key } of Contents) await s3.send(new DeleteObjectCommand({ Bucket, Key: Key! }))
      }
      await s3.send(new DeleteBucketCommand({ Bucket }))
    }
  })

/** Topics, and the groups of processes that read them. */
const removeTopics = async (name: string): Promise<void> => {
  const { Kafka, logLevel } = (await import('kafkajs')).default
  const admin = new Kafka({ brokers: itemsOf(named('KAFKA_BROKERS')), logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  try {
    const topics = (await admin.listTopics()).filter((topic) => topic.startsWith(name))
    if (topics.length > 0) await admin.deleteTopics({ topics })
    const noGroup = async (): Promise<boolean> => {
      const { groups } = await admin.listGroups()
      const ids = groups.map((g) => g.groupId).filter((id) => id.startsWith(name))
      // A group that a killed process has not left yet is refused, until its session ends.
      return (
        ids.length === 0 ||
        admin.deleteGroups(ids).then(
          () => true,
          () => false,
        )
      )
    }
    await until('no consumer group is left', noGroup)
  } finally {
    await admin.disconnect()
  }
}

/** Calls `work` with the keys under a name, some at a time; the job queues' begin with a brace. */
const eachKeys = async (name: string, work: (redis: Redis, keys: string[]) => Promise<void>): Promise<void> => {
  const { Redis: Client } = await import('ioredis')
  const redis = new Client(named('REDIS_URL'))
  try {
    for (const match of [`${name}*`, `{${name}*`])
      for await (const keys of redis.scanStream({ match, count: 1_000 }))
        if ((keys as string[]).length > 0) await work(redis, keys as string[])
  } finally {
    redis.disconnect()
  }
}

/** Bytes of all keys under a name, each counted whole. */
export const redisBytes = async (name: string): Promise<number> => {
  // A scan may show a key twice.
  const sizes = new Map<string, number>()
  await eachKeys(name, async (redis, keys) => {
    for (const key of keys) sizes.set(key, (await redis.memory('USAGE', key, 'SAMPLES', 0)) ?? 0)
  })
  return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0)
}

/** Removes all topics, consumer groups, keys and buckets whose name begins so. Tries each, then throws the first failure. */
export const removeAll = async (name: string): Promise<void> => {
  const removeKeys = eachKeys(name, async (redis, keys) => {
    await redis.unlink(keys)
  })
  const done = await Promise.allSettled([removeTopics(name), removeKeys, removeBuckets(name)])
  for (const one of done) if (one.status === 'rejected') throw one.reason
}

/** What a variant made goes with it, whether it failed or not: the servers hold one variant at a time. */
export const underName = async <T>(env: Env, variant: string, work: (name: string) => Promise<T>): Promise<T> => {
  const name = `${nameOf(env)}-${variant}-${env.run}`
  try {
    return await work(name)
  } finally {
    await removeAll(name)
  }
}

const LOOPBACK = ['127.0.0.1', 'localhost', '[::1]']

/** Process ids of servers, host:port; null unless all are found on this machine. */
const pidsOf = (addresses: string[], port: number): number[] | null => {
  const pids = addresses.map((address) => {
    const url = new URL(`tcp://${address}`)
    return LOOPBACK.includes(url.hostname) ? pidOfPort(Number(url.port || port)) : null
  })
  return pids.every((pid) => pid !== null) ? pids : null
}

export type ServerCpu = { brokerS?: number; redisS?: number }

/** Starts counting the CPU of broker and Redis; what cannot be found is left out. */
export const countServers = (): (() => ServerCpu) => {
  const broker = pidsOf(itemsOf(named('KAFKA_BROKERS')), 9092)
  const redis = pidsOf([new URL(named('REDIS_URL')).host], 6379)
  const sum = (pids: number[] | null): number => (pids ?? []).reduce((s, pid) => s + treeCpuS(pid), 0)
  const [brokerS, redisS] = [sum(broker), sum(redis)]
  return () => ({
    ...(broker === null ? {} : { brokerS: sum(broker) - brokerS }),
    ...(redis === null ? {} : { redisS: sum(redis) - redisS }),
  })
}
