/**
 * The schema of `weir.yaml`: every setting, its default and its bounds. Invariant: a setting is either here (or in
 * settings-servers.ts) or it does not exist; whatever is bounded in Weir is bounded by a name on this page.
 */
import Type, { type Static, type TSchema } from 'typebox'
import { KafkaSchema, RedisSchema, S3Schema } from './settings-servers.ts'

const MiB = 1024 * 1024
const group = <P extends Record<string, TSchema>>(properties: P) =>
  Type.Object(properties, { additionalProperties: false, default: {} })
const integer = (value: number, minimum: number, maximum: number, description: string) =>
  Type.Integer({
    default: value,
    minimum,
    maximum,
    description: `${description}; a whole number from ${minimum} to ${maximum}`,
  })
const memory = (value: string, description: string) =>
  Type.String({ default: value, pattern: '^\\d+(\\.\\d+)?\\s*(KB|MB|GB|KiB|MiB|GiB)$', description, examples: ['1GB'] })
const schedule = (value: string, description: string) =>
  Type.String({
    default: value,
    pattern: '^(off|every \\d+ (second|minute|hour)s?|(\\S+\\s+){4,5}\\S+)$',
    description: `${description}: a cron expression, "every <n> seconds|minutes|hours", or off`,
    examples: ['every 1 minute', '15 3 * * *'],
  })

export const SettingsSchema = Type.Object(
  {
    name: Type.String({ default: 'weir', description: 'name of the project' }),
    dataDir: Type.String({
      default: '.weir',
      description: 'data folder, relative to the folder where weir is started',
    }),
    timeZone: Type.String({
      default: 'UTC',
      description: 'IANA time zone of the schedules',
      examples: ['Europe/Berlin'],
    }),
    server: group({
      host: Type.String({ default: '127.0.0.1', description: 'address to bind; not loopback only with API keys' }),
      port: integer(8080, 0, 65535, 'TCP port; 0 takes a free one'),
      stopMs: integer(4_000, 100, 60_000, 'deadline of a graceful stop in ms, from the signal on'),
    }),
    log: group({
      partitions: integer(1, 1, 64, 'partitions of a new dataset that does not say'),
      maxBytes: integer(
        0,
        0,
        Number.MAX_SAFE_INTEGER,
        'size of the log on disk at which appends are refused; 0: no bound',
      ),
      retention: Type.String({
        default: '7 days',
        pattern: '^(forever|\\d+ (minute|hour|day|week)s?)$',
        description: 'how long archived and published records stay in the log, or forever',
      }),
    }),
    schedules: group({
      extend: schedule('every 1 minute', 'when batch views are extended'),
      recompute: schedule('15 3 * * *', 'when batch views are recomputed from the lake'),
      verify: schedule('off', 'when batch and speed are compared beyond what each job does'),
      compact: schedule('45 3 * * *', 'when closed days of the lake are compacted and unused files removed'),
    }),
    ingest: group({
      bodyBytes: integer(16 * MiB, 1_024, 1_024 * MiB, 'greatest request body, after decompression, in bytes'),
      inflateRatio: integer(
        200,
        2,
        2_000,
        'greatest ratio of a gzipped body to its compressed size, beyond its first MiB',
      ),
      lineBytes: integer(MiB, 256, 64 * MiB, 'greatest event in bytes'),
      eventsPerRequest: integer(100_000, 1, 10_000_000, 'most events in one request'),
      depth: integer(64, 1, 1_000, 'deepest nesting of an event'),
      inFlightBytes: integer(128 * MiB, 1_024, 65_536 * MiB, 'bytes of all requests being taken in; above it 429'),
      rejectsBytes: integer(64 * MiB, 0, 65_536 * MiB, 'bytes of rejected events that are kept; the rest is counted'),
      recordBytes: integer(512 * 1024, 1_024, 64 * MiB, 'size of a log record at which the next one begins'),
      recordEvents: integer(5_000, 1, 100_000, 'events of a log record at which the next one begins'),
    }),
    speed: group({
      batchBytes: integer(32 * MiB, 1_024, 1_024 * MiB, 'greatest micro-batch in bytes, taken when far behind'),
      waitMs: integer(200, 1, 60_000, 'longest wait for new records before the worker looks around'),
      seenIds: integer(
        20_000_000,
        1_000,
        1_000_000_000,
        'most ids in a de-duplication window; above it the worker waits',
      ),
      blockBytes: integer(256 * 1024, 1_024, 64 * MiB, 'size in bytes to which a block of cells is filled'),
    }),
    archive: group({
      maxAgeMs: integer(60_000, 100, 86_400_000, 'age in ms at which new records are archived'),
      maxBytes: integer(64 * MiB, 1_024, 4_096 * MiB, 'size in bytes at which new records are archived'),
    }),
    batch: group({
      keepGenerations: integer(7, 1, 1_000, 'generations that stay for roll back'),
      retireAfterMs: integer(10_000, 0, 86_400_000, 'grace in ms between a publish and the removal of what it covers'),
      cutDeadlineMs: integer(60_000, 100, 3_600_000, 'longest wait in ms of an extend for its cut to be archived'),
      recomputeMemory: memory('1GB', 'memory limit of each recompute process'),
      recomputeProcesses: integer(1, 1, 64, 'recompute processes at a time'),
      recomputeShardBytes: integer(
        64 * MiB,
        1_024,
        4_096 * MiB,
        'compressed bytes of lake files that a recompute process takes at a time; a view of so little is recomputed in the batch process itself',
      ),
      vacuumAfterMs: integer(604_800_000, 60_000, 31_536_000_000, 'age in ms at which unreferenced files are deleted'),
      jobs: integer(1, 1, 16, 'batch jobs at a time, and as many recomputes, verifies and compactions beside them'),
      scheduler: Type.Enum(['auto', 'embedded', 'bullmq'], {
        default: 'auto',
        description:
          'who runs the jobs: auto (bullmq with Redis, else embedded), embedded (each batch process by itself) or bullmq',
      }),
    }),
    query: group({
      defaultLimit: integer(1_000, 1, 1_000_000, 'rows of an answer when the query does not say'),
      maxLimit: integer(100_000, 1, 10_000_000, 'most rows of an answer'),
      deadlineMs: integer(30_000, 100, 3_600_000, 'deadline of a query in ms'),
      cacheBytes: integer(64 * MiB, 0, 16_384 * MiB, 'answers kept in memory, in bytes'),
      concurrent: integer(8, 1, 1_024, 'queries at a time; more wait, then 429'),
    }),
    engine: group({
      memory: memory('1GB', 'memory limit of each DuckDB instance of the server'),
      threads: integer(1, 1, 256, 'threads of each DuckDB instance'),
    }),
    kafka: KafkaSchema,
    redis: RedisSchema,
    s3: S3Schema,
  },
  { additionalProperties: false },
)

export type Settings = Static<typeof SettingsSchema>
