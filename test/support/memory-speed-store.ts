/**
 * A speed store in memory with the promises of the port, and the faults of a real one: rolled back, lost, partly deleted.
 * Invariant: every call runs without a pause between its first and last step, so it is one transaction.
 */
import type { Block, ChangelogEntry, Header, SpeedStore, StoreKey } from '../../model/ports/speed-store.ts'
import type { Position } from '../../model/position.ts'
import {
  CHANGELOG_ENTRIES,
  changeOf,
  checkHeader,
  decideApply,
  decideCut,
  decideInstall,
  decideRetire,
  epochName,
  isExpected,
  withoutVersion,
} from '../../speed-layer/store-rules.ts'

type State = { header: Header | null; blocks: Map<string, Block>; changelog: ChangelogEntry[] }
export type Snapshot = Map<string, State>

export type MemorySpeedStore = SpeedStore & {
  /** What is stored now, for `restore`: a fail-over to a replica that lags is a restore of an earlier snapshot. */
  snapshot(): Snapshot
  restore(snapshot: Snapshot): void
  /** Everything is gone. */
  lose(): void
  /** Deletes the `n` blocks that come first; returns how many there were to delete. */
  deleteBlocks(n: number): number
  /** Number of stored blocks. */
  blockCount(): number
}

export const openMemorySpeedStore = (): MemorySpeedStore => {
  let states: Snapshot = new Map()
  const of = (k: StoreKey): State => {
    const name = `${k.dataset}/${k.partition}`
    const found = states.get(name) ?? { header: null, blocks: new Map(), changelog: [] }
    states.set(name, found)
    return found
  }
  const prefix = (version: string, from?: Position): string =>
    from === undefined ? `${version}|` : `${version}|${epochName(from)}|`
  const removeUnder = (state: State, start: string, limit = Number.POSITIVE_INFINITY): number => {
    let removed = 0
    for (const key of [...state.blocks.keys()]) {
      if (removed >= limit) break
      if (!key.startsWith(start)) continue
      state.blocks.delete(key)
      removed++
    }
    return removed
  }
  const copyBlock = (b: Block): Block => ({ ...b, bytes: Uint8Array.from(b.bytes) })
  const put = (state: State, version: string, from: Position, blocks: Block[]): void => {
    for (const block of blocks) state.blocks.set(prefix(version, from) + block.id, copyBlock(block))
  }
  const copy = (from: Snapshot): Snapshot =>
    new Map(
      [...from].map(([name, s]) => [
        name,
        { header: structuredClone(s.header), blocks: new Map(s.blocks), changelog: [...s.changelog] },
      ]),
    )

  return {
    header: async (k) => structuredClone(of(k).header),
    rebuild: async (k, expected, header) => {
      checkHeader(header)
      const state = of(k)
      if (!isExpected(state.header, expected)) return 'stale'
      state.header = structuredClone(header)
      state.blocks.clear()
      state.changelog = []
      return 'applied'
    },
    apply: async (k, apply) => {
      const state = of(k)
      const { outcome, next } = decideApply(state.header, apply)
      if (next === undefined) return outcome
      for (const [version, write] of Object.entries(apply.views)) put(state, version, write.epoch, write.blocks)
      state.changelog.push(structuredClone(changeOf(apply)))
      state.changelog.splice(0, state.changelog.length - CHANGELOG_ENTRIES)
      state.header = structuredClone(next)
      return outcome
    },
    install: async (k, at, version, epochs) => {
      const state = of(k)
      const next = decideInstall(state.header, at, version, epochs)
      if (next === null) return 'stale'
      removeUnder(state, prefix(version))
      for (const { epoch, blocks } of epochs) put(state, version, epoch.from, blocks)
      state.header = structuredClone(next)
      return 'applied'
    },
    cut: async (k, version, desired) => {
      const state = of(k)
      const { answer, next } = decideCut(state.header, version, desired)
      if (next !== undefined) state.header = next
      return structuredClone(answer)
    },
    retire: async (k, version, upTo) => {
      const state = of(k)
      state.header = decideRetire(state.header, version, upTo) ?? state.header
    },
    sweep: async (k, limit) => {
      const state = of(k)
      if (state.header === null) return true
      let left = limit
      for (const [version, view] of Object.entries(state.header.views)) {
        view.retiring = view.retiring.filter((from) => {
          if (left > 0) left -= removeUnder(state, prefix(version, from), left)
          return left <= 0
        })
      }
      return Object.values(state.header.views).every((v) => v.retiring.length === 0)
    },
    dropVersion: async (k, version) => {
      const state = of(k)
      removeUnder(state, prefix(version))
      if (state.header !== null) state.header = withoutVersion(state.header, version)
    },
    blocks: async (k, version, epoch, ids) => {
      const state = of(k)
      const start = prefix(version, epoch)
      const keys = ids?.map((id) => start + id) ?? [...state.blocks.keys()].filter((key) => key.startsWith(start))
      return keys.flatMap((key) => {
        const block = state.blocks.get(key)
        return block === undefined ? [] : [copyBlock(block)]
      })
    },
    changelog: async (k, offset) => structuredClone(of(k).changelog.filter((e) => e.from.offset >= offset)),
    close: async () => undefined,
    snapshot: () => copy(states),
    restore: (snapshot) => {
      states = copy(snapshot)
    },
    lose: () => {
      states = new Map()
    },
    deleteBlocks: (n) => {
      let deleted = 0
      for (const state of states.values())
        for (const key of [...state.blocks.keys()]) {
          if (deleted >= n) return deleted
          state.blocks.delete(key)
          deleted++
        }
      return deleted
    },
    blockCount: () => [...states.values()].reduce((n, s) => n + s.blocks.size, 0),
  }
}
