/**
 * Recompute: a view derived anew from the lake, compared with what is published, and published in its place.
 * Invariants: it is compared with the very base that it replaces, at one cut; a difference makes the base's lineage suspect (rule 17);
 * it is extended to the current cut before it is offered; a claim, held by a lease, only orders who tries.
 */
import { WeirError } from '../model/errors.ts'
import type { PartFile, Published } from '../model/ports/publications.ts'
import { type Cut, offsetsOf } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { archiverOf } from './archiver.ts'
import { holdClaim } from './claim.ts'
import { type Comparison, SAME } from './compare.ts'
import { compareParts } from './compare-parts.ts'
import { alarm, type BatchContext, checkSignal } from './context.ts'
import { baseCut, lakeCut, reachCut, sameCut } from './cuts.ts'
import { extendParts, settledTarget } from './extend.ts'
import { endJob } from './job-record.ts'
import { discardParts, type Parts } from './parts.ts'
import { publish } from './publish.ts'
import { openJob, type RecomputeOptions, recomputeParts } from './recompute-parts.ts'
import { reportDrift } from './verify.ts'

export type Recomputed = {
  outcome: 'published' | 'dropped' | 'thrown-away'
  generation: number
  cut: Record<string, string>
  /** Cells of the published view. */
  cells: number
  /** Cells in which it differs from the base that it replaced, at one cut. */
  differing: number
  explained: Comparison['cells']
  shards: number
  resumed: boolean
  reasons: string[]
}

const LOSSES_BEFORE_CLAIM = 2
const MAX_TRIES = 10

/** Where a recompute without a base may end: where the speed side is, or, where it has no state, the lake's end. */
const firstCut = async (ctx: BatchContext, view: View, signal?: AbortSignal): Promise<Cut> => {
  const cut: Cut = {}
  const start = await baseCut(ctx, view, null)
  for (const p of Object.keys(start)) {
    const key = { dataset: view.dataset, partition: Number(p) }
    const got = await ctx.speed.cut(key, view.version, 0)
    if (typeof got !== 'string') {
      cut[p] = got
      continue
    }
    await archiverOf(ctx, view.dataset).step(key.partition, { force: true })
    cut[p] = (await ctx.history.archived(view.dataset, key.partition))?.position ?? start[p]!
  }
  const reached = await reachCut(ctx, view, cut, signal)
  const own = reached === 'archived' ? await lakeCut(ctx, view, cut) : null
  if (own !== null) return own
  throw new WeirError({
    code: 'WEIR_BATCH_CUT',
    message: `A recompute of ${view.name} found no cut to begin with.`,
    expected: 'records that the lake holds as the speed side has seen them',
    got: reached,
    next: 'try again; if it repeats, look at the archiver and the speed workers of the dataset',
    retryable: true,
  })
}

const further = (a: Cut, b: Cut): Cut => {
  const out: Cut = { ...a }
  for (const [p, position] of Object.entries(b)) if ((out[p]?.offset ?? -1) < position.offset) out[p] = position
  return out
}

/**
 * Recomputes a version and publishes the result. Two of them at once are harmless. A killed one is continued by the next call.
 * Throws WEIR_BATCH_CANCELLED (the job can be continued), WEIR_BATCH_CUT, and what stores and workers throw.
 */
