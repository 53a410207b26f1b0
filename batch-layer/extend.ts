/**
 * Extend: what was archived between the base's cut and a new one is aggregated and merged into the parts that it touches.
 * Invariants: it begins anew whenever its base is gone, its cut is not reached in time or is of another history than the lake
 * (rules 6, 7); its cost follows the new records and the parts they touch, not history.
 */
import type { Session } from '../engine/engine.ts'
import { cellTableColumns, partialSql } from '../model/cells.ts'
import { WeirError } from '../model/errors.ts'
import type { Pointer, Published } from '../model/ports/publications.ts'
import { type Cut, offsetsOf } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { alarm, type BatchContext, checkSignal, datasetOf } from './context.ts'
import { baseCut, lakeCut, reachCut, sameCut, targetCut } from './cuts.ts'
import { discardParts, type MergedParts, mergeIntoParts, NO_PARTS, type Parts } from './parts.ts'
import { publish } from './publish.ts'
import { reportDrift, type Verified, verifyRange } from './verify.ts'

export type ExtendOptions = {
  signal?: AbortSignal
  progress?(fraction: number): void
  /** Compare the speed state of the range with the batch's before publishing; default true. */
  verify?: boolean
  /** Who holds a claim on the version: a holder's own extend is not held up by it. */
  holder?: string
  /** Begin anew this often before giving up. */
  tries?: number
  /** False: ask the speed side for no cut; only partitions whose cut the log lost go on (catch-up). */
  speed?: boolean
}

export type Extended = {
  /** 'thrown-away': every try met a base that was gone or a cut that did not fit; the next run begins anew. */
  outcome: 'published' | 'nothing' | 'claimed' | 'dropped' | 'thrown-away'
  generation: number
  cut: Record<string, string>
  /** Cells in the touched range; parts written. */
  cells: number
  parts: number
  verified: Verified | null
  /** Why tries were thrown away. */
  reasons: string[]
}

export const TRIES = 5
let serial = 0

/** Partial cells of the records `[from, to)` of the lake into a new table of the session; their number. */
export const partialCells = async (
  ctx: BatchContext,
  session: Session,
  view: View,
  from: Cut,
  to: Cut,
  table: string,
): Promise<number> => {
  const scan = await ctx.lake.scan(datasetOf(ctx, view.dataset), { from, below: to })
  await session.run(`CREATE OR REPLACE TEMP TABLE ${table} (${cellTableColumns(view)})`)
  if (scan.files.length === 0) return 0
  const [inserted] = await session.rows<{ Count: string }>(`INSERT INTO ${table} BY NAME ${partialSql(view, scan.sql)}`)
  return Number(inserted!.Count)
}

/** Parts at `from`, merged with the lake's records `[from, to)`. */
export const extendParts = (
  ctx: BatchContext,
  view: View,
  parts: Parts,
  from: Cut,
  to: Cut,
  options: { verify?: boolean; signal?: AbortSignal | undefined } = {},
): Promise<{ parts: MergedParts; cells: number; verified: Verified | null }> => {
  if (sameCut(from, to))
    return Promise.resolve({ parts: { ...parts, written: [], touched: 0 }, cells: 0, verified: null })
  return ctx.engine.withSession(async (session) => {
    const table = `extend_${serial++}`
    const cells = await partialCells(ctx, session, view, from, to, table)
    const verified = options.verify ? await verifyRange(ctx, session, view, from, to, table) : null
    const env = { store: ctx.lake.store, now: () => ctx.now(), check: () => checkSignal(options.signal) }
    return { parts: await mergeIntoParts(env, session, view, parts, table, { unique: true }), cells, verified }
  })
}

const partsOf = (base: Published | null): Parts =>
  base ? { files: base.pointer.files, slots: base.pointer.slots ?? 1 } : NO_PARTS

