/**
 * Retiring: the speed side gives up the epochs that a published generation covers.
 * Invariant: only epochs at or below a cut that has been published for the grace period, so that readers who planned on the generation
 * before still find them; the open epoch is never touched (the store's promise).
 */
import type { View } from '../model/view.ts'
import type { BatchContext } from './context.ts'
import { settledCut } from './publish.ts'

/** Moves covered epochs of every partition to `retiring`; workers sweep their blocks. Offsets retired up to, or null: nothing yet. */
export const retireCovered = async (ctx: BatchContext, view: View): Promise<Record<string, number> | null> => {
  const published = await ctx.publications.current(view.name, view.version)
  if (published === null || published === 'dropped') return null
  const cut = settledCut(ctx, view, published, ctx.settings.batch.retireAfterMs)
  if (cut === null) return null
  const out: Record<string, number> = {}
  for (const [p, upTo] of Object.entries(cut)) {
    if (upTo.offset === 0) continue
    await ctx.speed.retire({ dataset: view.dataset, partition: Number(p) }, view.version, upTo)
    out[p] = upTo.offset
  }
  return out
}
