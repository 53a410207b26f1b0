/**
 * A change of the Redis speed store as a call of a script, and what a sweep deletes.
 * Invariant: every key that the script may touch is declared, and every hash that the stored header speaks of is asked to be
 * there: a header is never carried on over blocks that are gone.
 */
import type { Block, ChangelogEntry, Header, StoreKey } from '../model/ports/speed-store.ts'
import type { Argument } from './redis-client.ts'
import { tooLarge } from './redis-errors.ts'
import { COMMIT, COMMIT_WHEN_FULL, type Script } from './redis-scripts.ts'
import {
  emptyHashes,
  encodeChange,
  encodeRedisBlocks,
  headerName,
  neededHashes,
  type RedisKeys,
} from './redis-values.ts'
import { CHANGELOG_ENTRIES } from './store-rules.ts'
import { decodeJson, encodeJson } from './stored-values.ts'

/** What is stored under a key, as a decision sees it. */
export type Stored = {
  /** The header as it is stored; empty: there is none. */
  bytes: Buffer
  /** Null: none, damaged, or without a hash of blocks that it speaks of. */
  header: Header | null
  /** Number of blocks in each hash that there is or should be. */
  hashes: Map<string, number>
}

export type Change = {
  next?: Header
  changelog?: ChangelogEntry | 'clear'
  /** Hashes that go. */
  drop?: string[]
  /** Hashes that lose some blocks, whichever. */
  trim?: { hash: string; blocks: number }[]
  /** `isNew`: whatever is under that name goes first. `staged`: where the blocks have been put aside. */
  put?: { hash: string; isNew: boolean; blocks: Block[]; staged?: string | undefined }[]
}

/** Redis closes a connection that sends a command of 1 GiB. */
const MOST_COMMIT_BYTES = 512 * 1024 * 1024

/** `after`: what is stored when the script has answered 1; null if the header stays as it is. */
export const commitCall = async (
  at: string,
  k: StoreKey,
  keys: RedisKeys,
  stored: Stored,
  { next, changelog, drop: gone = [], trim = [], put = [] }: Change,
): Promise<{ script: Script; names: string[]; args: Argument[]; after: Stored | null }> => {
  const needed = new Set(neededHashes(keys, stored.header))
  // Under the name of an epoch that opens nothing may be left: readers would take it for the epoch's blocks.
  const drop = [...new Set([...gone, ...openedHashes(keys, stored.header, next ?? null)])]
  const written = [...trim.map((t) => t.hash), ...put.flatMap((p) => [p.hash, ...(p.staged ? [p.staged] : [])])]
  const hashes = [...new Set([...needed, ...drop, ...written])]
  const numberOf = new Map(hashes.map((hash, i) => [hash, i + 4]))
  const operations: Argument[] = []
  for (const hash of drop) operations.push('drop', numberOf.get(hash)!, 0)
  for (const { hash, blocks } of trim) operations.push('trim', numberOf.get(hash)!, blocks)
  for (const { hash, isNew, blocks, staged } of put) {
    operations.push(staged ? 'take' : isNew ? 'new' : 'put', numberOf.get(hash)!, blocks.length)
    if (staged) operations.push(numberOf.get(staged)!)
    else for await (const { id, value } of encodeRedisBlocks(blocks)) operations.push(id, value)
  }
  const size = operations.reduce<number>((n, a) => n + (Buffer.isBuffer(a) ? a.byteLength : 0), 0)
  if (size > MOST_COMMIT_BYTES) throw tooLarge(at, keys.header, size, MOST_COMMIT_BYTES)
  const bytes = next === undefined ? null : encodeJson(headerName(k), next)
  return {
    // What takes room is refused when memory is full; a cut is not, since it is what lets the batch side take over.
    script: put.length > 0 || typeof changelog === 'object' ? COMMIT : COMMIT_WHEN_FULL,
    names: [keys.header, keys.index, keys.changelog, ...hashes],
    args: [
      stored.bytes,
      bytes ?? '',
      hashes.map((hash) => (needed.has(hash) ? '1' : '0')).join(''),
      ...(await changelogArguments(k, changelog)),
      CHANGELOG_ENTRIES,
      ...operations,
    ],
    after: bytes && {
      bytes,
      header: decodeJson<Header>(headerName(k), bytes),
      hashes: new Map([
        ...[...stored.hashes].filter(([hash]) => !drop.includes(hash)),
        ...put.map((p) => [p.hash, p.blocks.length] as const),
      ]),
    },
  }
}

/** Empty epochs of the next header that are none of the stored one. */
const openedHashes = (keys: RedisKeys, stored: Header | null, next: Header | null): string[] => {
  const before = new Set(emptyHashes(keys, stored))
  return emptyHashes(keys, next).filter((hash) => !before.has(hash))
}

const changelogArguments = async (k: StoreKey, changelog: Change['changelog']): Promise<Argument[]> => {
  if (changelog === undefined) return ['', 0]
  if (changelog === 'clear') return ['-', 0]
  return [await encodeChange(k, changelog), changelog.from.offset]
}

/** Deletes at most `limit` blocks of retiring epochs, and clears the epochs after whose last block there is still some left of it. */
export const sweepOf = (
  header: Header,
  hashes: ReadonlyMap<string, number>,
  keys: RedisKeys,
  limit: number,
): Required<Pick<Change, 'next' | 'drop' | 'trim'>> => {
  const drop: string[] = []
  const trim: { hash: string; blocks: number }[] = []
  let left = limit
  const views = Object.fromEntries(
    Object.entries(header.views).map(([version, view]) => {
      const retiring = view.retiring.filter((from) => {
        if (left <= 0) return true
        const hash = keys.epoch(version, from)
        const blocks = Math.min(left, hashes.get(hash) ?? 0)
        left -= blocks
        if (left > 0) drop.push(hash)
        else trim.push({ hash, blocks })
        return left <= 0
      })
      return [version, { ...view, retiring }]
    }),
  )
  return { next: { ...header, views }, drop, trim }
}
