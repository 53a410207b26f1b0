/**
 * Settings of the servers that the parts of Weir may stand on: Kafka, Redis, S3. Each is used iff its place is named, so profiles
 * mix freely; nothing named is the embedded profile. Invariant: what is marked `secret` comes from the environment alone, and is
 * shown nowhere.
 */
import Type, { type Static, type TSchema } from 'typebox'

const text = (description: string, examples: string[] = []) =>
  Type.String({ default: '', description, ...(examples.length > 0 ? { examples } : {}) })
const secret = (description: string) => Type.String({ default: '', description, secret: true })
/** Where a server is: people put passwords into such texts. */
const place = (description: string, examples: string[] = []) =>
  Type.String({ default: '', description, place: true, ...(examples.length > 0 ? { examples } : {}) })
const flag = (description: string) => Type.Boolean({ default: false, description })
const group = <P extends Record<string, TSchema>>(properties: P) =>
  Type.Object(properties, { additionalProperties: false, default: {} })

export const KafkaSchema = group({
  brokers: place('brokers of Kafka, host:port with commas; empty: the embedded log', ['kafka-1:9092,kafka-2:9092']),
  topicPrefix: text('begins the name of each dataset’s topic', ['weir.']),
  group: Type.String({
    default: 'weir',
    minLength: 1,
    description: 'consumer group that spreads partitions over processes; positions are never kept in it',
  }),
  replicationFactor: Type.Integer({
    default: -1,
    minimum: -1,
    maximum: 32,
    description: 'copies of a topic that Weir creates; -1: the broker’s default',
  }),
  retentionMs: Type.Integer({
    default: -1,
    minimum: -1,
    maximum: Number.MAX_SAFE_INTEGER,
    description:
      'retention.ms of a topic that Weir creates; -1: Kafka removes nothing, Weir trims what is archived and published (log.retention)',
  }),
  tls: flag('TLS to the brokers'),
  caFile: text('file of the authorities that signed the brokers’ certificates; empty: the system’s'),
  mechanism: Type.Enum(['none', 'plain', 'scram-sha-256', 'scram-sha-512'], {
    default: 'none',
    description: 'SASL mechanism: none, plain, scram-sha-256 or scram-sha-512',
  }),
  username: text('SASL user'),
  password: secret('SASL password'),
})

export const RedisSchema = group({
  url: place(
    'one Redis server, redis://host:port or rediss:// with TLS; with cluster and sentinels empty too: the embedded speed store',
    ['redis://redis:6379'],
  ),
  cluster: place('some nodes of a Redis Cluster, host:port with commas', ['redis-1:6379,redis-2:6379']),
  sentinels: place('Redis Sentinels, host:port with commas'),
  sentinelMaster: text('name of the master that the Sentinels watch', ['mymaster']),
  prefix: Type.String({
    default: 'weir',
    pattern: '^[A-Za-z0-9_.-]{1,100}$',
    description: 'begins every key; one for each project that shares the Redis',
  }),
  username: text('Redis user'),
  password: secret('Redis password'),
  tls: flag('TLS to Redis, and to its Sentinels (rediss:// says it too)'),
  caFile: text('file of the authorities that signed the certificates of Redis; empty: the system’s'),
})

export const S3Schema = group({
  bucket: text('bucket of the lake; empty: a folder in the data folder', ['acme-weir']),
  prefix: Type.String({
    default: '',
    pattern: '^$|^[^/].*/$',
    description: 'folder inside the bucket, empty or ending in /',
    examples: ['production/'],
  }),
  endpoint: place('URL of an S3-compatible store; empty: AWS', ['http://minio:9000']),
  region: Type.String({
    default: 'us-east-1',
    pattern: '^[A-Za-z0-9-]{1,63}$',
    description: 'region of the bucket',
    examples: ['eu-central-1'],
  }),
  pathStyle: Type.Enum(['auto', 'on', 'off'], {
    default: 'auto',
    description: 'endpoint/bucket/key instead of bucket.endpoint/key: auto (with an endpoint), on or off',
  }),
  accessKeyId: text('access key; empty: what the AWS SDK finds (environment, files, role of the machine)'),
  secretAccessKey: secret('secret of the access key'),
  cacheBytes: Type.Integer({
    default: 10 * 1024 ** 3,
    minimum: 64 * 1024 ** 2,
    maximum: Number.MAX_SAFE_INTEGER,
    description: 'greatest size of the local cache of lake files, in bytes',
  }),
})

export type KafkaSettings = Static<typeof KafkaSchema>
export type RedisSettings = Static<typeof RedisSchema>
export type S3Settings = Static<typeof S3Schema>

export const usesKafka = (s: { kafka: KafkaSettings }): boolean => s.kafka.brokers !== ''
export const usesRedis = ({ redis }: { redis: RedisSettings }): boolean =>
  redis.url !== '' || redis.cluster !== '' || redis.sentinels !== ''
export const usesS3 = (s: { s3: S3Settings }): boolean => s.s3.bucket !== ''

/** Items of a list with commas. */
export const itemsOf = (list: string): string[] =>
  list
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
