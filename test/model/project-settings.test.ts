import { expect, test } from 'vitest'
import { ProjectErrors } from '../../model/project-yaml.ts'
import { parseSettings, settingNames, settingOrigin, shownSetting, strayNames } from '../../model/settings.ts'

const errorsOf = (text: string, env = {}) => {
  try {
    parseSettings(text, env)
  } catch (error) {
    if (error instanceof ProjectErrors) return error.errors
    throw error
  }
  return []
}

test('an empty file gives every default, and every setting has one', () => {
  const settings = parseSettings('')
  expect(settings.log.partitions).toBe(1)
  expect(settings.schedules).toMatchObject({ extend: 'every 1 minute', recompute: '15 3 * * *' })
  expect(settings.timeZone).toBe('UTC')
  for (const { path, default: value, description } of settingNames()) {
    const got = path.split('.').reduce<unknown>((v, k) => (v as Record<string, unknown>)[k], settings)
    expect(got, path).toBe(value)
    expect(description, path).not.toBe('')
  }
})

test('values of the file win over defaults, the environment over both', () => {
  const settings = parseSettings('server: { port: 9000 }\nbatch:\n  keepGenerations: 3\n', {
    WEIR_SERVER_PORT: '9100',
    WEIR_TIME_ZONE: 'Europe/Berlin',
  })
  expect(settings.server.port).toBe(9100)
  expect(settings.server.host).toBe('127.0.0.1')
  expect(settings.batch.keepGenerations).toBe(3)
  expect(settings.timeZone).toBe('Europe/Berlin')
})

test('a misspelt key is named with its line and the nearest known one', () => {
  const [error, second] = errorsOf('name: x\nserver:\n  host: 127.0.0.1\n  prot: 1\nshedules: { extend: off }\n')
  expect([error, second].map((e) => [e?.line, e?.got, e?.next])).toEqual(
    expect.arrayContaining([
      [4, 'prot', 'did you mean port?'],
      [5, 'shedules', 'did you mean schedules?'],
    ]),
  )
})

test('bad values say what is expected and what came', () => {
  const [error] = errorsOf('\nserver:\n  port: eighty\n')
  expect(error).toMatchObject({ code: 'WEIR_MODEL_BAD_VALUE', line: 3, got: '"eighty"' })
  expect(error?.expected).toMatch(/0 to 65535/)
  expect(errorsOf('schedules: { extend: sometimes }')[0]?.expected).toMatch(/every <n> seconds/)
  expect(errorsOf('timeZone: Mars/Base')[0]).toMatchObject({ got: 'Mars/Base', line: 1 })
  expect(errorsOf('', { WEIR_SERVER_PORT: 'x' })[0]).toMatchObject({ got: '"x"' })
})

test('broken YAML is one error with its line', () => {
  expect(() => parseSettings('name: x\nserver: [1\n')).toThrowError(
    expect.objectContaining({ code: 'WEIR_MODEL_YAML' }),
  )
})

const named = (path: string) => settingNames().find((n) => n.path === path)!

test('a secret in the file is refused, wherever it hides, and never told', () => {
  for (const text of [
    'kafka: { password: hunter2 }',
    'redis: { password: hunter2 }',
    's3: { secretAccessKey: hunter2 }',
    'redis: { url: "redis://weir:hunter2@redis:6379" }',
    'redis: { url: "redis://:hunter2/@redis:6379" }',
    'redis: { cluster: "a:1,:hunter2@b:2" }',
    'redis: { url: "redis://redis:6379?password=hunter2" }',
  ]) {
    const errors = errorsOf(text)
    expect(errors.map((e) => e.code)).toContain('WEIR_MODEL_SECRET')
    expect(JSON.stringify(errors.map((e) => [e.message, e.expected, e.got, e.next]))).not.toContain('hunter2')
  }
  const settings = parseSettings('', { WEIR_REDIS_URL: 'redis://weir:hunter2@redis:6379', WEIR_KAFKA_PASSWORD: 'x' })
  expect(shownSetting(named('redis.url'), settings.redis.url)).toBe('redis://weir:***@redis:6379')
  expect(shownSetting(named('kafka.password'), settings.kafka.password)).toBe('***')
  expect(shownSetting(named('kafka.password'), '')).toBe('')
})

test('a secret in the file that is no text is refused as one, not shown as a bad value', () => {
  const errors = errorsOf('kafka: { password: 12345 }\nredis:\n  password: [67890]\n')
  expect(errors.map((e) => [e.code, e.line])).toEqual([
    ['WEIR_MODEL_SECRET', 1],
    ['WEIR_MODEL_SECRET', 3],
  ])
  expect(JSON.stringify(errors.map((e) => [e.message, e.expected, e.got, e.next]))).not.toMatch(/12345|67890/)
})

