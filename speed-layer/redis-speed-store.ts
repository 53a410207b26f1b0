/**
 * The speed store in Redis: one server, Sentinels, or a Cluster; many processes share it.
 * Invariant: each change is decided here by store-rules.ts from a header that was read, and made by one script iff the stored
 * header is still that one byte for byte; else it is decided anew. So a header and the blocks it speaks of change together or
 * not at all, and all stores decide alike (docs/decisions/redis-compare-and-set.md).
 *
 * Keys of one (dataset, partition), under one hash tag: h → header (string) · c → changelog (sorted set by offset) ·
 * b:version:epoch → that epoch's blocks (hash) · e → names of those hashes (set). No key ever expires.
 */
import type { Block, ChangelogEntry, Header, SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import { type Argument, openRedis, type RedisConnection, type RedisOptions } from './redis-client.ts'
import { type Change, commitCall, type Stored, sweepOf } from './redis-commit.ts'
import { badRedisOptions, contended } from './redis-errors.ts'
import { READ } from './redis-scripts.ts'
import { stageBlocks } from './redis-stage.ts'
import {
  decodeChange,
  decodeRedisBlock,
  headerName,
  namedHashes,
  neededHashes,
  type RedisKeys,
  redisKeys,
} from './redis-values.ts'
import {
  changeOf,
  checkHeader,
  decideApply,
  decideCut,
  decideInstall,
  decideRetire,
  isExpected,
  openEpoch,
  withoutVersion,
} from './store-rules.ts'
import { decodeJson } from './stored-values.ts'

export type RedisSpeedStoreOptions = RedisOptions & {
  /** Start of all keys, one for each project that shares the Redis; default `weir`. */
  keyPrefix?: string
  /** Blocks of an install beyond this many bytes are sent in parts of this size; default 4 MiB, some 30 ms of Redis's time. */
  requestBytes?: number
}

type Decision<T> = { answer: T; change?: Change }

/** Decisions that may be overtaken by others before one gives up. */
const MOST_TRIES = 1_000
/** Blocks asked for by one command: no reply is longer than a moment of Redis's time. */
const BLOCKS_PER_READ = 64
const REQUEST_BYTES = 4 * 1024 * 1024

/** Opens the store. Throws what `openRedis` throws. */
export const openRedisSpeedStore = async (options: RedisSpeedStoreOptions): Promise<SpeedStore> => {
  const prefix = options.keyPrefix ?? 'weir'
  if (!/^[\x21-\x7a|~]{1,100}$/.test(prefix))
    throw badRedisOptions('The prefix of keys is not one.', '1 to 100 visible characters without braces', prefix)
  return redisSpeedStore(await openRedis(options), prefix, options.requestBytes ?? REQUEST_BYTES)
}

const redisSpeedStore = (redis: RedisConnection, prefix: string, requestBytes: number): SpeedStore => {
  /** What this handle has last seen of each key: saves a read before an apply, and is never believed without the compare. */
  const known = new Map<string, Stored>()

  const read = async (k: StoreKey): Promise<Stored> => {
    const keys = redisKeys(prefix, k)
    let hashes = [...(known.get(keys.header)?.hashes.keys() ?? [])]
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const reply = await redis.run(READ, [keys.header, keys.index, ...hashes], [], false)
      const [bytes, names, counts] = reply as [Buffer, Buffer[], number[]]
      const header = bytes.byteLength === 0 ? null : decodeJson<Header>(headerName(k), bytes)
      const wanted = new Set([...names.map(String), ...namedHashes(keys, header)])
      const found = new Map(hashes.map((hash, i) => [hash, counts[i]!]))
      if ([...wanted].every((hash) => found.has(hash))) {
        for (const hash of hashes) if (!wanted.has(hash)) found.delete(hash)
        const isWhole = neededHashes(keys, header).every((hash) => found.get(hash)! > 0)
        const stored = { bytes, header: isWhole ? header : null, hashes: found }
        known.set(keys.header, stored)
        return stored
      }
      hashes = [...wanted]
    }
    throw contended(redis.at, keys.header)
  }

  const commit = async (k: StoreKey, keys: RedisKeys, stored: Stored, change: Change): Promise<boolean> => {
    const { script, names, args, after } = await commitCall(redis.at, k, keys, stored, change)
    known.delete(keys.header)
    if ((await redis.run(script, names, args, true)) !== 1) return false
    if (after !== null) known.set(keys.header, after)
    return true
  }

  /** Decides and commits until nobody has come in between. A decision that writes nothing is never made from what was kept. */
  const change = async <T>(
    k: StoreKey,
    decide: (stored: Stored, keys: RedisKeys) => Decision<T>,
    kept?: Stored,
  ): Promise<T> => {
    const keys = redisKeys(prefix, k)
    let stored = kept ?? (await read(k))
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const { answer, change: made } = decide(stored, keys)
      if (made === undefined && stored !== kept) return answer
      if (made !== undefined && (await commit(k, keys, stored, made))) return answer
      stored = await read(k)
    }
    throw contended(redis.at, keys.header)
  }

  const under = (stored: Stored, start: string): string[] =>
    [...stored.hashes.keys()].filter((hash) => hash.startsWith(start))
  const setHeader = <T>(answer: T, next: Header | null | undefined): Decision<T> =>
    next === null || next === undefined ? { answer } : { answer, change: { next } }

  return {
    header: async (k) => (await read(k)).header,
    rebuild: async (k, expected, header) => {
      checkHeader(header)
      return change<'applied' | 'stale'>(k, (stored) => {
        if (!isExpected(stored.header, expected)) return { answer: 'stale' }
        const drop = [...stored.hashes.keys()]
        return { answer: 'applied', change: { next: header, drop, changelog: 'clear' } }
      })
    },
    apply: (k, apply) =>
      change(
        k,
        (stored, keys) => {
          const { outcome, next } = decideApply(stored.header, apply)
          if (next === undefined) return { answer: outcome }
          const put = Object.entries(apply.views)
            .filter(([, write]) => write.blocks.length > 0)
            .map(([version, { epoch, blocks }]) => {
              // Nothing may be under the name of an epoch that is empty: it would count as its blocks from now on.
              const isNew = openEpoch(stored.header!.views[version]!).blocks === 0
              return { hash: keys.epoch(version, epoch), isNew, blocks }
            })
          return { answer: outcome, change: { next, put, changelog: changeOf(apply) } }
        },
        known.get(redisKeys(prefix, k).header),
      ),
    install: async (k, at, version, epochs) => {
      const keys = redisKeys(prefix, k)
      const filled = epochs.filter((e) => e.blocks.length > 0)
      const bytes = filled.flatMap((e) => e.blocks).reduce((n, b) => n + b.bytes.byteLength, 0)
      const staged: string[] = []
      if (bytes > requestBytes && decideInstall((await read(k)).header, at, version, epochs) !== null)
        for (const { blocks } of filled) staged.push(await stageBlocks(redis, keys, blocks, requestBytes))
      return change<'applied' | 'stale'>(k, (stored) => {
        const next = decideInstall(stored.header, at, version, epochs)
        if (next === null) return { answer: 'stale' }
        const put = filled.map(({ epoch, blocks }, i) => {
          return { hash: keys.epoch(version, epoch.from), isNew: true, blocks, staged: staged[i] }
        })
        return { answer: 'applied', change: { next, drop: under(stored, keys.version(version)), put } }
      })
    },
    cut: (k, version, desired) =>
      change(k, (stored) => {
        const { answer, next } = decideCut(stored.header, version, desired)
        return setHeader(answer, next)
      }),
    retire: (k, version, upTo) =>
      change(k, (stored) => setHeader(undefined, decideRetire(stored.header, version, upTo))),
    sweep: (k, limit) =>
      change(k, ({ header, hashes }, keys) => {
        if (header === null || Object.values(header.views).every((v) => v.retiring.length === 0))
          return { answer: true }
        const made = sweepOf(header, hashes, keys, limit)
        const answer = Object.values(made.next.views).every((v) => v.retiring.length === 0)
        return { answer, change: made }
      }),
    dropVersion: (k, version) =>
      change(k, ({ header, ...stored }, keys) => {
        const drop = under({ header, ...stored }, keys.version(version))
        const isNamed = header?.views[version] !== undefined
        if (!isNamed && drop.length === 0) return { answer: undefined }
        return { answer: undefined, change: { drop, ...(isNamed ? { next: withoutVersion(header, version) } : {}) } }
      }),
    blocks: async (k, version, epoch, ids) => {
      const hash = redisKeys(prefix, k).epoch(version, epoch)
      const asked = ids ?? ((await readUnlessOther(redis, 'hkeys', [hash])) as Buffer[]).map(String)
      const blocks: Block[] = []
      for (let i = 0; i < asked.length; i += BLOCKS_PER_READ) {
        const some = asked.slice(i, i + BLOCKS_PER_READ)
        const values = (await readUnlessOther(redis, 'hmget', [hash, ...some])) as (Buffer | null)[]
        const found = await Promise.all(values.map((v, j) => (v === null ? null : decodeRedisBlock(some[j]!, v))))
        for (const block of found) if (block !== null) blocks.push(block)
      }
      return blocks
    },
    changelog: async (k, offset) => {
      const key = redisKeys(prefix, k).changelog
      const values = (await readUnlessOther(redis, 'zrangebyscore', [key, offset, '+inf'])) as Buffer[]
      const entries: ChangelogEntry[] = []
      for (const value of values) {
        const entry = await decodeChange(k, value)
        // A damaged entry ends the list: a follower reads all anew.
        if (entry === null) break
        entries.push(entry)
      }
      return entries
    },
    close: () => redis.close(),
  }
}

/** A key of another type was written by a foreign hand: it reads as missing, as in the scripts. */
const readUnlessOther = async (redis: RedisConnection, command: string, args: Argument[]): Promise<unknown> => {
  try {
    return await redis.read(command, args)
  } catch (error) {
    if (error instanceof Error && 'got' in error && String(error.got).startsWith('WRONGTYPE')) return []
    throw error
  }
}
