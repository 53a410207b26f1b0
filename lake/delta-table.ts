/**
 * One Delta table: incremental snapshots and commits.
 * Invariants: entry n is written by put-if-absent, so one version has one writer; a commit is decided anew on the snapshot
 * right before its own version, as often as it loses; a lost reply is resolved by reading the log for the commit's id.
 */
import { randomUUID } from 'node:crypto'
import type { Engine } from '../engine/engine.ts'
import { WeirError } from '../model/errors.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { type Action, parseEntry, printEntry } from './delta-actions.ts'
import { openCheckpoint, writeCheckpoint } from './delta-checkpoint.ts'
import { refuseUnknownWriter, replay, type Snapshot } from './delta-snapshot.ts'
import { twentyDigits } from './keys.ts'

export type DeltaContext = {
  store: ObjectStore
  engine: Engine
  /** Wall clock, ms; only for times that people read and for safety ages. */
  now: () => number
  checkpointEvery: number
  /** Told of a checkpoint that could not be written: the commit stands, only the next start is slower. */
  warn: (error: unknown) => void
}

export type DeltaTable = {
  root: string
  /** Newest snapshot; null when the table does not exist. */
  snapshot(): Promise<Snapshot | null>
  /**
   * Commits the actions that `decide` returns for the newest snapshot (null: the table does not exist); when another writer was
   * quicker, decides again. `decide` returning null ends without a commit: the result is null.
   */
  commit(operation: string, decide: (snapshot: Snapshot | null) => Action[] | null): Promise<Snapshot | null>
}

const MAX_ATTEMPTS = 500

export const openDeltaTable = (context: DeltaContext, root: string): DeltaTable => {
  const { store, engine } = context
  const entryKey = (version: number): string => `${root}/_delta_log/${twentyDigits(version)}.json`
  let cached: Snapshot | null = null

  const advance = async (base: Snapshot | null): Promise<Snapshot | null> => {
    let version = (base?.version ?? -1) + 1
    let bytes = await store.get(entryKey(version))
    if (bytes === null) return base
    const run = replay(root, base)
    while (bytes !== null) {
      run.apply(parseEntry(bytes, entryKey(version)).actions)
      version++
      bytes = await store.get(entryKey(version))
    }
    return run.end(version - 1)
  }

  const load = async (): Promise<Snapshot | null> => {
    const checkpoint = await openCheckpoint(store, engine, root, false)
    const snapshot = await advance(checkpoint)
    if (snapshot !== null) return snapshot
    // No entry 0 and no checkpoint of ours: a new table, or one whose old entries another engine cleaned up.
    const [any] = await store.list(`${root}/_delta_log/`)
    if (any === undefined) return null
    // Another writer made the table since we looked for its first entry.
    const made = await advance(null)
    if (made !== null) return made
    const foreign = await openCheckpoint(store, engine, root, true)
    if (foreign !== null) return advance(foreign)
    throw new WeirError({
      code: 'WEIR_LAKE_CORRUPT',
      message: `The table log of ${root} has no beginning.`,
      expected: 'entry 0 or a readable checkpoint',
      got: any.key,
      next: 'restore the table log from a copy',
    })
  }

  const snapshot = async (): Promise<Snapshot | null> => {
    const base = cached
    const next = base === null ? await load() : await advance(base)
    // A slower refresh of another caller never takes the cache back.
    const newest: Snapshot | null = cached
    if (next !== null && (newest === null || next.version > newest.version)) cached = next
    return cached
  }

  /** Whether the entry at a version is this commit; null: there is no entry. */
  const isOwn = async (version: number, commit: string): Promise<boolean | null> => {
    const bytes = await store.get(entryKey(version))
    return bytes === null ? null : parseEntry(bytes, entryKey(version)).commitInfo?.weirCommit === commit
  }

  const attempt = async (
    operation: string,
    decide: (snapshot: Snapshot | null) => Action[] | null,
  ): Promise<Snapshot | null> => {
    for (let tries = 0; tries < MAX_ATTEMPTS; tries++) {
      const base = await snapshot()
      const actions = decide(base)
      if (actions === null) return null
      if (base !== null) refuseUnknownWriter(root, base, actions)
      const version = (base?.version ?? -1) + 1
      const commit = randomUUID()
      const bytes = printEntry(actions, {
        operation,
        commit,
        nowMs: context.now(),
        engineInfo: `weir duckdb/${engine.version}`,
      })
      let own: boolean | null
      try {
        own = (await store.putIfAbsent(entryKey(version), bytes)) === 'written' || (await isOwn(version, commit))
      } catch (error) {
        // The reply was lost or the write failed: the log says which.
        own = await isOwn(version, commit)
        if (own === null) throw error
      }
      if (!own) continue
      const run = replay(root, base)
      run.apply(actions)
      const committed = run.end(version)
      if (cached === null || version > cached.version) cached = committed
      if (version > 0 && version % context.checkpointEvery === 0)
        await writeCheckpoint(store, engine, root, committed, context.now()).catch(context.warn)
      return committed
    }
    throw new WeirError({
      code: 'WEIR_LAKE_BUSY',
      message: `A commit to the table ${root} lost ${MAX_ATTEMPTS} races.`,
      expected: 'fewer writers at once',
      next: 'try again later',
      retryable: true,
    })
  }

  // Commits of one process queue up instead of racing each other.
  let tail: Promise<unknown> = Promise.resolve()
  return {
    root,
    snapshot,
    commit: (operation, decide) => {
      const mine = tail.then(() => attempt(operation, decide))
      tail = mine.catch(() => undefined)
      return mine
    },
  }
}