export const recompute = async (ctx: BatchContext, view: View, options: RecomputeOptions = {}): Promise<Recomputed> => {
  const result: Recomputed = {
    outcome: 'thrown-away',
    generation: 0,
    cut: {},
    cells: 0,
    differing: 0,
    explained: [],
    shards: 0,
    resumed: false,
    reasons: [],
  }
  const first = await ctx.publications.current(view.name, view.version)
  if (first === 'dropped') return { ...result, outcome: 'dropped' }
  const { job, resumed } = await openJob(
    ctx,
    view,
    async () => (first === null ? firstCut(ctx, view, options.signal) : first.pointer.cut),
    options,
  )
  Object.assign(result, { resumed, shards: job.shards.length })
  const recomputed = await recomputeParts(ctx, view, job, options)
  const made = [...recomputed.written]
  let ours: Parts & { cut: Cut } = { files: recomputed.files, slots: recomputed.slots, cut: job.cut }
  const claim = holdClaim(ctx, view, `recompute/${job.id}`)
  try {
    for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
      if (attempt >= LOSSES_BEFORE_CLAIM) await claim.take()
      checkSignal(options.signal)
      const base = await ctx.publications.current(view.name, view.version)
      if (base === 'dropped') {
        await endJob(ctx.lake.store, job)
        return { ...result, outcome: 'dropped' }
      }
      // Both to one cut, then compared: the base may have been extended meanwhile.
      const common = further(ours.cut, await baseCut(ctx, view, base))
      if (!sameCut(ours.cut, common)) {
        const { parts } = await extendParts(ctx, view, ours, ours.cut, common, options)
        made.push(...parts.written)
        ours = { files: parts.files, slots: parts.slots, cut: common }
      }
      const compared = base === null ? SAME : await compareWith(ctx, view, base, ours, common, options.signal)
      options.progress?.(0.9)

      const target = await settledTarget(ctx, view, common, { signal: options.signal })
      if (typeof target === 'string') {
        result.reasons.push(target)
        continue
      }
      const next = await extendParts(ctx, view, ours, common, target.cut, options)
      const before = base?.pointer.suspectLineages ?? []
      const published = await publish(ctx, view, {
        base,
        cut: target.cut,
        parts: next.parts,
        made,
        kind: 'recompute',
        lineage: null,
        suspectLineages:
          compared?.differing === 0 || base === null ? before : [...new Set([...before, base.pointer.lineage])],
      })
      if (published.outcome === 'stale') {
        result.reasons.push('another generation was published on the same base')
        continue
      }
      await endJob(ctx.lake.store, job)
      if (published.outcome === 'dropped') return { ...result, outcome: 'dropped' }
      if (compared !== null) reportDrift(ctx, view, compared, 'the recomputed view and the one that it replaces')
      return {
        ...result,
        outcome: 'published',
        generation: published.pointer.generation,
        cut: offsetsOf(target.cut),
        cells: published.pointer.rowsTotal,
        differing: compared?.differing ?? 0,
        explained: compared?.cells ?? [],
      }
    }
    return result
  } finally {
    await claim.release()
  }
}

/** Compares the base, brought to `cut`, with ours at `cut`. Null: the base's files are damaged, so nothing speaks for its lineage. */
const compareWith = async (
  ctx: BatchContext,
  view: View,
  base: Published,
  ours: Parts,
  cut: Cut,
  signal: AbortSignal | undefined,
): Promise<Comparison | null> => {
  const own = { files: base.pointer.files, slots: base.pointer.slots ?? 1 }
  const from = await baseCut(ctx, view, base)
  let written: PartFile[] = []
  try {
    let theirs: Parts = own
    if (!sameCut(from, cut)) {
      const extended = await extendParts(ctx, view, own, from, cut, { signal })
      theirs = extended.parts
      written = extended.parts.written
    }
    return await compareParts(ctx, view, theirs, ours, signal)
  } catch (error) {
    if (!(error instanceof WeirError) || error.code !== 'WEIR_LAKE_CORRUPT') throw error
    // Damage in what is to be replaced is what a recompute repairs; damage in our own files, or in the lake's, stops it.
    for (const file of ours.files) await ctx.lake.store.localFile(file.key, file)
    if (!(await isDamaged(ctx, own))) throw error
    alarm(ctx, error)
    return null
  } finally {
    await discardParts(ctx.lake.store, written)
  }
}

const isDamaged = async (ctx: BatchContext, { files }: Parts): Promise<boolean> => {
  for (const file of files) {
    try {
      await ctx.lake.store.localFile(file.key, file)
    } catch {
      return true
    }
  }
  return false
}
