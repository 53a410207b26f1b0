/**
 * A chain of sealed objects `<prefix><20 digits>.json`, numbered from 1 without gaps.
 * Invariant: number n + 1 is written by put-if-absent after n was seen, so each number has one writer.
 */
import type { ObjectStore } from '../model/ports/object-store.ts'
import { twentyDigits } from './keys.ts'
import { sealWithHash, unsealWithHash } from './sealed.ts'

export type ChainLink<T> = { n: number; value: T; hash: string }

export type Chain<T> = {
  /** Newest link; null for an empty chain. */
  last(): Promise<ChainLink<T> | null>
  /** Writes link n; false when another value has that number. A lost reply is resolved by reading. */
  put(n: number, value: T): Promise<boolean>
}

export const openChain = <T extends { formatVersion: number }>(store: ObjectStore, prefix: string): Chain<T> => {
  const keyOf = (n: number): string => `${prefix}${twentyDigits(n)}.json`
  let known: ChainLink<T> | null = null

  const opened = (n: number, bytes: Uint8Array): ChainLink<T> => ({ n, ...unsealWithHash<T>(bytes, keyOf(n)) })
  const get = async (n: number): Promise<ChainLink<T> | null> => {
    const bytes = await store.get(keyOf(n))
    return bytes === null ? null : opened(n, bytes)
  }

  return {
    // Numbers have no gaps: gallop, then halve. From the known end this is one read; a listing would cost the whole chain.
    // Links can be large: only the one that is the last is opened.
    last: async () => {
      let low = known?.n ?? 0
      let newest: Uint8Array | null = null
      let step = 1
      let high = Number.POSITIVE_INFINITY
      while (low + 1 < high) {
        const probe = high === Number.POSITIVE_INFINITY ? low + step : Math.floor((low + high) / 2)
        const found = await store.get(keyOf(probe))
        if (found === null) high = probe
        else {
          low = probe
          newest = found
          step *= 2
        }
      }
      // Another call may have come further meanwhile.
      if (newest !== null && low > (known?.n ?? 0)) known = opened(low, newest)
      return known
    },
    put: async (n, value) => {
      const { bytes, hash } = sealWithHash(value)
      const put = async (): Promise<boolean> => {
        try {
          if ((await store.putIfAbsent(keyOf(n), bytes)) === 'written') return true
          return (await get(n))?.hash === hash
        } catch (error) {
          const found = await get(n)
          if (found === null) throw error
          return found.hash === hash
        }
      }
      const won = await put()
      // A chain can be long and its links large: the next look begins here. Links are values, so nobody changes this one.
      if (won && n > (known?.n ?? 0)) known = { n, value, hash }
      return won
    },
  }
}
