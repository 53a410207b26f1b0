/** Steps of a Redis speed store with one view, and a store whose replies get lost: what the tests of its faults begin with. */
import { expect } from 'vitest'
import { blockHash, digestOf } from '../../model/digest.ts'
import type { Apply, Block, Header, SpeedStore } from '../../model/ports/speed-store.ts'
import { genesis, type Position } from '../../model/position.ts'
import { openRedisSpeedStore } from '../../speed-layer/redis-speed-store.ts'
import { emptyEpoch } from '../../speed-layer/store-rules.ts'
import { until } from '../support/server.ts'
import { openRedisProxy, openRedisServer, type RedisProxy, type RedisServer } from './redis-server.ts'

export const KEY = { dataset: 'orders', partition: 0 }
export const V = '1111111111111111'
export const G = genesis('log-a')
export const at = (offset: number): Position =>
  offset === 0 ? G : { logId: 'log-a', offset, fingerprint: `${offset}`.padEnd(16, '0'), effectiveMs: offset }
export const block = (id: string, text: string): Block => {
  const bytes = Buffer.from(text)
  return { id, bytes, hash: blockHash(id, bytes) }
}
export const fresh: Header = {
  formatVersion: 1,
  position: G,
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: { [V]: { epochs: [emptyEpoch(G)], retiring: [] } },
}
/** Goes on by one record: `blocks` over those of the epoch. */
export const applyOf = (header: Header, blocks: Block[], old: Block[] = []): Apply => {
  const all = new Map([...old, ...blocks].map((b) => [b.id, b.hash]))
  const { from } = header.views[V]!.epochs.at(-1)!
  const to = at(header.position.offset + 1)
  const write = { epoch: from, blocks, blockCount: all.size, digest: digestOf(all.values()) }
  return {
    from: header.position,
    to,
    counted: to.offset,
    duplicate: 0,
    dead: 0,
    watermarkUs: null,
    views: { [V]: write },
  }
}
export const step = async (store: SpeedStore, blocks: Block[]): Promise<string> => {
  const header = (await store.header(KEY))!
  const { from } = header.views[V]!.epochs.at(-1)!
  return store.apply(KEY, applyOf(header, blocks, await store.blocks(KEY, V, from)))
}
/** Everything stored, with the digests compared. */
export const look = async (store: SpeedStore) => {
  const header = await store.header(KEY)
  const blocks: Record<string, string[]> = {}
  for (const epoch of header?.views[V]?.epochs ?? []) {
    const found = await store.blocks(KEY, V, epoch.from)
    expect(digestOf(found.map((b) => blockHash(b.id, b.bytes)))).toBe(epoch.digest)
    blocks[epoch.from.offset] = found.map((b) => `${b.id} ${b.hash}`).sort()
  }
  return { header, blocks, changelog: await store.changelog(KEY, 0) }
}

export type FaultyRedis = {
  server: RedisServer
  proxy: RedisProxy
  /** Past every proxy. */
  direct: SpeedStore
  /** Through the proxy; it has applied one record with the blocks a and b. */
  store: SpeedStore
  /** Resolves once the store answers again. */
  back(): Promise<void>
  close(): Promise<void>
}

export const openFaultyRedis = async (): Promise<FaultyRedis> => {
  const server = await openRedisServer()
  const proxy = await openRedisProxy(server.port)
  const direct = await openRedisSpeedStore({ url: server.url })
  const store = await openRedisSpeedStore({ url: proxy.url })
  await store.rebuild(KEY, null, fresh)
  expect(await step(store, [block('a', '1'), block('b', '1')])).toBe('applied')
  return {
    server,
    proxy,
    direct,
    store,
    back: async () => {
      await until('the store', 10_000, async () => ((await store.header(KEY)) === undefined ? undefined : true))
    },
    close: async () => {
      await store.close()
      await direct.close()
      await proxy.close()
      await server.remove()
    },
  }
}
