/**
 * The archiver: log → `events/<dataset>` and `dead/<dataset>`.
 * Invariants: it goes on from the lake's own position (rule 14); a commit is a compare-and-set on that position (rule 13); the
 * de-duplication map takes a batch only after 'archived' and is rebuilt when it stands elsewhere (rule 15); an unknown outcome is
 * settled by reading the lake again (rule 10); a log that does not continue the lake stops the partition, never resets it (rule 9).
 */
import { rebuildSeen } from '../engine/rebuild-seen.ts'
import type { Seen } from '../model/decode/seen.ts'
import { WeirError } from '../model/errors.ts'
import type { Archived } from '../model/ports/history.ts'
import { genesis, type Position, samePosition } from '../model/position.ts'
import { archiveSlice } from './archive-slice.ts'
import { alarm, type BatchContext, datasetOf } from './context.ts'
import { dropSlice, emptyPending, fill, type Pending, sliceOf } from './pending.ts'

export type ArchiverState = {
  /** End of the lake as last seen; null before the first look. */
  archived: number | null
  pendingRecords: number
  pendingBytes: number
  /** Why the partition stopped; null while it runs. */
  stopped: WeirError | null
}

export type Archiver = {
  /**
   * At most one commit. Archives when the pending records are big or old enough (settings.archive), or at once with `force`, or, up
   * to exactly `upTo`, when the lake ends below it. 'stopped': the log does not continue the lake; see `state`.
   * Throws what a store or the engine throws; the next call begins anew from the lake.
   */
  step(partition: number, options?: { upTo?: number; force?: boolean }): Promise<'archived' | 'nothing' | 'stopped'>
  state(partition: number): ArchiverState
  close(): Promise<void>
}

const RACES = 20

type Task = {
  pending: Pending | null
  seen: Seen | null
  stopped: WeirError | null
  archived: number | null
  tail: Promise<unknown>
}

