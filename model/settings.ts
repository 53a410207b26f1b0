/**
 * `weir.yaml` and the environment as settings (the schema: settings-schema.ts).
 *
 * Each value can be overridden by an environment variable: `WEIR_` and its path in capitals with `_`
 * (`server.port` → `WEIR_SERVER_PORT`, `batch.keepGenerations` → `WEIR_BATCH_KEEP_GENERATIONS`).
 */
import type { TSchema } from 'typebox'
import { WeirError } from './errors.ts'
import { checkYaml, nearest, ProjectErrors, readYaml, type YamlFile } from './project-yaml.ts'
import { type Settings, SettingsSchema } from './settings-schema.ts'
import { itemsOf } from './settings-servers.ts'

export type { Settings } from './settings-schema.ts'

const envName = (path: string[]): string =>
  `WEIR_${path.map((p) => p.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()).join('_')}`

const overridden = (
  schema: TSchema,
  value: unknown,
  env: Record<string, string | undefined>,
  path: string[],
): unknown => {
  const s = schema as { properties?: Record<string, TSchema>; type?: string }
  if (s.properties) {
    const into: Record<string, unknown> = { ...(typeof value === 'object' && value !== null ? value : {}) }
    for (const [key, child] of Object.entries(s.properties)) {
      const next = overridden(child, into[key], env, [...path, key])
      if (next !== undefined) into[key] = next
    }
    return into
  }
  const text = env[envName(path)]
  if (text === undefined || text === '') return value
  if (s.type === 'boolean' && /^(true|false)$/.test(text)) return text === 'true'
  return s.type === 'integer' && /^-?\d+$/.test(text) ? Number(text) : text
}

export type SettingName = {
  path: string
  env: string
  description: string
  default: unknown
  secret: boolean
  /** Names where a server is. */
  place: boolean
}

/** All settings with the environment variable that overrides each and its meaning: what `weir config` prints. */
export const settingNames = (): SettingName[] => {
  const walk = (schema: TSchema, path: string[]): SettingName[] => {
    const s = schema as {
      properties?: Record<string, TSchema>
      description?: string
      default?: unknown
      secret?: boolean
      place?: boolean
    }
    if (s.properties) return Object.entries(s.properties).flatMap(([key, child]) => walk(child, [...path, key]))
    const { description = '', secret = false, place = false } = s
    return [{ path: path.join('.'), env: envName(path), description, default: s.default, secret, place }]
  }
  return walk(SettingsSchema, [])
}

const valueAt = (value: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined | null)?.[key], value)

/** Where the value in force comes from. */
export const settingOrigin = (text: string, env: Record<string, string | undefined>, name: SettingName): string => {
  if ((env[name.env] ?? '') !== '') return 'environment'
  const file = readYaml('weir.yaml', text)
  return valueAt(file.value, name.path) === undefined ? 'default' : `weir.yaml:${file.lineOf(name.path.split('.'))}`
}

/** Up to the last @, since a password may hold any sign, also when the text is not what it should be. */
const masked = (text: string): string => text.replace(/^(.*?:\/\/)?([^:@/]*:).*@/s, '$1$2***@')

/** A value as it may be shown: secrets masked, and passwords inside addresses. */
export const shownSetting = (name: SettingName, value: unknown): unknown => {
  if (value === '' || value === undefined || value === null) return value
  if (name.secret) return '***'
  if (typeof value !== 'string') return value
  if (name.place) return masked(value).replace(/\?.*$/s, '?***')
  return value.includes('://') ? masked(value) : value
}

/** Variables that are not settings: of the command line, and of the project's own tests and benchmarks. */
const OTHERS =
  /^WEIR_(URL|API_KEY|LOG_LEVEL|DEBUG|(SERVICES|TEST|BENCH|CHAOS|ORACLE|CLUSTER|INTEROP|STORE|DEDUPE|GOLDEN|SEED)(_\w+)?)$/
/** What Kubernetes puts into each container for a service named `weir` or `weir-…`. */
const ORCHESTRATED = /_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP)(_\w+)?$/

