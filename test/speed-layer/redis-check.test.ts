/** What the start check says of a Redis as it should be, and of one that is not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkRedis, type RedisCheckOptions, refuseUnfit } from '../../speed-layer/redis-check.ts'
import { openRedis, type RedisOptions } from '../../speed-layer/redis-client.ts'
import { freePort } from '../support/server.ts'
import { service } from '../support/services.ts'
import { openCertificate } from './redis-sentinel.ts'
import { openRedisServer, type RedisServer } from './redis-server.ts'

const place = service('REDIS_URL')
const cluster = service('REDIS_CLUSTER')

const findingsOf = async (options: RedisOptions, check?: RedisCheckOptions) => {
  const redis = await openRedis(options)
  try {
    return await checkRedis(redis, check)
  } finally {
    await redis.close()
  }
}
const shortly = (findings: Awaited<ReturnType<typeof findingsOf>>) => findings.map((f) => `${f.severity}: ${f.got}`)
const UNBOUNDED = 'warning: maxmemory 0'

describe.skipIf(place === null)('the check of Redis', () => {
  let server: RedisServer
  beforeAll(async () => {
    server = await openRedisServer(['--maxmemory', '64mb'])
  })
  afterAll(() => server?.remove())
  const withSettings = async <T>(settings: Record<string, string>, run: () => Promise<T>): Promise<T> => {
    const before = await Promise.all(
      Object.keys(settings).map(
        async (name) => [name, ((await server.client.config('GET', name)) as string[])[1]!] as const,
      ),
    )
    for (const [name, value] of Object.entries(settings)) await server.client.config('SET', name, value)
    try {
      return await run()
    } finally {
      for (const [name, value] of before) await server.client.config('SET', name, value)
    }
  }

  it('finds nothing on one as it should be', async () => {
    expect(await findingsOf({ url: server.url })).toEqual([])
    expect(() => refuseUnfit([])).not.toThrow()
  })

  it.each(['allkeys-lru', 'volatile-ttl'])('refuses maxmemory-policy %s', async (policy) => {
    const findings = await withSettings({ 'maxmemory-policy': policy }, () => findingsOf({ url: server.url }))
    expect(shortly(findings)).toEqual([`error: maxmemory-policy ${policy}`])
    expect(() => refuseUnfit(findings)).toThrow(expect.objectContaining({ code: 'WEIR_SPEED_REDIS_UNFIT' }))
  })

  it('wants something persisted, by append or by snapshots', async () => {
    const check = (options?: RedisCheckOptions) => findingsOf({ url: server.url }, options)
    const none = { appendonly: 'no', save: '' }
    expect(shortly(await withSettings(none, () => check()))).toEqual(['error: appendonly no, save ""'])
    const advised = await withSettings(none, () => check({ persistence: 'advised' }))
    expect(shortly(advised)).toEqual(['warning: appendonly no, save ""'])
    expect(() => refuseUnfit(advised)).not.toThrow()
    expect(await withSettings({ appendonly: 'no', save: '3600 1' }, () => check())).toEqual([])
  })

  it('says what it cannot ask where CONFIG is forbidden', async () => {
    await server.client.call('ACL', ['SETUSER', 'managed', 'on', '>secret', '~*', '+@all', '-config'])
    const url = server.url.replace('//', '//managed:secret@')
    expect(await findingsOf({ url })).toEqual([])
    const findings = await withSettings({ appendonly: 'no' }, () => findingsOf({ url }))
    expect(shortly(findings)).toEqual([expect.stringMatching(/^warning: aof_enabled:0, \d+ snapshots/)])
  })

  it('names missing rights, and no secret', async () => {
    await server.client.call('ACL', ['SETUSER', 'reader', 'on', '>secret', '~other:*', '+@all'])
    const findings = await findingsOf(
      { url: server.url, username: 'reader', password: 'secret' },
      { keyPrefix: 'weir' },
    )
    expect(shortly(findings)).toEqual([expect.stringContaining('NOPERM')])
    const wrong = findingsOf({ url: server.url, username: 'reader', password: 'not-the-secret' })
    const error = await wrong.then(
      () => null,
      (e: Error) => e,
    )
    expect(error).toMatchObject({ code: 'WEIR_SPEED_REDIS_REFUSED', retryable: false })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('secret')
  })

  it('warns of a memory without a bound, and of one that is nearly full', async () => {
    const unbounded = await withSettings({ maxmemory: '0' }, () => findingsOf({ url: server.url }))
    expect(shortly(unbounded)).toEqual([UNBOUNDED])
    const used = Number(/used_memory:(\d+)/.exec(await server.client.info('memory'))![1])
    const full = await withSettings({ maxmemory: `${Math.round(used * 1.1)}` }, () => findingsOf({ url: server.url }))
    expect(shortly(full)).toEqual([expect.stringMatching(/^warning: \d\d %$/)])
  })

  it('tells a replica, and a node of a Cluster that is given as a single server', async () => {
    const replica = await openRedisServer(['--replicaof', '127.0.0.1', `${server.port}`, '--maxmemory', '64mb'])
    try {
      expect(shortly(await findingsOf({ url: replica.url }))).toEqual(['error: slave'])
    } finally {
      await replica.remove()
    }
  })

  it('says that a server is away, for the caller to try again', async () => {
    const away = openRedis({ url: 'redis://127.0.0.1:1', timeoutMs: 2_000 })
    await expect(away).rejects.toMatchObject({ code: 'WEIR_SPEED_REDIS_UNREACHABLE', retryable: true })
    for (const options of [{}, { url: 'http://a:1' }, { url: 'redis://a:1', cluster: ['a:1'] }, { cluster: ['a'] }])
      await expect(openRedis(options)).rejects.toMatchObject({ code: 'WEIR_SPEED_REDIS_OPTIONS' })
  })
})

describe.skipIf(place === null)('a Redis behind TLS and a password', () => {
  it('is reached by who trusts its certificate and knows the password', async () => {
    const certificate = await openCertificate()
    const { ca } = certificate
    const port = await freePort()
    const tls = ['--tls-port', `${port}`, ...certificate.settings]
    const server = await openRedisServer(['--maxmemory', '64mb', ...tls])
    try {
      await server.client.call('ACL', ['SETUSER', 'default', 'on', 'resetpass', '>s3cret', '~*', '+@all'])
      expect(await findingsOf({ url: `rediss://:s3cret@127.0.0.1:${port}`, tls: { ca } })).toEqual([])
      expect(await findingsOf({ url: `rediss://127.0.0.1:${port}`, password: 's3cret', tls: { ca } })).toEqual([])
      const untrusted = findingsOf({ url: `rediss://:s3cret@127.0.0.1:${port}`, timeoutMs: 2_000 })
      await expect(untrusted).rejects.toMatchObject({ got: expect.stringContaining('self-signed certificate') })
      const unknown = findingsOf({ url: server.url, timeoutMs: 2_000 })
      await expect(unknown).rejects.toMatchObject({ code: 'WEIR_SPEED_REDIS_REFUSED', retryable: false })
    } finally {
      await server.remove()
      await certificate.remove()
    }
  })
})

describe.skipIf(cluster === null)('the check of a Redis Cluster', () => {
  it('asks every master', async () => {
    const nodes = cluster!.split(',')
    const redis = await openRedis({ cluster: nodes })
    // As if none of them had a bound: each says so.
    const onMasters: typeof redis.onMasters = async (command, args) =>
      (await redis.onMasters(command, args)).map(({ node, reply }) => ({
        node,
        reply: typeof reply === 'string' ? reply.replace(/^maxmemory:\d+/m, 'maxmemory:0') : reply,
      }))
    const findings = await checkRedis({ ...redis, onMasters })
    await redis.close()
    expect(new Set(shortly(findings))).toEqual(new Set([UNBOUNDED]))
    expect(new Set(findings.map((f) => f.node)).size).toBe(3)
    const alone = await findingsOf({ url: `redis://${findings[0]!.node}` })
    expect(shortly(alone)).toContain('error: cluster_enabled:1')
  })
})
