/**
 * From settings to the implementations behind the ports: Kafka or the embedded log, Redis or the embedded speed store, S3 or a
 * folder. Invariant: nothing of a server that is not named is loaded.
 */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openFolderStore } from '../lake/folder-object-store.ts'
import type { S3Options } from '../lake/s3-client.ts'
import { openS3Store } from '../lake/s3-object-store.ts'
import { type KafkaClientOptions, openKafkaLog } from '../log/kafka-log.ts'
import { openLmdbLog } from '../log/lmdb-log.ts'
import type { Dataset } from '../model/dataset.ts'
import type { EventLog, Origin } from '../model/ports/event-log.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { SpeedStore } from '../model/ports/speed-store.ts'
import type { RedisPlace, RedisTls } from '../model/redis-place.ts'
import type { Settings } from '../model/settings.ts'
import { itemsOf, type S3Settings, usesKafka, usesRedis, usesS3 } from '../model/settings-servers.ts'
import { openLmdbSpeedStore } from '../speed-layer/lmdb-speed-store.ts'
import { checkRedis, type RedisFinding } from '../speed-layer/redis-check.ts'
import { openRedis } from '../speed-layer/redis-client.ts'
import { openRedisSpeedStore } from '../speed-layer/redis-speed-store.ts'

const tlsOf = async (caFile: string): Promise<RedisTls> => (caFile === '' ? {} : { ca: await readFile(caFile, 'utf8') })

const optional = <T extends object>(options: T): Partial<T> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== '')) as Partial<T>

/** How to reach Kafka. */
export const kafkaClient = async ({ kafka }: Settings): Promise<KafkaClientOptions> => ({
  brokers: itemsOf(kafka.brokers),
  clientId: 'weir',
  ...(kafka.tls ? { tls: await tlsOf(kafka.caFile) } : {}),
  ...(kafka.mechanism === 'none'
    ? {}
    : { sasl: { mechanism: kafka.mechanism, username: kafka.username, password: kafka.password } }),
})

export const topicOf =
  ({ kafka }: Settings) =>
  (dataset: string): string =>
    `${kafka.topicPrefix}${dataset}`

/** The event log of the settings. `alarm` is told of records from the future; `originOf` is asked at each use. */
export const openLog = async (
  settings: Settings,
  dataDir: string,
  datasets: Dataset[],
  alarm: (error: Error) => void,
  originOf: (dataset: string) => Origin | undefined,
): Promise<EventLog> => {
  if (!usesKafka(settings)) return openLmdbLog({ folder: join(dataDir, 'log'), maxBytes: settings.log.maxBytes })
  const { replicationFactor, retentionMs } = settings.kafka
  const strict = new Set(datasets.flatMap((d) => (d.dedupeWindowMs === undefined ? [] : [d.name])))
  return openKafkaLog({
    ...(await kafkaClient(settings)),
    topicOf: topicOf(settings),
    needsAppendTime: (dataset) => strict.has(dataset),
    originOf,
    replicationFactor,
    retentionMs,
    alarm,
  })
}

/** A message of Kafka holds a whole record, which is at most one event longer than `recordBytes`: together below 900 KB. */
const KAFKA_RECORD_BYTES = 256 * 1024
const KAFKA_LINE_BYTES = 600_000

/** Limits of the door, as far as the log can hold what passes it. */
export const ingestSettings = (settings: Settings): Settings['ingest'] => {
  if (!usesKafka(settings)) return settings.ingest
  const { lineBytes, recordBytes } = settings.ingest
  return {
    ...settings.ingest,
    lineBytes: Math.min(lineBytes, KAFKA_LINE_BYTES),
    recordBytes: Math.min(recordBytes, KAFKA_RECORD_BYTES),
  }
}

/** How to reach Redis; null without one. */
export const redisConnection = async (settings: Settings): Promise<RedisPlace | null> => {
  if (!usesRedis(settings)) return null
  const { url, cluster, sentinels, sentinelMaster, username, password, tls, caFile } = settings.redis
  const secure = tls ? await tlsOf(caFile) : undefined
  return optional({
    url,
    cluster: cluster === '' ? undefined : itemsOf(cluster),
    sentinel: sentinels === '' ? undefined : { nodes: itemsOf(sentinels), name: sentinelMaster },
    username,
    password,
    tls: secure,
  })
}

export const openSpeedStore = async (settings: Settings, dataDir: string): Promise<SpeedStore> => {
  const place = await redisConnection(settings)
  if (place === null) return openLmdbSpeedStore({ folder: join(dataDir, 'speed') })
  return openRedisSpeedStore({ ...place, keyPrefix: settings.redis.prefix })
}

/** What is wrong with the Redis under the speed store, now; nothing where there is none. */
export type RedisWatch = { look(): Promise<RedisFinding[]>; close(): Promise<void> }

export const openRedisWatch = async (settings: Settings): Promise<RedisWatch> => {
  const place = await redisConnection(settings)
  if (place === null) return { look: async () => [], close: async () => undefined }
  const redis = await openRedis(place)
  return { look: () => checkRedis(redis, { keyPrefix: settings.redis.prefix }), close: redis.close }
}

/** What a process needs to know to open the lake's store: the folder, or the bucket and its local cache. */
export type StorePlace = { folder: string; s3: S3Settings | null }

export const storePlace = (settings: Settings, dataDir: string): StorePlace =>
  usesS3(settings) ? { folder: join(dataDir, 'cache'), s3: settings.s3 } : { folder: join(dataDir, 'lake'), s3: null }

/** How to reach the bucket. */
export const s3Client = (s3: S3Settings): S3Options => {
  const { bucket, prefix, endpoint, region, pathStyle, accessKeyId, secretAccessKey } = s3
  return {
    bucket,
    prefix,
    region,
    ...optional({ endpoint }),
    ...(accessKeyId === '' ? {} : { credentials: { accessKeyId, secretAccessKey } }),
    ...(pathStyle === 'auto' ? {} : { forcePathStyle: pathStyle === 'on' }),
  }
}

/** `probe`: try first that the store keeps what it must; a child of a process that tried leaves it out. */
export const openObjectStore = async ({ folder, s3 }: StorePlace, probe: boolean): Promise<ObjectStore> => {
  if (s3 === null) return openFolderStore(folder)
  return openS3Store({ ...s3Client(s3), cacheFolder: folder, cacheBytes: s3.cacheBytes, probe })
}
