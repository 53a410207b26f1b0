/**
 * The readers of all view versions in use, and the sessions of queries. Invariant: a copy that met an unforeseen error is thrown
 * away and made anew, so no answer is ever read from a copy in an unknown state.
 */
import { WeirError } from '../model/errors.ts'
import type { View } from '../model/view.ts'
import type { ServingContext } from './context.ts'
import { closed, misfit } from './errors.ts'
import type { Base, Plan } from './plan.ts'
import { openSnapshots, type Snapshot, type Snapshots } from './snapshots.ts'
import { openViewReader, type ViewReader } from './view-reader.ts'

export type Opened = {
  plan: Plan
  snapshot: Snapshot
  source: string
  /** Whether both tables stood still since they were planned: always so in a transaction. */
  held(): boolean
}

export type Readers = {
  /**
   * Plans under the reader's lock, then opens a snapshot of exactly what was planned. The caller ends it.
   * Without `transaction` (which costs three statements) the caller reads by one statement and believes it iff `held()` after it.
   */
  read(
    view: View,
    transaction: boolean,
    plan: (reader: ViewReader) => Promise<{ plan: Plan; base: Base }>,
  ): Promise<Opened>
  /** Runs a read of an open snapshot; an engine that lost its tables becomes a misfit. */
  guarded<T>(view: View, run: () => Promise<T>): Promise<T>
  /** Bytes of published parts in memory. */
  bytes(): number
  close(): Promise<void>
}

const DEFAULT_BATCH_BYTES = 256 * 1024 * 1024
/** Readers of versions that no longer serve, and of views not asked for long, are closed beyond this number. */
const MAX_READERS = 64

const isLost = (error: unknown): boolean =>
  /Catalog Error|FATAL|INTERNAL Error|invalidated|closed|TransactionContext/i.test(String(error))

export const openReaders = (ctx: ServingContext): Readers => {
  const budget = ctx.batchBytes ?? DEFAULT_BATCH_BYTES
  const readers = new Map<string, Promise<ViewReader>>()
  let snapshots: Snapshots = openSnapshots(ctx.engine, ctx.settings.query.concurrent)
  const live = new Set<ViewReader>()
  let isOpen = true
  const keyOf = (view: View): string => `${view.name}/${view.version}`

  const discard = (key: string, reader: Promise<ViewReader>): void => {
    if (readers.get(key) === reader) readers.delete(key)
    void reader
      .then((r) =>
        r.locked(async () => {
          live.delete(r)
          await r.close()
        }),
      )
      .catch(() => undefined)
  }
  const readerOf = (view: View): { key: string; reader: Promise<ViewReader> } => {
    const key = keyOf(view)
    let reader = readers.get(key)
    if (reader === undefined) {
      reader = openViewReader({ engine: ctx.engine, speed: ctx.speed, store: ctx.lake.store }, view)
      reader.then((r) => live.add(r)).catch(() => readers.delete(key))
    } else readers.delete(key)
    readers.set(key, reader)
    for (const [oldest, old] of readers) {
      if (readers.size <= MAX_READERS) break
      discard(oldest, old)
    }
    // An older version of the same view is not asked again, or is made anew.
    for (const [other, old] of readers) if (other !== key && other.startsWith(`${view.name}/`)) discard(other, old)
    return { key, reader }
  }

  const translate = (view: View, error: unknown): unknown => {
    if (error instanceof WeirError)
      return error.code === 'WEIR_LAKE_CORRUPT' ? misfit('LAKE', view.name, error.message, error) : error
    if (isLost(error)) {
      snapshots.close()
      snapshots = openSnapshots(ctx.engine, ctx.settings.query.concurrent)
      return misfit('ENGINE', view.name, 'the engine was started anew', error)
    }
    if (/Out of Memory/i.test(String(error)))
      return new WeirError({
        code: 'WEIR_SERVING_MEMORY',
        message: 'The answer needs more memory than it may have.',
        expected: 'an answer within engine.memory',
        next: 'ask for a shorter range or fewer dimensions, or raise engine.memory',
        retryable: true,
        cause: error,
      })
    return error
  }

  return {
    read: async (view, transaction, makePlan) => {
      if (!isOpen) throw closed()
      const { key, reader } = readerOf(view)
      try {
        const own = await reader
        return await own.locked(async () => {
          if (!isOpen) throw closed()
          const { plan, base } = await makePlan(own)
          const room = Math.floor(budget / Math.max(1, readers.size))
          const source = await own.source(base, plan.files, plan.partitions, room)
          const changes = own.changes()
          const snapshot = transaction ? await snapshots.open(own.touch) : await snapshots.plain()
          return { plan, snapshot, source, held: () => transaction || own.changes() === changes }
        })
      } catch (error) {
        // A misfit leaves the copy as good as it was; anything else leaves it unknown.
        if (!(error instanceof WeirError)) discard(key, reader)
        throw translate(view, error)
      }
    },
    guarded: async (view, run) => {
      try {
        return await run()
      } catch (error) {
        if (isLost(error)) {
          const key = keyOf(view)
          const reader = readers.get(key)
          if (reader !== undefined) discard(key, reader)
        }
        throw translate(view, error)
      }
    },
    bytes: () => [...live].reduce((sum, r) => sum + r.bytes(), 0),
    close: async () => {
      isOpen = false
      const all = [...readers.values()]
      readers.clear()
      for (const reader of await Promise.allSettled(all))
        if (reader.status === 'fulfilled') await reader.value.locked(() => reader.value.close())
      snapshots.close()
    },
  }
}
