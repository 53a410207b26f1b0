/**
 * Leases as numbered objects, made of put-if-absent and delete alone (no overwrite to race on).
 * A lease only orders who tries; what is published is decided by the pointers. Old entries are deleted, the newest never is.
 */
import { WeirError } from '../model/errors.ts'
import type { ObjectInfo, ObjectStore } from '../model/ports/object-store.ts'
import type { Publications } from '../model/ports/publications.ts'
import { twentyDigits } from './keys.ts'
import { seal, unseal } from './sealed.ts'

/** `ttlMs` is absent in leases of the first release. */
type Lease = { formatVersion: 1; holder: string; untilMs: number; ttlMs?: number; nonce: string }

/** Whether a lease still runs. One that would run far longer than it was given for was made before the clock stepped back. */
const runs = ({ untilMs, ttlMs }: Lease, nowMs: number): boolean =>
  untilMs > nowMs && (ttlMs === undefined || untilMs - nowMs <= 2 * ttlMs)

/** A damaged lease is none: it only orders who tries, and must not hold up extends for ever. */
const leaseOf = (bytes: Uint8Array, key: string): Lease | null => {
  try {
    return unseal<Lease>(bytes, key)
  } catch (error) {
    if (error instanceof WeirError && error.code === 'WEIR_LAKE_CORRUPT') return null
    throw error
  }
}

export const openClaims = (
  store: ObjectStore,
  now: () => number,
): Pick<Publications, 'claim' | 'claimedBy' | 'release'> => {
  const prefixOf = (view: string, version: string): string => `claims/${view}/${version}/`
  const numberOf = (info: ObjectInfo): number => Number(info.key.slice(info.key.lastIndexOf('/') + 1, -'.json'.length))

  const newest = async (prefix: string): Promise<{ n: number; lease: Lease | null; older: string[] }> => {
    const found = await store.list(prefix)
    const last = found.at(-1)
    if (last === undefined) return { n: 0, lease: null, older: [] }
    const bytes = await store.get(last.key)
    return {
      n: numberOf(last),
      lease: bytes === null ? null : leaseOf(bytes, last.key),
      older: found.slice(0, -1).map((o) => o.key),
    }
  }

  const put = async (prefix: string, n: number, holder: string, ttlMs: number): Promise<boolean> => {
    const key = `${prefix}${twentyDigits(n)}.json`
    const untilMs = ttlMs === 0 ? 0 : now() + ttlMs
    const lease: Lease = { formatVersion: 1, holder, untilMs, ttlMs, nonce: crypto.randomUUID() }
    if ((await store.putIfAbsent(key, seal(lease))) === 'exists') return false
    const after = await newest(prefix)
    // A slow writer may have filled a number that was cleaned up since: only the newest one holds.
    if (after.n !== n) {
      await store.delete(key)
      return false
    }
    for (const old of after.older) await store.delete(old)
    return true
  }

  return {
    claim: async (view, version, holder, ttlMs) => {
      const prefix = prefixOf(view, version)
      const { n, lease } = await newest(prefix)
      if (lease !== null && runs(lease, now()) && lease.holder !== holder) return false
      return put(prefix, n + 1, holder, ttlMs)
    },
    claimedBy: async (view, version) => {
      const { lease } = await newest(prefixOf(view, version))
      return lease !== null && runs(lease, now()) ? lease.holder : null
    },
    release: async (view, version, holder) => {
      const prefix = prefixOf(view, version)
      const { n, lease } = await newest(prefix)
      if (lease !== null && lease.holder === holder && runs(lease, now())) await put(prefix, n + 1, holder, 0)
    },
  }
}
