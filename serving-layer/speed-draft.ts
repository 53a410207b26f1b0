/**
 * What a follower has to read to come to a header: a draft of one partition's epochs of one view version.
 * Invariant: a draft fits a header iff every epoch of the header is in it with as many blocks and the very digest; only then
 * may it become the follower's state. A changelog entry only says which blocks to read; it is believed iff it goes on from the
 * draft's position and names the open epoch or one that starts there (rule 18); else everything is read anew.
 */
import { blockHash, digestOf, EMPTY_DIGEST, xorDigest } from '../model/digest.ts'
import type { Block, ChangelogEntry, Epoch, Header, SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import { type Position, samePosition } from '../model/position.ts'

export const epochKey = (from: Position): string => `${from.logId}/${from.offset}/${from.fingerprint}`

/** Hashes by block id, and their digest. */
export type EpochHashes = { hashes: Map<string, string>; digest: string }
export type LocalEpoch = EpochHashes & {
  /** Local number of the epoch. */
  id: number
  /** Local number of each block. */
  numbers: Map<string, number>
}
/** Never changed, only replaced (but for the time of the look). */
export type LocalPartition = {
  /** The header that the copy equals; null, or without the version: there is nothing to copy. */
  header: Header | null
  epochs: Map<string, LocalEpoch>
  /** performance.now() before the header was last read. */
  lookedAt: number
}

type DraftEpoch = EpochHashes & {
  /** Blocks read that differ from the local ones. */
  fetched: Map<string, Block>
  /** Blocks that the local epoch has and the store has not. */
  gone: Set<string>
  /** The map of hashes is this draft's own (copied on first write). */
  own: boolean
}
export type Draft = { position: Position | null; epochs: Map<string, DraftEpoch> }

export const draftOf = (local: LocalPartition | undefined): Draft => ({
  position: local?.header?.position ?? null,
  epochs: new Map(
    [...(local?.epochs ?? [])].map(([key, e]) => [
      key,
      { hashes: e.hashes, digest: e.digest, fetched: new Map(), gone: new Set(), own: false },
    ]),
  ),
})

const sameEpoch = (draft: DraftEpoch | undefined, epoch: Epoch): draft is DraftEpoch =>
  draft !== undefined && draft.digest === epoch.digest && draft.hashes.size === epoch.blocks

/** Blocks changed between the draft's position and a header's, by epoch; null when the changelog does not tell. */
export const changesSince = (
  position: Position,
  known: (key: string) => boolean,
  version: string,
  entries: ChangelogEntry[],
  to: Position,
): Map<string, Set<string>> | null => {
  const changed = new Map<string, Set<string>>()
  let at = position
  let open: string | null = null
  for (const entry of entries) {
    if (at.offset >= to.offset) break
    if (entry.from.offset < at.offset) continue
    const view = entry.views[version]
    if (view === undefined || !samePosition(entry.from, at)) return null
    const key = epochKey(view.epoch)
    const starts = samePosition(view.epoch, entry.from)
    if (!starts && !(open === null ? known(key) : key === open)) return null
    open = key
    const ids = changed.get(key) ?? new Set()
    for (const id of view.blocks) ids.add(id)
    changed.set(key, ids)
    at = entry.to
  }
  return samePosition(at, to) ? changed : null
}

const put = (epoch: DraftEpoch, block: Block): boolean => {
  if (blockHash(block.id, block.bytes) !== block.hash) return false
  const old = epoch.hashes.get(block.id)
  if (old === block.hash) return true
  if (!epoch.own) {
    epoch.hashes = new Map(epoch.hashes)
    epoch.own = true
  }
  if (old !== undefined) epoch.digest = xorDigest(epoch.digest, old)
  epoch.digest = xorDigest(epoch.digest, block.hash)
  epoch.hashes.set(block.id, block.hash)
  epoch.fetched.set(block.id, block)
  epoch.gone.delete(block.id)
  return true
}

/** Makes the epoch exactly these blocks; keeps those that are equal already. */
const replaceAll = (epoch: DraftEpoch, blocks: Block[]): void => {
  const ids = new Set(blocks.map((b) => b.id))
  const missing = [...epoch.hashes.keys()].filter((id) => !ids.has(id))
  if (missing.length > 0) {
    epoch.hashes = new Map([...epoch.hashes].filter(([id]) => ids.has(id)))
    epoch.own = true
    epoch.digest = digestOf(epoch.hashes.values())
    for (const id of missing) {
      epoch.fetched.delete(id)
      epoch.gone.add(id)
    }
  }
  for (const block of blocks) put(epoch, block)
}

/**
 * Reads what brings the draft to `header`; true when it now fits. `anew`: whatever the changelog says, read all.
 * Blocks may already be newer than the header, as values are absolute: then it does not fit, and a newer header will.
 */
export const advance = async (
  store: SpeedStore,
  key: StoreKey,
  version: string,
  draft: Draft,
  header: Header,
  anew: boolean,
): Promise<boolean> => {
  const wanted = header.views[version]?.epochs ?? []
  const from = draft.position
  let changed: Map<string, Set<string>> | null = null
  if (!anew && from !== null && from.logId === header.position.logId && from.offset <= header.position.offset) {
    const entries = samePosition(from, header.position) ? [] : await store.changelog(key, from.offset)
    changed = changesSince(from, (k) => draft.epochs.has(k), version, entries, header.position)
  }
  const kept = new Set(wanted.map((e) => epochKey(e.from)))
  for (const name of draft.epochs.keys()) if (!kept.has(name)) draft.epochs.delete(name)
  let fits = true
  for (const epoch of wanted) {
    const name = epochKey(epoch.from)
    let own = draft.epochs.get(name)
    if (sameEpoch(own, epoch) && !anew) continue
    const fresh = own === undefined
    own ??= { hashes: new Map(), digest: EMPTY_DIGEST, fetched: new Map(), gone: new Set(), own: true }
    draft.epochs.set(name, own)
    const ids = changed?.get(name)
    // The changelog tells all of an epoch only if it was seen from its beginning.
    const told = changed !== null && (!fresh || (from !== null && epoch.from.offset >= from.offset))
    if (!told) replaceAll(own, await store.blocks(key, version, epoch.from))
    else if (ids !== undefined && ids.size > 0)
      for (const block of await store.blocks(key, version, epoch.from, [...ids])) put(own, block)
    fits &&= sameEpoch(own, epoch)
  }
  draft.position = header.position
  return fits
}