/** A cut that the lake holds, with the lake's positions; text: why this try is thrown away. */
export const settledTarget = async (
  ctx: BatchContext,
  view: View,
  from: Cut,
  options: { speed?: boolean; signal?: AbortSignal | undefined },
): Promise<{ cut: Cut; caughtUp: string[] } | string> => {
  const target = await targetCut(ctx, view, from, options.speed === undefined ? {} : { speed: options.speed })
  if (sameCut(from, target.cut)) return target
  const reached = await reachCut(ctx, view, target.cut, options.signal)
  if (reached !== 'archived')
    return reached === 'late' ? 'the cut was not archived before the deadline' : 'the log ends below the cut'
  const own = await lakeCut(ctx, view, target.cut)
  if (own === null) return 'the speed side stands in another history than the lake'
  return { ...target, cut: own }
}

/**
 * Publishes the next generation of a version, or says why not. Harmless beside another runner: the commit decides.
 * Throws WEIR_BATCH_ARCHIVER_STOPPED, WEIR_BATCH_CANCELLED and what stores throw; then nothing is half-done.
 */
export const extend = async (ctx: BatchContext, view: View, options: ExtendOptions = {}): Promise<Extended> => {
  const result: Extended = {
    outcome: 'thrown-away',
    generation: 0,
    cut: {},
    cells: 0,
    parts: 0,
    verified: null,
    reasons: [],
  }
  const tries = options.tries ?? TRIES
  for (let attempt = 0; attempt < tries; attempt++) {
    checkSignal(options.signal)
    const claimed = await ctx.publications.claimedBy(view.name, view.version)
    if (claimed !== null && claimed !== options.holder) return { ...result, outcome: 'claimed' }
    const base = await ctx.publications.current(view.name, view.version)
    if (base === 'dropped') return { ...result, outcome: 'dropped' }
    const from = await baseCut(ctx, view, base)
    const at = { ...result, generation: base?.pointer.generation ?? 0, cut: offsetsOf(from) }
    const target = await settledTarget(ctx, view, from, { ...options })
    if (typeof target === 'string') {
      result.reasons.push(target)
      continue
    }
    // A base that lacks a partition of the log is published anew even when there is nothing in it.
    if (sameCut(base?.pointer.cut ?? from, target.cut)) return { ...at, outcome: 'nothing' }
    options.progress?.(0.3)
    const done = await extendParts(ctx, view, partsOf(base), from, target.cut, {
      verify: options.verify ?? true,
      signal: options.signal,
    })
    options.progress?.(0.8)
    try {
      checkSignal(options.signal)
    } catch (error) {
      await discardParts(ctx.lake.store, done.parts.written)
      throw error
    }
    if (done.verified) reportDrift(ctx, view, done.verified, 'the speed state and the batch partials of one range')
    const kind: Pointer['kind'] = target.caughtUp.length > 0 ? 'catch-up' : 'extend'
    const published = await publish(ctx, view, {
      base,
      cut: target.cut,
      parts: done.parts,
      kind,
      lineage: base?.pointer.lineage ?? null,
      suspectLineages: base?.pointer.suspectLineages ?? [],
    })
    if (published.outcome === 'dropped') return { ...at, outcome: 'dropped' }
    if (published.outcome === 'stale') {
      result.reasons.push('another generation was published on the same base')
      continue
    }
    return {
      ...result,
      outcome: 'published',
      generation: published.pointer.generation,
      cut: offsetsOf(target.cut),
      cells: done.cells,
      parts: done.parts.touched,
      verified: done.verified,
    }
  }
  alarm(
    ctx,
    new WeirError({
      code: 'WEIR_BATCH_THROWN_AWAY',
      message: `An extend of ${view.name} began anew ${tries} times and was thrown away.`,
      expected: 'a base that stands and a cut that the lake reaches',
      got: result.reasons.at(-1) ?? 'nothing',
      next: 'the next run begins anew; if this repeats, look at the archiver and the speed workers of the dataset',
      retryable: true,
    }),
  )
  return result
}

/**
 * Catch-up: where the log no longer holds a version's published cut (a backfill overtaken by retention, a long outage), the version
 * goes on from the lake alone: cut := archived, and the speed side starts there (rule 9). 'nothing' when the log holds every cut.
 */
export const catchUp = (ctx: BatchContext, view: View, options: ExtendOptions = {}): Promise<Extended> =>
  extend(ctx, view, { ...options, speed: false, verify: false })
