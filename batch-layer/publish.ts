/**
 * Making the next generation from a base, and offering it. Invariants: the pointer names only durable files; it is set by
 * compare-and-set on the exact base (rule 6), so a proposal whose base is gone is thrown away with its files.
 */

import type { KeptGeneration, Pointer, Published } from '../model/ports/publications.ts'
import type { Cut } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { alarm, type BatchContext } from './context.ts'
import { assertForward } from './cuts.ts'
import { discardParts, type MergedParts, type WrittenPart } from './parts.ts'

export type Proposal = {
  base: Published | null
  cut: Cut
  parts: MergedParts
  /** Parts that are new to the view, for the statistics they carry, besides those in `parts.written`. */
  made?: WrittenPart[]
  kind: Pointer['kind']
  /** Null: it begins a lineage of its own. */
  lineage: string | null
  suspectLineages: string[]
}

/**
 * What stays for roll back, of all generations newest first: the last `keep`, and the newest of each of the last `keep` lineages; at
 * most twice `keep`. With an extend each minute the first alone would be some minutes; a recompute is what one goes back behind.
 */
export const keptOf = (all: KeptGeneration[], keep: number): KeptGeneration[] => {
  const lineages = new Set<string>()
  return all.filter(({ lineage }, i) => {
    const isNewest = !lineages.has(lineage)
    lineages.add(lineage)
    return i < keep || (isNewest && lineages.size <= keep)
  })
}

export const nextPointer = (ctx: BatchContext, view: View, proposal: Proposal): Pointer => {
  const { base, parts } = proposal
  const generation = (base?.pointer.generation ?? 0) + 1
  const before = base?.pointer
  const kept = before
    ? keptOf(
        [
          {
            generation: before.generation,
            lineage: before.lineage,
            cut: before.cut,
            files: before.files,
            ...(before.slots === undefined ? {} : { slots: before.slots }),
            publishedAt: before.publishedAt,
          },
          ...before.kept,
        ],
        ctx.settings.batch.keepGenerations,
      )
    : []
  return {
    formatVersion: 1,
    view: view.name,
    version: view.version,
    generation,
    baseHash: base?.hash ?? '',
    cut: proposal.cut,
    lineage: proposal.lineage ?? String(generation),
    kind: proposal.kind,
    files: parts.files,
    ...(parts.slots === 1 ? {} : { slots: parts.slots }),
    suspectLineages: proposal.suspectLineages,
    kept,
    engineVersion: ctx.engine.version,
    publishedAt: new Date(ctx.now()).toISOString(),
    rowsTotal: parts.files.reduce((n, f) => n + f.rows, 0),
  }
}

/**
 * Publishes, then brings the mirror for other readers up (its failure harms nothing). The files written for a proposal that lost are
 * deleted; after an error nobody knows, and they are left to vacuum.
 */
export const publish = async (
  ctx: BatchContext,
  view: View,
  proposal: Proposal,
): Promise<{ outcome: 'published'; pointer: Pointer } | { outcome: 'stale' } | { outcome: 'dropped' }> => {
  if (proposal.base) assertForward(proposal.base.pointer.cut, proposal.cut)
  const pointer = nextPointer(ctx, view, proposal)
  const outcome = await ctx.publications.publish(pointer)
  if (outcome !== 'published') {
    await discardParts(ctx.lake.store, proposal.parts.written)
    return { outcome }
  }
  notePublished(ctx, view, pointer, ctx.now())
  const made = [...(proposal.made ?? []), ...proposal.parts.written]
  await mirror(ctx, view, pointer, new Map(made.flatMap((f) => (f.stats === undefined ? [] : [[f.key, f.stats]]))))
  return { outcome, pointer }
}

/** Brings the Delta mirror of the view to a pointer; a failure is an alarm, since the pointer alone is the truth. */
export const mirror = async (
  ctx: BatchContext,
  view: View,
  pointer: Pointer,
  stats?: ReadonlyMap<string, string>,
): Promise<void> => {
  try {
    await ctx.lake.viewTable(view).mirror(pointer, stats)
  } catch (error) {
    alarm(ctx, error)
  }
}

/** Cuts that this process published lately, oldest first: what the grace period of retiring is counted from. */
const recent = new WeakMap<BatchContext, Map<string, { atMs: number; cut: Cut }[]>>()

const notePublished = (ctx: BatchContext, view: View, pointer: Pointer, atMs: number): void => {
  const all = recent.get(ctx) ?? new Map<string, { atMs: number; cut: Cut }[]>()
  recent.set(ctx, all)
  const list = all.get(`${view.name}/${view.version}`) ?? []
  list.push({ atMs, cut: pointer.cut })
  all.set(`${view.name}/${view.version}`, list.slice(-1_000))
}

/** Newest cut that has been published for at least `graceMs`; null: none that we know of. */
export const settledCut = (ctx: BatchContext, view: View, published: Published, graceMs: number): Cut | null => {
  const before = ctx.now() - graceMs
  const { pointer } = published
  const known = [
    ...(recent.get(ctx)?.get(`${view.name}/${view.version}`) ?? []),
    ...pointer.kept.flatMap((k) =>
      k.publishedAt === undefined ? [] : [{ atMs: Date.parse(k.publishedAt), cut: k.cut }],
    ),
    { atMs: Date.parse(pointer.publishedAt), cut: pointer.cut },
  ].filter((k) => k.atMs <= before)
  const sum = (cut: Cut): number => Object.values(cut).reduce((n, p) => n + p.offset, 0)
  return known.reduce<Cut | null>((best, k) => (best === null || sum(k.cut) > sum(best) ? k.cut : best), null)
}
