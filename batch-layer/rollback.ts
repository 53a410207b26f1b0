/**
 * Roll back: a new generation made of a kept one's files, extended from the lake to the current cut.
 * Invariants: the cut never goes back; a generation of a suspect lineage is refused without force, and that is checked again on each
 * try when the base is read, since the repair may have been published meanwhile (rule 17).
 */
import { WeirError } from '../model/errors.ts'
import type { KeptGeneration, Pointer } from '../model/ports/publications.ts'
import { type Cut, genesis, offsetsOf } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { holdClaim } from './claim.ts'
import { type BatchContext, checkSignal } from './context.ts'
import { baseCut } from './cuts.ts'
import { extendParts } from './extend.ts'
import { publish } from './publish.ts'

export type RolledBack = {
  outcome: 'published' | 'dropped' | 'thrown-away'
  generation: number
  /** The generation whose files it carries on. */
  from: number
  cut: Record<string, string>
}

export type RollbackOptions = { force?: boolean; signal?: AbortSignal; progress?(fraction: number): void }

const TRIES = 10
const LOSSES_BEFORE_CLAIM = 2

/** Throws WEIR_BATCH_NOT_KEPT, WEIR_BATCH_SUSPECT. */
export const rollback = async (
  ctx: BatchContext,
  view: View,
  generation: number,
  options: RollbackOptions = {},
): Promise<RolledBack> => {
  const result: RolledBack = { outcome: 'thrown-away', generation: 0, from: generation, cut: {} }
  const claim = holdClaim(ctx, view, `rollback/${crypto.randomUUID()}`)
  try {
    for (let attempt = 0; attempt < TRIES; attempt++) {
      if (attempt >= LOSSES_BEFORE_CLAIM) await claim.take()
      checkSignal(options.signal)
      const base = await ctx.publications.current(view.name, view.version)
      if (base === 'dropped') return { ...result, outcome: 'dropped' }
      const kept = keptOf(view, base?.pointer ?? null, generation)
      const suspects = base?.pointer.suspectLineages ?? []
      if (suspects.includes(kept.lineage) && !options.force) throw suspect(view, kept)
      const from = await baseCut(ctx, view, base)
      // A partition that entered later begins at its beginning.
      const start: Cut = { ...kept.cut }
      for (const [p, at] of Object.entries(from)) start[p] ??= genesis(at.logId)
      const parts = { files: kept.files, slots: kept.slots ?? 1 }
      const done = await extendParts(ctx, view, parts, start, from, { signal: options.signal })
      options.progress?.(0.8)
      const published = await publish(ctx, view, {
        base,
        cut: from,
        parts: done.parts,
        kind: 'rollback',
        lineage: kept.lineage,
        suspectLineages: suspects,
      })
      if (published.outcome === 'dropped') return { ...result, outcome: 'dropped' }
      if (published.outcome === 'stale') continue
      return { ...result, outcome: 'published', generation: published.pointer.generation, cut: offsetsOf(from) }
    }
    return result
  } finally {
    await claim.release()
  }
}

const keptOf = (view: View, pointer: Pointer | null, generation: number): KeptGeneration => {
  const found = pointer?.kept.find((k) => k.generation === generation)
  if (found) return found
  throw new WeirError({
    code: 'WEIR_BATCH_NOT_KEPT',
    message: `Generation ${generation} of ${view.name} is not kept.`,
    expected: `one of ${pointer?.kept.map((k) => k.generation).join(', ') || '(none)'}`,
    got: pointer?.generation === generation ? `${generation}, which is the current one` : String(generation),
    next: 'choose a kept generation; keep more of them with batch.keepGenerations',
  })
}

const suspect = (view: View, kept: KeptGeneration): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_SUSPECT',
    message: `Generation ${kept.generation} of ${view.name} is suspect: a recompute differed from its lineage (${kept.lineage}).`,
    expected: 'a generation that no recompute contradicts',
    got: `lineage ${kept.lineage}`,
    next: 'recompute instead; or say --force if the recompute was wrong',
  })