test('a password inside an address is masked in every form, also in one that is no address', () => {
  for (const [path, value] of [
    ['redis.url', 'redis://:hunter2@redis:6379'],
    ['redis.url', 'redis://:hun/hunter2@redis:6379'],
    ['redis.url', 'redis://:hun@hunter2@redis:6379'],
    ['redis.url', 'redis://:hun:hunter2@redis:6379'],
    ['redis.url', ':hunter2@redis:6379'],
    ['redis.url', 'redis://redis:6379?password=hunter2'],
    ['redis.cluster', 'redis://:x@redis:6379,redis://:hunter2@redis:6379'],
    ['redis.sentinels', 'a:1,:hunter2@redis:6379'],
    ['kafka.brokers', 'weir:hunter2@redis:6379'],
    ['s3.endpoint', 'http://weir:hunter2@redis:6379'],
  ] as const) {
    const shown = shownSetting(named(path), value)
    expect(shown, value).not.toContain('hunter2')
    expect(shown, value).toMatch(/redis:6379/)
  }
  for (const value of ['redis://redis:6379', 'a:1,b:2', 'http://minio:9000/path'])
    expect(shownSetting(named('redis.url'), value)).toBe(value)
  expect(shownSetting(named('s3.prefix'), 'a:b@c/')).toBe('a:b@c/')
})

test('a bad value of the environment is blamed on its variable, not on the file', () => {
  const [error] = errorsOf('kafka:\n  tls: true\n', { WEIR_KAFKA_TLS: 'yes' })
  expect(error).toMatchObject({ code: 'WEIR_MODEL_BAD_VALUE', got: '"yes"', file: undefined, line: undefined })
  expect(error?.message).toContain('WEIR_KAFKA_TLS')
  expect(error?.next).toContain('WEIR_KAFKA_TLS')
})

test('an endpoint or a region that no client takes is refused by name', () => {
  for (const endpoint of ['127.0.0.1:7070', 'minio', 'ftp://a', 'http://weir:hunter2@minio:9000']) {
    const errors = errorsOf('', { WEIR_S3_ENDPOINT: endpoint })
    expect(errors, endpoint).toMatchObject([{ code: 'WEIR_MODEL_BAD_VALUE' }])
    expect(JSON.stringify([errors[0]?.message, errors[0]?.got])).not.toContain('hunter2')
    expect(errors[0]?.message).toContain('s3.endpoint')
  }
  for (const endpoint of ['http://127.0.0.1:7070', 'https://s3.example.com/', ''])
    expect(errorsOf('', { WEIR_S3_ENDPOINT: endpoint }), endpoint).toEqual([])
  expect(errorsOf('s3: { region: "eu west" }')).toMatchObject([{ code: 'WEIR_MODEL_BAD_VALUE', got: '"eu west"' }])
})

test('a misspelt variable is named with the nearest known one; what is not ours is left alone', () => {
  const env = {
    WEIR_REDIS_URI: 'redis://x',
    WEIR_KAFKA_BROKER: 'x',
    WEIR_NONSENSE: 'x',
    WEIR_REDIS_URL: 'redis://redis:6379',
    WEIR_API_KEY: 'wk_x',
    WEIR_SERVICES_RUN: '/tmp/x',
    WEIR_PORT: 'tcp://10.0.0.1:8080',
    WEIR_SERVICE_HOST: '10.0.0.1',
    WEIR_PORT_8080_TCP_ADDR: '10.0.0.1',
    weird: 'x',
  }
  expect(strayNames(env)).toEqual([
    { name: 'WEIR_KAFKA_BROKER', near: 'WEIR_KAFKA_BROKERS' },
    { name: 'WEIR_NONSENSE', near: null },
    { name: 'WEIR_REDIS_URI', near: 'WEIR_REDIS_URL' },
  ])
})

test('where a value comes from', () => {
  const text = 'name: x\nserver:\n  port: 9000\n'
  const env = { WEIR_TIME_ZONE: 'Europe/Berlin' }
  const origins = ['server.port', 'server.host', 'timeZone'].map((path) => settingOrigin(text, env, named(path)))
  expect(origins).toEqual(['weir.yaml:3', 'default', 'environment'])
})

test('servers: named once, and with what they need', () => {
  for (const [text, line] of [
    ['\nredis: { url: "redis://a:1", cluster: "b:2" }', 2],
    ['redis: { sentinels: "a:1" }', 1],
    ['\nkafka: { brokers: "kafka:9o92" }', 2],
    ['kafka: { brokers: "a:1,kafka-2:99999" }', 1],
    ['redis: { cluster: "a:1 b:2" }', 1],
    ['redis: { cluster: "redis://a:1" }', 1],
    ['redis: { sentinels: "a:0", sentinelMaster: m }', 1],
    ['redis: { url: "redis:6379" }', 1],
    ['redis: { url: "http://redis:6379" }', 1],
    ['redis: { url: "redis://redis:6x79" }', 1],
    ['batch: { scheduler: bullmq }', 1],
    ['kafka: { brokers: "a:1", mechanism: plain, username: weir }', 1],
    ['s3: { bucket: b, accessKeyId: a }', 1],
  ] as const)
    expect(errorsOf(text), text).toMatchObject([{ code: 'WEIR_MODEL_BAD_VALUE', line }])
  for (const text of ['kafka: { brokers: "kafka, [::1]:9092,10.0.0.1:65535" }', 'redis: { url: "rediss://r:1/3" }'])
    expect(errorsOf(text), text).toEqual([])
  const env = { WEIR_KAFKA_TLS: 'true', WEIR_KAFKA_PASSWORD: 'secret', WEIR_S3_CACHE_BYTES: '100000000' }
  const settings = parseSettings('kafka: { brokers: "a:1,b:2", mechanism: plain, username: weir }', env)
  expect(settings.kafka).toMatchObject({ tls: true, password: 'secret' })
  expect(settings.s3.cacheBytes).toBe(100_000_000)
})