/** Variables that look like settings and are none: typing errors, which would else do nothing, in silence. */
export const strayNames = (env: Record<string, string | undefined>): { name: string; near: string | null }[] => {
  const known = settingNames().map((s) => s.env)
  return Object.keys(env)
    .filter((name) => name.startsWith('WEIR_') && !known.includes(name) && !OTHERS.test(name))
    .filter((name) => !ORCHESTRATED.test(name) && !/^(tcp|udp):\/\//.test(env[name] ?? ''))
    .sort()
    .map((name) => ({ name, near: nearest(name, known) }))
}

/** Secrets do not belong into a file that is committed and read by many. */
const secretErrors = (file: YamlFile): WeirError[] =>
  settingNames().flatMap((name) => {
    const value = valueAt(file.value, name.path)
    if (shownSetting(name, value) === value) return []
    return [
      new WeirError({
        code: 'WEIR_MODEL_SECRET',
        message: `${name.path} is a secret, or holds one, and stands in a file.`,
        expected: `the environment variable ${name.env}`,
        next: 'take it out of the file, and consider it known',
        file: file.path,
        line: file.lineOf(name.path.split('.')),
      }),
    ]
  })

/**
 * Settings of the text of `weir.yaml` ('' for all defaults) under an environment.
 * Throws `ProjectErrors` with file and line of everything that is wrong.
 */
export const parseSettings = (
  text: string,
  env: Record<string, string | undefined> = {},
  path = 'weir.yaml',
): Settings => {
  const file = readYaml(path, text)
  if (typeof file.value !== 'object' || file.value === null || Array.isArray(file.value)) {
    throw new ProjectErrors([
      new WeirError({
        code: 'WEIR_MODEL_BAD_VALUE',
        message: 'The settings are not a mapping.',
        expected: 'keys and values, as in `server: { port: 8080 }`',
        next: 'see docs/operations.md for all settings',
        file: path,
        line: 1,
      }),
    ])
  }
  const filled = withoutSecrets(nullsRemoved(file.value))
  const { value, errors: found } = checkYaml(file, SettingsSchema, overridden(SettingsSchema, filled, env, []))
  const errors = found.map((error) => blamed(error, env))
  if (errors.length === 0 && !validZone(value.timeZone)) {
    errors.push(
      new WeirError({
        code: 'WEIR_MODEL_BAD_VALUE',
        message: `timeZone ${value.timeZone} is not known.`,
        expected: 'an IANA time zone, for example Europe/Berlin',
        got: value.timeZone,
        next: 'correct the value',
        file: path,
        line: file.lineOf(['timeZone']),
      }),
    )
  }
  errors.push(...secretErrors(file), ...placeErrors(value, file))
  if (errors.length > 0) throw new ProjectErrors(errors)
  return value
}

/** A bad value of the environment is the variable's fault, not the file's. */
const blamed = (error: WeirError, env: Record<string, string | undefined>): WeirError => {
  const name = settingNames().find((n) => (env[n.env] ?? '') !== '' && error.message.startsWith(`${n.path} `))
  if (name === undefined || error.code !== 'WEIR_MODEL_BAD_VALUE') return error
  const { code, message, expected, got } = error
  return new WeirError({ code, message: `${name.env}: ${message}`, expected, got, next: `correct ${name.env}` })
}

/** Secrets of the file have their own complaint; a value that is also of a wrong kind must not be shown by another one. */
const withoutSecrets = (value: Record<string, unknown>): Record<string, unknown> => {
  const kept = structuredClone(value)
  for (const { path, secret } of settingNames()) {
    const [group, key] = path.split('.') as [string, string?]
    const within = kept[group]
    if (secret && key !== undefined && typeof within === 'object' && within !== null)
      Reflect.deleteProperty(within, key)
  }
  return kept
}

const isWebUrl = (text: string): boolean => {
  const url = URL.canParse(text) ? new URL(text) : null
  return url !== null && /^https?:$/.test(url.protocol) && url.username === '' && url.password === ''
}

/** host, host:port or [IPv6]:port. */
const isAddress = (text: string): boolean => {
  const found = /^(?:\[[0-9a-f:.]+\]|[^\s:/@[\]]+)(?::(\d{1,5}))?$/i.exec(text)
  const port = Number(found?.[1] ?? 1)
  return found !== null && port >= 1 && port <= 65_535
}

const isRedisUrl = (text: string): boolean => {
  const url = URL.canParse(text) ? new URL(text) : null
  // Without the slashes a host would be taken for the protocol.
  return url !== null && /^rediss?:$/.test(url.protocol) && url.hostname !== ''
}

/** What is wrong with the servers named, taken together. */
const placeErrors = (settings: Settings, file: YamlFile): WeirError[] => {
  const found: WeirError[] = []
  const bad = (path: string[], message: string, expected: string, got: string): void => {
    const line = file.lineOf(path)
    found.push(
      new WeirError({
        code: 'WEIR_MODEL_BAD_VALUE',
        message,
        expected,
        got,
        next: 'correct the setting or its environment variable',
        file: file.path,
        line,
      }),
    )
  }
  const { redis, kafka, s3, batch } = settings
  const places = (['url', 'cluster', 'sentinels'] as const).filter((place) => redis[place] !== '')
  if (places.length > 1)
    bad(['redis'], 'Redis is in several places.', 'one of url, cluster, sentinels', places.join(', '))
  // What is there may hold a password: it is not told.
  const lists = { 'kafka.brokers': kafka.brokers, 'redis.cluster': redis.cluster, 'redis.sentinels': redis.sentinels }
  for (const [name, list] of Object.entries(lists))
    if (!itemsOf(list).every(isAddress))
      bad(
        name.split('.'),
        `${name} has something that is no address.`,
        'host:port with commas, ports from 1 to 65535',
        'another form',
      )
  if (redis.url !== '' && !isRedisUrl(redis.url))
    bad(
      ['redis', 'url'],
      'redis.url is no address of a Redis.',
      'redis://host:port or rediss://host:port (a password in WEIR_REDIS_PASSWORD, or percent-encoded)',
      'another form',
    )
  if ((redis.sentinels === '') !== (redis.sentinelMaster === ''))
    bad(['redis'], 'Sentinels and their master go together.', 'redis.sentinels and redis.sentinelMaster', 'one of them')
  if (batch.scheduler === 'bullmq' && places.length === 0)
    bad(['batch', 'scheduler'], 'BullMQ needs Redis.', 'redis.url, redis.cluster or redis.sentinels', 'none')
  if (kafka.mechanism !== 'none' && (kafka.username === '' || kafka.password === ''))
    bad(['kafka'], 'SASL needs a user and a password.', 'kafka.username and WEIR_KAFKA_PASSWORD', 'not both')
  if (s3.endpoint !== '' && !isWebUrl(s3.endpoint))
    bad(['s3', 'endpoint'], 's3.endpoint is no URL of a store.', 'http://host:port or https://host', 'another form')
  if ((s3.accessKeyId === '') !== (s3.secretAccessKey === ''))
    bad(
      ['s3'],
      'An access key and its secret go together.',
      's3.accessKeyId and WEIR_S3_SECRET_ACCESS_KEY',
      'one of them',
    )
  return found
}

/** A key without a value (`server:`) means its defaults. */
const nullsRemoved = (value: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(value).filter(([, v]) => v !== null))

const validZone = (zone: string): boolean => {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone })
    return true
  } catch {
    return false
  }
}
