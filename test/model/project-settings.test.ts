import { expect, test } from 'vitest'
import { ProjectErrors } from '../../model/project-yaml.ts'
import { parseSettings, settingNames, settingOrigin, shownSetting } from '../../model/settings.ts'

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
    ['batch: { scheduler: bullmq }', 1],
    ['kafka: { brokers: "a:1", mechanism: plain, username: weir }', 1],
    ['s3: { bucket: b, accessKeyId: a }', 1],
  ] as const)
    expect(errorsOf(text), text).toMatchObject([{ code: 'WEIR_MODEL_BAD_VALUE', line }])
  const env = { WEIR_KAFKA_TLS: 'true', WEIR_KAFKA_PASSWORD: 'secret', WEIR_S3_CACHE_BYTES: '100000000' }
  const settings = parseSettings('kafka: { brokers: "a:1,b:2", mechanism: plain, username: weir }', env)
  expect(settings.kafka).toMatchObject({ tls: true, password: 'secret' })
  expect(settings.s3.cacheBytes).toBe(100_000_000)
})