export const openArchiver = (ctx: BatchContext, of: { name: string }): Archiver => {
  const dataset = datasetOf(ctx, of.name)
  const events = ctx.lake.events(dataset)
  const tasks = new Map<number, Task>()
  let isOpen = true

  const taskOf = (partition: number): Task => {
    const found = tasks.get(partition) ?? {
      pending: null,
      seen: null,
      stopped: null,
      archived: null,
      tail: Promise.resolve(),
    }
    tasks.set(partition, found)
    return found
  }

  /** End of the lake; before the first commit, the beginning of the log. */
  const lakeEnd = async (partition: number): Promise<{ at: Position; before: Archived | null }> => {
    const before = await events.archived(partition)
    if (before) return { at: before.position, before }
    return { at: genesis((await ctx.log.range(dataset.name, partition)).logId), before: null }
  }

  const stop = (task: Task, partition: number, at: Position, kind: 'replaced' | 'beyond-end' | 'below-start') => {
    const error = misfit(dataset.name, partition, at, kind)
    if (task.stopped?.message !== error.message) alarm(ctx, error)
    task.stopped = error
    task.pending = null
    return 'stopped' as const
  }

  const run = async (
    task: Task,
    partition: number,
    options: { upTo?: number; force?: boolean },
  ): Promise<'archived' | 'nothing' | 'stopped'> => {
    const { maxBytes, maxAgeMs } = ctx.settings.archive
    const capacity = ctx.settings.speed.seenIds
    for (let race = 0; race < RACES; race++) {
      const { at, before } = await lakeEnd(partition)
      task.archived = at.offset
      if (options.upTo !== undefined && at.offset >= options.upTo) return 'nothing'
      if (task.pending === null || !samePosition(task.pending.base, at)) task.pending = emptyPending(at)
      const pending = task.pending
      const nowMs = ctx.now()
      const read = await fill(ctx.log, dataset.name, partition, pending, {
        maxBytes,
        upTo: options.upTo ?? Number.POSITIVE_INFINITY,
        nowMs,
      })
      if (read.kind !== 'filled') return stop(task, partition, at, read.kind)
      task.stopped = null
      if (pending.to.offset === at.offset) return 'nothing'
      const first = pending.records[0]?.appendTimeMs ?? nowMs
      const old = nowMs - Math.min(first, pending.sinceMs ?? nowMs) >= maxAgeMs
      if (!options.force && options.upTo === undefined && pending.bytes < maxBytes && !old) return 'nothing'

      if (task.seen === null || !samePosition(task.seen.position, at)) {
        task.seen = null
        task.seen = await rebuildSeen(
          { engine: ctx.engine, log: ctx.log, history: ctx.history },
          dataset,
          partition,
          at,
          capacity,
        )
      }
      const slice = sliceOf(pending, options.upTo ?? Number.POSITIVE_INFINITY)
      const done = await archiveSlice(ctx, dataset, partition, slice, before, task.seen)
      if (done.outcome === 'archived') {
        task.seen.accept(done.change, slice.to)
        task.pending = dropSlice(pending, slice, nowMs)
        task.archived = slice.to.offset
        return 'archived'
      }
      // Another archiver was quicker: its commit stands, and we look where the lake ends now.
      task.pending = null
    }
    return 'nothing'
  }

  const archiver: Archiver = {
    step: (partition, options = {}) => {
      if (!isOpen) return Promise.resolve('nothing')
      const task = taskOf(partition)
      // Steps of a partition queue up: the buffer and the map belong to one of them at a time.
      const mine = task.tail.then(async () => {
        try {
          return await run(task, partition, options)
        } catch (error) {
          // Whether the commit stands is not known: the next step asks the lake.
          task.pending = null
          throw error
        }
      })
      task.tail = mine.catch(() => undefined)
      return mine
    },
    state: (partition) => {
      const task = tasks.get(partition)
      return {
        archived: task?.archived ?? null,
        pendingRecords: task?.pending?.records.length ?? 0,
        pendingBytes: task?.pending?.bytes ?? 0,
        stopped: task?.stopped ?? null,
      }
    },
    close: async () => {
      isOpen = false
      await Promise.allSettled([...tasks.values()].map((t) => t.tail))
      tasks.clear()
      const all = sharedOf(ctx)
      if (all.get(dataset.name) === archiver) all.delete(dataset.name)
    },
  }
  const all = sharedOf(ctx)
  if (!all.has(dataset.name)) all.set(dataset.name, archiver)
  return archiver
}

const misfit = (
  dataset: string,
  partition: number,
  at: Position,
  kind: 'replaced' | 'beyond-end' | 'below-start',
): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_ARCHIVER_STOPPED',
    message: `The archiver of ${dataset}, partition ${partition}, stopped at offset ${at.offset}: ${
      kind === 'below-start'
        ? 'the log no longer holds the records that follow'
        : kind === 'beyond-end'
          ? 'the log ends before what the lake holds'
          : 'the log is another one than the lake was written from'
    }.`,
    expected: `log ${at.logId} with record ${at.offset - 1} as it was archived (${at.fingerprint || 'the beginning'})`,
    got: kind,
    next: 'bring the old log back, or give the new stream another dataset name; nothing was changed',
  })

/** One archiver per dataset and context, so that its de-duplication map is built once: extends use the one that archives all the time. */
const shared = new WeakMap<BatchContext, Map<string, Archiver>>()

const sharedOf = (ctx: BatchContext): Map<string, Archiver> => {
  const all = shared.get(ctx) ?? new Map<string, Archiver>()
  shared.set(ctx, all)
  return all
}

/** The context's archiver of a dataset, opened when it is first asked for. Closed by `closeArchivers`. */
export const archiverOf = (ctx: BatchContext, dataset: string): Archiver =>
  sharedOf(ctx).get(dataset) ?? openArchiver(ctx, { name: dataset })

export const closeArchivers = async (ctx: BatchContext): Promise<void> => {
  for (const archiver of sharedOf(ctx).values()) await archiver.close()
}
