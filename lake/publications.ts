/**
 * Port `Publications` in the object store. Invariant: every change is one put-if-absent of the next number of a chain, so it
 * is a compare-and-set on the object before; chains are never shortened, and a tombstone is the last link of a version's chain.
 *
 * Keys: `pointers/<view>/<version>/<n>.json`, `versions/<view>/<version>.json`, `active/<view>/<n>.json`,
 * `claims/<view>/<version>/<n>.json`; n has 20 digits and starts at 1. All objects are sealed with their digest.
 */
import { WeirError } from '../model/errors.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { KeptGeneration, PartFile, Pointer, Publications, VersionEntry } from '../model/ports/publications.ts'
import { type Chain, openChain } from './chain.ts'
import { openClaims } from './claims.ts'
import { compareKeys } from './keys.ts'
import { seal, sealHash, unseal } from './sealed.ts'

type Tombstone = { formatVersion: 1; dropped: true; view: string; version: string; generation: number }
/**
 * A pointer as it is stored. Kept generations share most files with the newest one, so each file is written once: `kept[i].files` are
 * places in `files` followed by `more`. Else a view of a year's days, extended each minute, would store a gigabyte of names a day.
 */
type StoredPointer = Omit<Pointer, 'kept'> & {
  more?: PartFile[]
  /** Files themselves: in pointers of the first builds. */
  kept: (Omit<KeptGeneration, 'files'> & { files: (number | PartFile)[] })[]
}
type Link = StoredPointer | Tombstone

const pack = (pointer: Pointer): StoredPointer => {
  const more: PartFile[] = []
  // Generations carry the very objects of their base over: keys, thousands of long texts, are looked at only where one is not known.
  const places = new Map(pointer.files.map((file, i) => [file, i]))
  let byKey: Map<string, number> | undefined
  const fileAt = (place: number): PartFile => pointer.files[place] ?? more[place - pointer.files.length]!
  const placeOf = (file: PartFile): number => {
    let place = places.get(file)
    if (place !== undefined) return place
    byKey ??= new Map(pointer.files.map((known, i) => [known.key, i]))
    place = byKey.get(file.key)
    if (place === undefined || fileAt(place).sha256 !== file.sha256) {
      place = pointer.files.length + more.push(file) - 1
      byKey.set(file.key, place)
    }
    places.set(file, place)
    return place
  }
  const kept = pointer.kept.map((k) => ({ ...k, files: k.files.map(placeOf) }))
  return { ...pointer, kept, ...(more.length === 0 ? {} : { more }) }
}

const unpack = ({ more = [], ...stored }: StoredPointer): Pointer => {
  const all = [...stored.files, ...more]
  const kept = stored.kept.map((k) => ({ ...k, files: k.files.map((f) => (typeof f === 'number' ? all[f]! : f)) }))
  return { ...stored, kept }
}
type Active = { formatVersion: 1; view: string; version: string }
type Version = { formatVersion: 1; view: string; version: string; sql: string }

const isTombstone = (link: Link): link is Tombstone => 'dropped' in link

const backward = (next: Pointer, base: Pointer): string | undefined =>
  Object.keys(base.cut).find(
    (p) =>
      next.cut[p] === undefined || next.cut[p].offset < base.cut[p]!.offset || next.cut[p].logId !== base.cut[p]!.logId,
  )

/** `now` (ms) is for claims only: leases order who tries, they never decide what is published. */
export const openPublications = (store: ObjectStore, options: { now?: () => number } = {}): Publications => {
  const pointers = new Map<string, Chain<Link>>()
  const actives = new Map<string, Chain<Active>>()
  const claims = openClaims(store, options.now ?? Date.now)
  const memo = <T>(map: Map<string, T>, key: string, make: () => T): T => {
    const found = map.get(key) ?? make()
    map.set(key, found)
    return found
  }
  const chainOf = (view: string, version: string): Chain<Link> =>
    memo(pointers, `${view}/${version}`, () => openChain<Link>(store, `pointers/${view}/${version}/`))
  const activeOf = (view: string): Chain<Active> =>
    memo(actives, view, () => openChain<Active>(store, `active/${view}/`))

  const current: Publications['current'] = async (view, version) => {
    const last = await chainOf(view, version).last()
    if (last === null) return null
    return isTombstone(last.value) ? 'dropped' : { pointer: unpack(last.value), hash: last.hash }
  }

  const tokenOf = (n: number, hash: string): string => `${n}.${hash}`

  const versionFiles = new Map<string, Version>()
  return {
    current,
    publish: async (next) => {
      const base = await current(next.view, next.version)
      if (base === 'dropped') return 'dropped'
      if (next.generation !== (base?.pointer.generation ?? 0) + 1 || next.baseHash !== (base?.hash ?? '')) {
        // Our own earlier attempt, whose reply was lost?
        return base?.hash === sealHash(pack(next)) ? 'published' : 'stale'
      }
      const back = base === null ? undefined : backward(next, base.pointer)
      if (back !== undefined)
        throw new WeirError({
          code: 'WEIR_LAKE_CUT_BACK',
          message: `Generation ${next.generation} of ${next.view} would take the cut of partition ${back} back.`,
          expected: `offset ≥ ${base?.pointer.cut[back]?.offset} in the same log`,
          got: JSON.stringify(next.cut[back] ?? null),
          next: 'this is a defect in the batch layer: extend to the current cut before publishing',
        })
      const won = await chainOf(next.view, next.version).put(next.generation, pack(next))
      if (won) return 'published'
      return (await current(next.view, next.version)) === 'dropped' ? 'dropped' : 'stale'
    },
    register: async (view, version, sql) => {
      await store.putIfAbsent(
        `versions/${view}/${version}.json`,
        seal({ formatVersion: 1, view, version, sql } as Version),
      )
    },
    versions: async () => {
      const out: VersionEntry[] = []
      for (const { key } of await store.list('versions/')) {
        let entry = versionFiles.get(key)
        if (entry === undefined) {
          const bytes = await store.get(key)
          if (bytes === null) continue
          entry = unseal<Version>(bytes, key)
          versionFiles.set(key, entry)
        }
        const { view, version, sql } = entry
        out.push({ view, version, sql, dropped: (await current(view, version)) === 'dropped' })
      }
      return out.sort((a, b) => compareKeys(`${a.view}/${a.version}`, `${b.view}/${b.version}`))
    },
    active: async (view) => {
      const last = await activeOf(view).last()
      return last && { version: last.value.version, token: tokenOf(last.n, last.hash) }
    },
    activate: async (view, version, expectedToken) => {
      if ((await current(view, version)) === 'dropped')
        throw new WeirError({
          code: 'WEIR_LAKE_DROPPED',
          message: `Version ${version} of ${view} was dropped; it cannot serve again.`,
          expected: 'a version that is not dropped',
          got: version,
          next: 'change the view (a comment is not enough) to get a new version, or activate another one',
        })
      const chain = activeOf(view)
      const last = await chain.last()
      if ((last === null ? null : tokenOf(last.n, last.hash)) !== expectedToken) return 'stale'
      return (await chain.put((last?.n ?? 0) + 1, { formatVersion: 1, view, version })) ? 'activated' : 'stale'
    },
    drop: async (view, version) => {
      const chain = chainOf(view, version)
      for (;;) {
        const last = await chain.last()
        if (last !== null && isTombstone(last.value)) return
        const generation = (last?.n ?? 0) + 1
        if (await chain.put(generation, { formatVersion: 1, dropped: true, view, version, generation })) return
      }
    },
    claim: claims.claim,
    claimedBy: claims.claimedBy,
    release: claims.release,
  }
}
