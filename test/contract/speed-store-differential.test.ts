/**
 * The Redis speed store and the embedded one as each other's oracle: the same random calls, in lockstep, have the same outcomes
 * and leave the same state. Then many handles at once on one key: what must hold whoever wins.
 * WEIR_STORE_CALLS asks for more calls than 3,000, WEIR_STORE_SEED for another seed.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { blockHash, digestOf } from '../../model/digest.ts'
import type { Header } from '../../model/ports/speed-store.ts'
import { genesis, samePosition } from '../../model/position.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { namedHashes, redisKeys } from '../../speed-layer/redis-values.ts'
import { emptyEpoch } from '../../speed-layer/store-rules.ts'
import { speedStoreOnRedis } from '../speed-layer/redis-support.ts'
import { below, rng } from '../support/orders.ts'
import { service } from '../support/services.ts'
import { KEYS, outcomeOf, randomCall, stateOf, VERSIONS } from './speed-store-calls.ts'

const CALLS = Number(process.env.WEIR_STORE_CALLS ?? 3_000)
const SEED = Number(process.env.WEIR_STORE_SEED ?? 1)

/** An outcome, for counting. */
const shortly = (outcome: unknown): string => {
  if (typeof outcome !== 'object' || outcome === null) return String(outcome)
  return 'error' in outcome ? String(outcome.error) : Array.isArray(outcome) ? 'entries' : 'a position'
}

const freshHeader = (): Header => ({
  formatVersion: 1,
  position: genesis('log-a'),
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: Object.fromEntries(VERSIONS.map((v) => [v, { epochs: [emptyEpoch(genesis('log-a'))], retiring: [] }])),
})

for (const name of ['REDIS_URL', 'REDIS_CLUSTER'] as const) {
  const place = service(name)
  describe.skipIf(place === null)(`random calls: ${name}`, () => {
    it(`${CALLS} in lockstep with the embedded store`, { timeout: 60_000 + CALLS * 20 }, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'weir-speed-'))
      const redis = await speedStoreOnRedis(name, place!)
      const embedded = await openLmdbSpeedStore({ folder })
      // Several handles in turn: what one has kept is often old. The last one installs in the smallest parts.
      const handles = [await redis.open(), await redis.open(), await redis.open({ requestBytes: 64 })]
      const random = rng(SEED)
      const seen = new Map<string, number>()
      try {
        for (let i = 0; i < CALLS; i++) {
          const call = await randomCall(random, embedded)
          const often = call.name === 'install' ? 2 : 0
          const handle = handles[below(random, 8) < 6 ? often : below(random, handles.length)]!
          const where = `seed ${SEED}, call ${i}: ${call.name}`
          const expected = await outcomeOf(call, embedded)
          expect(await outcomeOf(call, handle), where).toEqual(expected)
          expect(await handle.header(call.key), where).toEqual(await embedded.header(call.key))
          const kind = `${call.name}: ${shortly(expected)}`
          seen.set(kind, (seen.get(kind) ?? 0) + 1)
          if (i % 7 !== 0 && i !== CALLS - 1) continue
          for (const key of KEYS) expect(await stateOf(handle, key), where).toEqual(await stateOf(embedded, key))
        }
        // Nothing is left behind that no header speaks of, and no state expires.
        for (const key of await redis.keys()) if (!key.includes('}:s:')) expect(await redis.client.ttl(key)).toBe(-1)
        const named = new Set<string>()
        for (const key of KEYS)
          for (const hash of namedHashes(redisKeys(redis.prefix, key), await embedded.header(key))) named.add(hash)
        const stored = (await redis.keys()).filter((key) => key.includes('}:b:'))
        expect(stored.filter((key) => !named.has(key))).toEqual([])
        for (const outcome of ['applied', 'duplicate', 'gap', 'boundary', 'stale'])
          expect(
            [...seen].some(([kind]) => kind.startsWith('apply') && kind.includes(outcome)),
            outcome,
          ).toBe(true)
        if (process.env.WEIR_STORE_CALLS) console.info([...seen].map(([k, n]) => `${n} ${k}`).join('\n'))
      } finally {
        for (const handle of handles) await handle.close()
        await embedded.close()
        await redis.remove()
        await rm(folder, { recursive: true, force: true })
      }
    })

    it('from many handles at once on one key: one history, whole blocks, a gapless changelog', async () => {
      const redis = await speedStoreOnRedis(name, place!)
      const handles = await Promise.all(Array.from({ length: 5 }, () => redis.open()))
      const key = KEYS[0]!
      const outcomes: unknown[] = []
      try {
        await handles[0]!.rebuild(key, null, freshHeader())
        await Promise.all(
          handles.map(async (handle, h) => {
            const random = rng(SEED * 100 + h)
            for (let i = 0; i < CALLS / 30; i++) {
              const call = await randomCall(random, handle, [key])
              // These begin another history, or another content of an epoch, under the same name.
              if (['rebuild', 'install', 'dropVersion'].includes(call.name)) continue
              const outcome = await outcomeOf(call, handle)
              if (call.name.startsWith('apply')) outcomes.push(outcome)
            }
          }),
        )
        const applied = outcomes.filter((o) => o === 'applied').length
        // Some were overtaken between their look and their apply.
        expect(outcomes.length - applied).toBeGreaterThan(CALLS / 50)
        const store = handles[0]!
        const header = (await store.header(key))!
        expect(applied).toBeGreaterThan(CALLS / 100)
        for (const [version, { epochs }] of Object.entries(header.views)) {
          expect(VERSIONS).toContain(version)
          for (const [i, epoch] of epochs.entries()) {
            expect(samePosition(epoch.to, epochs[i + 1]?.from ?? header.position)).toBe(true)
            const blocks = await store.blocks(key, version, epoch.from)
            expect(blocks.length).toBe(epoch.blocks)
            expect(digestOf(blocks.map((b) => blockHash(b.id, b.bytes)))).toBe(epoch.digest)
          }
        }
        const changes = await store.changelog(key, 0)
        for (const [i, entry] of changes.slice(1).entries()) expect(samePosition(entry.from, changes[i]!.to)).toBe(true)
        expect(samePosition(changes.at(-1)!.to, header.position)).toBe(true)
        expect(changes.length).toBe(Math.min(applied, 256))
      } finally {
        for (const handle of handles) await handle.close()
        await redis.remove()
      }
    })
  })
}
