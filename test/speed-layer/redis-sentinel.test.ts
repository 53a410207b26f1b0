/** The Redis speed store behind Sentinels: the master is killed, its replica takes over, the store goes on. */
import { describe, expect, it } from 'vitest'
import { checkRedis } from '../../speed-layer/redis-check.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { type Certificate, hasOpenssl, openCertificate, openSentinelGroup } from './redis-sentinel.ts'
import { fresh, KEY, V } from './redis-steps.ts'

describe.skipIf(service('REDIS_URL') === null)('the speed store behind a Sentinel', () => {
  const follows = async (certificate?: Certificate): Promise<void> => {
    const { address, master, replicated, replica, remove } = await openSentinelGroup(certificate)
    const tls = certificate === undefined ? {} : { tls: { ca: certificate.ca } }
    const place = { sentinel: { nodes: [address], name: 'weir' }, timeoutMs: 2_000, ...tls }
    try {
      const store = await openRedisSpeedStore(place)
      expect(await store.rebuild(KEY, null, fresh)).toBe('applied')
      await replicated()
      await master.kill()
      await expect(store.header(KEY)).rejects.toMatchObject({ retryable: true })
      expect(await until('another master', 20_000, async () => (await store.header(KEY)) ?? undefined)).toEqual(fresh)
      expect(await store.cut(KEY, V, 7)).toBe('pending')
      expect(((await replica.client.role()) as string[])[0]).toBe('master')
      await store.close()
      const redis = await openRedis(place)
      expect(await checkRedis(redis)).toEqual([])
      await redis.close()
    } finally {
      await remove()
    }
  }

  it('follows the master', () => follows(), 60_000)

  it.skipIf(!hasOpenssl)(
    'follows it over TLS, which is spoken to the Sentinel too',
    async () => {
      const certificate = await openCertificate()
      try {
        await follows(certificate)
      } finally {
        await certificate.remove()
      }
    },
    60_000,
  )
})
