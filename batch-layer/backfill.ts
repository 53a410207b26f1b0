/**
 * Backfill: a version is filled from the lake while the one before it serves, published as its generation 1, and switched to.
 * Invariant: until the switch nothing that serves has changed; a backfill that was killed goes on where it was.
 */
import type { View } from '../model/view.ts'
import { droppedVersion, type Switched, switchTo } from './adopt.ts'
import { type BatchContext, checkSignal } from './context.ts'
import { catchUp } from './extend.ts'
import { type Recomputed, recompute } from './recompute.ts'
import type { RecomputeOptions } from './recompute-parts.ts'

export type Backfilled = { switched: Switched; recomputed: Recomputed | null }

const LOOK_MS = 50

/** `switchTo`, looked at again until the deadline (ms; 0: once). */
const switchWithin = async (ctx: BatchContext, view: View, waitMs: number, signal?: AbortSignal): Promise<Switched> => {
  const deadline = performance.now() + waitMs
  for (;;) {
    checkSignal(signal)
    const switched = await switchTo(ctx, view)
    const left = deadline - performance.now()
    if (switched !== 'waiting' || left <= 0) return switched
    await new Promise((resolve) => setTimeout(resolve, Math.min(LOOK_MS, left)))
    // The log may lose the cut while the speed side is on its way to it.
    await catchUp(ctx, view, signal ? { signal } : {})
  }
}

/**
 * Fills a version from the lake up to a cut, publishes it, and switches to it when the speed side has it, waiting up to `waitMs` (by
 * default batch.cutDeadlineMs). `switched: 'waiting'`: call again later. Throws WEIR_BATCH_DROPPED, and what a recompute throws.
 */
export const backfill = async (
  ctx: BatchContext,
  view: View,
  options: RecomputeOptions & { waitMs?: number } = {},
): Promise<Backfilled> => {
  const published = await ctx.publications.current(view.name, view.version)
  if (published === 'dropped') throw droppedVersion(view)
  await ctx.publications.register(view.name, view.version, view.sql)
  const recomputed = published === null ? await recompute(ctx, view, options) : null
  await ctx.versions.refresh()
  await catchUp(ctx, view, options.signal ? { signal: options.signal } : {})
  const waitMs = options.waitMs ?? ctx.settings.batch.cutDeadlineMs
  return { switched: await switchWithin(ctx, view, waitMs, options.signal), recomputed }
}
