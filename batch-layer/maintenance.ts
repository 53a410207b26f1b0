/**
 * Upkeep of the lake: compaction of closed days, removal of files that nothing names.
 * Invariants: a file goes only after it was seen unreferenced for the safety age; what the current and the kept generations of any
 * version not dropped, and unfinished jobs, name is never touched (rule 12, P17).
 */
import { viewRoot } from '../lake/view-table.ts'
import { WeirError } from '../model/errors.ts'
import type { ObjectInfo } from '../model/ports/object-store.ts'
import { alarm, type BatchContext, datasetOf } from './context.ts'
import { pinnedByJobs } from './job-record.ts'

export type Upkeep = { compactedFiles: number; deletedFiles: number; deletedBytes: number }

/** Where parts lie: in the tables of the views; and cells of recomputes, and the parts of an older release, apart. */
const ROOTS = ['views/', 'parts/']
const SEEN_KEY = 'jobs/unreferenced.json'

/**
 * Keys that pointers name, the current generation of each version and those it keeps, and those that the view's table names (which may
 * be behind its pointer). `dropped`: folders of versions that are gone for good, table and all.
 */
const pinnedByPointers = async (ctx: BatchContext): Promise<{ pinned: Set<string>; dropped: Set<string> }> => {
  const pinned = new Set<string>()
  const dropped = new Set<string>()
  for (const { view, version } of await ctx.publications.versions()) {
    const found = await ctx.publications.current(view, version)
    if (found === 'dropped') dropped.add(viewRoot({ name: view, version }))
    if (found === null || found === 'dropped') continue
    for (const key of await ctx.lake.mirrored({ name: view, version })) pinned.add(key)
    for (const files of [found.pointer.files, ...found.pointer.kept.map((k) => k.files)])
      for (const file of files) pinned.add(file.key)
  }
  return { pinned, dropped }
}

/** Whether a key may be deleted once nothing names it: a data file, or anything of a dropped version's table. */
const isRemovable = (key: string, dropped: Set<string>): boolean =>
  !key.startsWith('views/') ||
  (key.endsWith('.parquet') && !/\/_(delta_log|weir)\//.test(key)) ||
  dropped.has(key.split('/').slice(0, 3).join('/'))

/** When each unreferenced file was first seen so. A hint: lost or damaged, the ages begin anew, and files only live longer. */
const firstSeen = async (ctx: BatchContext): Promise<Record<string, number>> => {
  const bytes = await ctx.lake.store.get(SEEN_KEY)
  if (bytes === null) return {}
  try {
    const value = JSON.parse(Buffer.from(bytes).toString('utf8')) as {
      formatVersion: number
      seen: Record<string, number>
    }
    return value.formatVersion === 1 ? value.seen : {}
  } catch (error) {
    alarm(
      ctx,
      new WeirError({
        code: 'WEIR_BATCH_HINT',
        message: `The hint ${SEEN_KEY} cannot be read; it begins anew.`,
        cause: error,
      }),
    )
    return {}
  }
}

/** Deletes parts of views that nothing names and nothing named for the safety age, and what is left of dropped versions. */
export const vacuumParts = async (ctx: BatchContext): Promise<{ deleted: string[]; bytes: number }> => {
  const { store } = ctx.lake
  const nowMs = ctx.now()
  const before = nowMs - ctx.settings.batch.vacuumAfterMs
  // Listed first: what is published meanwhile is then named by a later pointer.
  const listed: ObjectInfo[] = []
  for (const root of ROOTS) listed.push(...(await store.list(root)))
  const { pinned, dropped } = await pinnedByPointers(ctx)
  for (const key of await pinnedByJobs(store)) pinned.add(key)
  const seen = await firstSeen(ctx)
  const next: Record<string, number> = {}
  const out: { deleted: string[]; bytes: number } = { deleted: [], bytes: 0 }
  for (const { key, size, modifiedMs } of listed) {
    if (pinned.has(key) || !isRemovable(key, dropped)) continue
    const since = Math.min(seen[key] ?? nowMs, nowMs)
    if (since <= before && modifiedMs <= before) {
      await store.delete(key)
      out.deleted.push(key)
      out.bytes += size
    } else next[key] = since
  }
  await store.putHint(SEEN_KEY, Buffer.from(JSON.stringify({ formatVersion: 1, seen: next })))
  return out
}

/** Compacts the tables of one or every dataset, then deletes what is unreferenced in the lake's tables and among the views' parts. */
export const upkeep = async (
  ctx: BatchContext,
  options: { dataset?: string; signal?: AbortSignal; progress?(fraction: number): void } = {},
): Promise<Upkeep> => {
  const out: Upkeep = { compactedFiles: 0, deletedFiles: 0, deletedBytes: 0 }
  for (const dataset of options.dataset === undefined ? ctx.datasets : [datasetOf(ctx, options.dataset)]) {
    options.signal?.throwIfAborted()
    const done = await ctx.lake.compact(dataset)
    out.compactedFiles += done.events.files + done.dead.files
  }
  options.progress?.(0.6)
  const pinned = await pinnedByJobs(ctx.lake.store)
  const vacuumed = [
    await ctx.lake.vacuum({ datasets: ctx.datasets, safetyAgeMs: ctx.settings.batch.vacuumAfterMs, pinned }),
    await vacuumParts(ctx),
  ]
  for (const { deleted, bytes } of vacuumed) {
    out.deletedFiles += deleted.length
    out.deletedBytes += bytes
  }
  return out
}
