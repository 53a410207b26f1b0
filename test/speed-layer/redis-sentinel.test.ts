/** The Redis speed store behind Sentinels: the master is killed, its replica takes over, the store goes on. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, it } from 'vitest'
import type { Header } from '../../model/ports/speed-store.ts'
import { genesis } from '../../model/position.ts'
import { checkRedis } from '../../speed-layer/redis-check.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { emptyEpoch } from '../../speed-layer/store-rules.ts'
import { freePort, until } from '../support/server.ts'
import { service } from '../support/services.ts'
import { openRedisServer } from './redis-server.ts'

const KEY = { dataset: 'orders', partition: 0 }
const V = '1111111111111111'
const G = genesis('log-a')
const fresh: Header = {
  formatVersion: 1,
  position: G,
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: { [V]: { epochs: [emptyEpoch(G)], retiring: [] } },
}

const openSentinel = async (masterPort: number) => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-sentinel-'))
  const port = await freePort()
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${folder}`,
    `sentinel monitor weir 127.0.0.1 ${masterPort} 1`,
    'sentinel down-after-milliseconds weir 500',
    'sentinel failover-timeout weir 3000',
  ]
  await writeFile(join(folder, 'sentinel.conf'), lines.join('\n'))
  const child: ChildProcess = spawn('redis-server', [join(folder, 'sentinel.conf'), '--sentinel'], { stdio: 'ignore' })
  const end = (): void => void child.kill('SIGKILL')
  process.on('exit', end)
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50 })
  client.on('error', () => undefined)
  const knowsReplica = () =>
    until('the Sentinel', 20_000, async () => {
      const replicas = (await client.call('SENTINEL', ['REPLICAS', 'weir'])) as unknown[]
      return replicas.length > 0 ? true : undefined
    })
  const remove = async (): Promise<void> => {
    client.disconnect()
    const gone = once(child, 'exit')
    if (child.exitCode === null) end()
    await gone
    process.off('exit', end)
    await rm(folder, { recursive: true, force: true })
  }
  return { port, knowsReplica, remove }
}

describe.skipIf(service('REDIS_URL') === null)('the speed store behind a Sentinel', () => {
  it('follows the master', async () => {
    const master = await openRedisServer(['--maxmemory', '64mb', '--repl-diskless-sync-delay', '0'])
    const replica = await openRedisServer(['--maxmemory', '64mb', '--replicaof', '127.0.0.1', `${master.port}`])
    const sentinel = await openSentinel(master.port)
    const place = { sentinel: { nodes: [`127.0.0.1:${sentinel.port}`], name: 'weir' }, timeoutMs: 2_000 }
    try {
      await sentinel.knowsReplica()
      await until('the replica', 20_000, async () =>
        (await replica.client.info('replication')).includes('master_link_status:up') ? true : undefined,
      )
      const store = await openRedisSpeedStore(place)
      expect(await store.rebuild(KEY, null, fresh)).toBe('applied')
      await master.client.wait(1, 2_000)
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
      await sentinel.remove()
      await replica.remove()
      await master.remove()
    }
  })
})
