/**
 * The readers of all view versions in use, and the sessions of queries. Invariant: a copy that met an unforeseen error is thrown
 * away and made anew, so no answer is ever read from a copy in an unknown state.
 */
import { WeirError } from '../model/errors.ts'
import type { Header } from '../model/ports/speed-store.ts'
import type { View } from '../model/view.ts'
import type { ServingContext } from './context.ts'
import { closed, misfit } from './errors.ts'
import { openFollower } from './follower.ts'
import type { Base, Plan } from './plan.ts'
import { openSnapshots, type Snapshot, type Snapshots } from './snapshots.ts'
import { type Capture, type Loaded, openViewReader, type ViewReader } from './view-reader.ts'

export type Opened = {
  plan: Plan
  snapshot: Pick<Snapshot, 'columns'>
  source: string
  /** Whether the parts in memory stood still since they were planned: always so in a transaction. */
  held(): boolean
  /** To be called once it was read, or is given up; again is harmless. */
  end(): Promise<void>
}

/** What an answer is planned from: headers that the copy equals. */
export type Held = { header(partition: number): Header | null }

export type Readers = {
  /**
   * Plans under the reader's lock, then opens a snapshot of exactly what was planned. The caller ends it.
   * Without `transaction` (which costs three statements) the caller reads by one statement and believes it iff `held()` after it.
   */
  read(
    view: View,
    columns: string[],
    transaction: boolean,
    plan: (reader: ViewReader) => Promise<{ plan: Plan; base: Base }>,
  ): Promise<Opened>
  /**
   * The same without a lock and without a look at the speed state, from a copy that is followed in the background; null when
   * there is none that was compared with the store within `staleMs`, stands where `isEnough` says, and has the parts in memory.
   * `plan` may also give null: what was planned is not to be read.
   */
  readHeld(
    view: View,
    columns: string[],
    isEnough: (partition: number, header: Header | null) => boolean,
    plan: (held: Held) => Promise<{ plan: Plan; base: Base } | null>,
  ): Promise<Opened | null>
  /** Runs a read of an open snapshot; an engine that lost its tables becomes a misfit. */
  guarded<T>(view: View, run: () => Promise<T>): Promise<T>
  /** Bytes of published parts in memory. */
  bytes(): number
  close(): Promise<void>
}

const DEFAULT_BATCH_BYTES = 256 * 1024 * 1024
/** Readers of versions that no longer serve, and of views not asked for long, are closed beyond this number. */
const MAX_READERS = 64

/** A view that nobody has asked for this long is followed no more. */
const FOLLOW_FOR_MS = 10_000

const isLost = (error: unknown): boolean =>
  /Catalog Error|FATAL|INTERNAL Error|invalidated|closed|TransactionContext|unknown state/i.test(String(error))

export const openReaders = (ctx: ServingContext): Readers => {
  const budget = ctx.batchBytes ?? DEFAULT_BATCH_BYTES
  const staleMs = ctx.staleMs ?? 0
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

  /** A misfit leaves the copy as good as it was; anything else leaves it unknown. */
  const isHarmless = (error: unknown): boolean => error instanceof WeirError && !error.code.startsWith('WEIR_ENGINE_')
  const follower = openFollower(
    async (view) => {
      const key = keyOf(view)
      const reader = readers.get(key)
      if (reader === undefined) return
      try {
        const own = await reader
        for (const partition of await ctx.log.partitions(view.dataset)) await own.locked(() => own.sync(partition))
      } catch (error) {
        // Whoever asks will meet it too, and be told.
        if (!isHarmless(error)) discard(key, reader)
      }
    },
    { everyMs: staleMs / 4, forMs: FOLLOW_FOR_MS },
  )

  const opened = (
    own: ViewReader,
    capture: Capture,
    plan: Plan,
    source: string,
    snapshot: Snapshot,
    transaction: boolean,
  ): Opened => {
    const changes = own.changes()
    let ended: Promise<void> | undefined
    return {
      plan,
      snapshot,
      source,
      held: () => transaction || own.changes() === changes,
      end: () => {
        capture.release()
        ended ??= snapshot.end()
        return ended
      },
    }
  }

  return {
    read: async (view, columns, transaction, makePlan) => {
      if (!isOpen) throw closed()
      const { key, reader } = readerOf(view)
      if (staleMs > 0) follower.follow(view)
      let capture: Capture | undefined
      try {
        const own = await reader
        return await own.locked(async () => {
          if (!isOpen) throw closed()
          const { plan, base } = await makePlan(own)
          const room = Math.floor(budget / Math.max(1, readers.size))
          capture = own.capture()
          const loaded = await own.load(base, plan.files, room)
          const source = own.source(capture, plan, loaded, columns)
          const snapshot = transaction ? await snapshots.open(own.touch) : await snapshots.plain()
          return opened(own, capture, plan, source, snapshot, transaction)
        })
      } catch (error) {
        capture?.release()
        if (!isHarmless(error)) discard(key, reader)
        throw translate(view, error)
      }
    },
    readHeld: async (view, columns, isEnough, makePlan) => {
      if (!isOpen) throw closed()
      if (staleMs <= 0) return null
      const { reader } = readerOf(view)
      follower.follow(view)
      const partitions = await ctx.log.partitions(view.dataset)
      const own = await reader.catch(() => null)
      if (own === null) return null
      const since = performance.now() - staleMs
      for (const partition of partitions) {
        const state = own.state(partition)
        if (state === undefined || state.lookedAt < since || !isEnough(partition, state.header)) return null
      }
      const capture = own.capture()
      try {
        const made = await makePlan({ header: (partition) => capture.header(partition) ?? null })
        const snapshot = made === null ? null : await snapshots.plain()
        // From here to the statement nothing is waited for.
        if (made === null || snapshot === null || !own.isLoaded(made.base, made.plan.files)) {
          capture.release()
          await snapshot?.end()
          return null
        }
        const source = own.source(capture, made.plan, { rest: [] } satisfies Loaded, columns)
        return opened(own, capture, made.plan, source, snapshot, false)
      } catch (error) {
        capture.release()
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
      await follower.close()
      const all = [...readers.values()]
      readers.clear()
      for (const reader of await Promise.allSettled(all))
        if (reader.status === 'fulfilled') await reader.value.locked(() => reader.value.close())
      snapshots.close()
    },
  }
}
