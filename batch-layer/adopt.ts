/**
 * View versions: adopting the project's definitions, switching, dropping.
 * Invariants: a version serves only by compare-and-set on the version before it, and only once its speed state joins its published
 * cut; going back to a version that is still fed is one such switch and nothing else.
 */
import { WeirError } from '../model/errors.ts'
import { samePosition } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { alarm, type BatchContext } from './context.ts'

/** Whether the log still holds every record of the dataset. */
const logIsWhole = async (ctx: BatchContext, dataset: string): Promise<boolean> => {
  for (const p of await ctx.log.partitions(dataset)) if ((await ctx.log.range(dataset, p)).startOffset > 0) return false
  return true
}

/** Whether the speed side, where there is one, joins the version's published cut in every partition. */
export const speedJoins = async (ctx: BatchContext, view: View): Promise<boolean> => {
  const published = await ctx.publications.current(view.name, view.version)
  if (published === null || published === 'dropped') return false
  for (const [p, cut] of Object.entries(published.pointer.cut)) {
    const header = await ctx.speed.header({ dataset: view.dataset, partition: Number(p) })
    if (header === null) continue
    const epochs = header.views[view.version]?.epochs ?? []
    if (header.position.offset < cut.offset || !epochs.some((e) => samePosition(e.from, cut))) return false
  }
  return true
}

export type Switched = 'active' | 'activated' | 'waiting' | 'unpublished'

/** Makes a published version serve, if the speed side is there; 'waiting' when it is not yet. */
export const switchTo = async (ctx: BatchContext, view: View): Promise<Switched> => {
  for (;;) {
    const active = await ctx.publications.active(view.name)
    if (active?.version === view.version) return 'active'
    const published = await ctx.publications.current(view.name, view.version)
    if (published === null || published === 'dropped') return 'unpublished'
    if (!(await speedJoins(ctx, view))) return 'waiting'
    if ((await ctx.publications.activate(view.name, view.version, active?.token ?? null)) === 'activated') {
      await ctx.versions.refresh()
      return 'activated'
    }
  }
}

/**
 * Registers the versions of the project's views. The first version of a view serves at once if the log still begins at its beginning
 * (the speed side feeds it from there); a version that is still fed is switched back to; the others are returned, for `backfill`.
 * A definition that was dropped for good is an alarm. Safe to repeat, and beside another process.
 */
export const adoptViews = async (ctx: BatchContext, views: View[]): Promise<View[]> => {
  const waiting: View[] = []
  for (const view of views) {
    if ((await ctx.publications.current(view.name, view.version)) === 'dropped') {
      alarm(ctx, droppedVersion(view))
      continue
    }
    await ctx.publications.register(view.name, view.version, view.sql)
    const active = await ctx.publications.active(view.name)
    if (active === null && (await logIsWhole(ctx, view.dataset))) {
      const done = await ctx.publications.activate(view.name, view.version, null)
      if (done === 'activated') continue
    }
    const switched = await switchTo(ctx, view)
    if (switched !== 'active' && switched !== 'activated') waiting.push(view)
  }
  await ctx.versions.refresh()
  return waiting
}

/**
 * Drops a version for good: a tombstone. Throws WEIR_BATCH_ACTIVE for the version that serves, unless its view has left the project:
 * there is no other version to serve then, and it would be fed for ever.
 */
export const dropVersion = async (
  ctx: BatchContext,
  view: { name: string; version: string },
  options: { viewLeft?: boolean } = {},
): Promise<void> => {
  if (!options.viewLeft && (await ctx.publications.active(view.name))?.version === view.version)
    throw new WeirError({
      code: 'WEIR_BATCH_ACTIVE',
      message: `Version ${view.version} of ${view.name} serves; it cannot be dropped.`,
      expected: 'a version that does not serve',
      got: view.version,
      next: 'activate another version first; or take the view out of the project and start again',
    })
  await ctx.publications.drop(view.name, view.version)
  await ctx.versions.refresh()
}

export const droppedVersion = (view: { name: string; version: string }): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_DROPPED',
    message: `Version ${view.version} of ${view.name} was dropped; it cannot come back.`,
    expected: 'a definition that was not dropped',
    got: view.version,
    next: 'change the definition in what it computes (another alias will do) to get a new version',
  })
