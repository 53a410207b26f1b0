/**
 * Cuts: where a generation may end. Invariants: a cut never goes back; the lake holds everything below it before anything is computed;
 * and what is published carries the lake's own positions, compared with those that the speed side returned (rule 7).
 */
import { WeirError } from '../model/errors.ts'
import type { Published } from '../model/ports/publications.ts'
import { type Cut, genesis, type Position, samePosition } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { archiverOf } from './archiver.ts'
import { type BatchContext, checkSignal, datasetOf } from './context.ts'

/** The base's cut, with every partition that the log has (a new one enters at its beginning). */
export const baseCut = async (ctx: BatchContext, view: View, base: Published | null): Promise<Cut> => {
  const cut: Cut = {}
  for (const p of await ctx.log.partitions(view.dataset)) {
    const stored = base?.pointer.cut[String(p)]
    cut[String(p)] = stored ?? genesis((await ctx.log.range(view.dataset, p)).logId)
  }
  return { ...(base?.pointer.cut ?? {}), ...cut }
}

export type Target = {
  cut: Cut
  /** Partitions whose cut the log no longer holds: they go on from the lake alone, at its end. */
  caughtUp: string[]
}

/**
 * Closes the version's open epochs where the speed side is and returns the positions. A partition without speed state keeps its cut,
 * unless the log no longer begins below it: then its cut becomes the lake's end. `speed: false` asks no cut at all (catch-up).
 */
export const targetCut = async (
  ctx: BatchContext,
  view: View,
  from: Cut,
  options: { speed?: boolean } = {},
): Promise<Target> => {
  const target: Target = { cut: {}, caughtUp: [] }
  const live = new Set((await ctx.log.partitions(view.dataset)).map(String))
  for (const [p, start] of Object.entries(from)) {
    const partition = Number(p)
    target.cut[p] = start
    if (!live.has(p)) continue
    if (options.speed !== false) {
      const got = await ctx.speed.cut({ dataset: view.dataset, partition }, view.version, 0)
      if (typeof got !== 'string' && got.offset > start.offset) {
        target.cut[p] = got
        continue
      }
    }
    const { startOffset } = await ctx.log.range(view.dataset, partition)
    if (startOffset <= start.offset) continue
    await archiverOf(ctx, view.dataset).step(partition, { force: true })
    const archived = await ctx.history.archived(view.dataset, partition)
    if (archived === null || archived.position.offset <= start.offset) continue
    target.cut[p] = archived.position
    target.caughtUp.push(p)
  }
  return target
}

/**
 * Has the archiver work until the lake holds everything below the cut. 'late': the deadline has passed; 'beyond-log': the log ends
 * below the cut, so that no wait would help. Throws WEIR_BATCH_ARCHIVER_STOPPED when the log does not continue the lake.
 */
export const reachCut = async (
  ctx: BatchContext,
  view: View,
  cut: Cut,
  signal?: AbortSignal,
): Promise<'archived' | 'late' | 'beyond-log'> => {
  const archiver = archiverOf(ctx, view.dataset)
  const deadline = ctx.now() + ctx.settings.batch.cutDeadlineMs
  for (const [p, position] of Object.entries(cut)) {
    for (;;) {
      checkSignal(signal)
      const archived = await ctx.history.archived(view.dataset, Number(p))
      if ((archived?.position.offset ?? 0) >= position.offset) break
      if (ctx.now() >= deadline) return 'late'
      const step = await archiver.step(Number(p), { upTo: position.offset })
      if (step === 'stopped') throw archiver.state(Number(p)).stopped!
      if (step === 'nothing') {
        const end = await ctx.history.archived(view.dataset, Number(p))
        if ((end?.position.offset ?? 0) < position.offset) return 'beyond-log'
      }
    }
  }
  return 'archived'
}

/** The lake's own positions at the cut; null when one of them is of another history than the cut's. */
export const lakeCut = async (ctx: BatchContext, view: View, cut: Cut): Promise<Cut | null> => {
  const out: Cut = {}
  for (const [p, position] of Object.entries(cut)) {
    const own = position.offset === 0 ? position : await lakePosition(ctx, view.dataset, Number(p), position.offset)
    if (own === null || !samePosition(own, position)) return null
    out[p] = own
  }
  return out
}

const lakePosition = (
  ctx: BatchContext,
  dataset: string,
  partition: number,
  offset: number,
): Promise<Position | null> => ctx.history.positionAt(dataset, partition, offset)

/** The ends of the lake. */
export const archivedCut = (ctx: BatchContext, view: View): Promise<Cut> =>
  ctx.lake.events(datasetOf(ctx, view.dataset)).archivedCut()

export const sameCut = (a: Cut, b: Cut): boolean => {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((p) => b[p] !== undefined && samePosition(a[p]!, b[p]))
}

/** Throws WEIR_BATCH_CUT_BACK if any partition of `to` lies before `from`: an assertion, not a check of input. */
export const assertForward = (from: Cut, to: Cut): void => {
  for (const [p, position] of Object.entries(from))
    if (to[p] === undefined || to[p].offset < position.offset)
      throw new WeirError({
        code: 'WEIR_BATCH_CUT_BACK',
        message: `A generation would take the cut of partition ${p} back.`,
        expected: `offset ≥ ${position.offset}`,
        got: String(to[p]?.offset),
        next: 'this is a defect in the batch layer: nothing was published',
      })
}
