/**
 * Reads what a plan is made of: the active version, its pointer, the headers, the ends of the log.
 * Invariant: headers are read before the log's ends and after the pointer, so a publish in between can only make a misfit.
 */
import type { LogRange } from '../model/ports/event-log.ts'
import type { Header } from '../model/ports/speed-store.ts'
import type { ResolvedQuery } from '../model/query/query.ts'
import type { View } from '../model/view.ts'
import type { ServingContext } from './context.ts'
import { misfit, unknownView } from './errors.ts'
import { type Base, baseOf, joinPartition, type Plan, pruneFiles } from './plan.ts'

export type Planner = {
  /** The version that serves now. Throws WEIR_SERVING_NO_VIEW. */
  active(view: string): Promise<View>
  base(view: View): Promise<Base>
  plan(
    view: View,
    query: ResolvedQuery,
    base: Base,
    headers: (partition: number) => Promise<Header | null>,
  ): Promise<Plan>
}

const REFRESH_MS = 1_000

export const openPlanner = (ctx: ServingContext): Planner => {
  let refreshedAt = Number.NEGATIVE_INFINITY
  const refresh = async (): Promise<void> => {
    await ctx.versions.refresh()
    refreshedAt = performance.now()
  }
  return {
    active: async (name) => {
      if (refreshedAt + REFRESH_MS < performance.now()) await refresh()
      // One cheap read, so that a switch of versions is seen by the next query.
      const active = await ctx.publications.active(name)
      let view = ctx.versions.active(name)
      if (view?.version !== active?.version) {
        await refresh()
        view = ctx.versions.active(name)
      }
      if (view === null) throw unknownView(name)
      return view
    },
    base: async (view) => {
      const published = await ctx.publications.current(view.name, view.version)
      if (published === 'dropped') {
        await refresh()
        throw misfit('DROPPED', view.name, `version ${view.version} was dropped`)
      }
      return baseOf(published?.pointer ?? null)
    },
    plan: async (view, query, base, headers) => {
      const numbers = await ctx.log.partitions(view.dataset)
      for (const name of Object.keys(base.cut))
        if (!numbers.includes(Number(name)))
          throw misfit('OTHER_LOG', view.name, `the log has no partition ${name}, and the generation has`)
      const partitions = []
      for (const partition of numbers) {
        const header = await headers(partition)
        const range: LogRange = await ctx.log.range(view.dataset, partition)
        partitions.push(joinPartition(view, partition, base, header, range))
      }
      const files = pruneFiles(base.files, query)
      return {
        view: view.name,
        version: view.version,
        generation: base.generation,
        partitions,
        files,
        pruned: base.files.length - files.length,
        limits: { rows: query.limit, deadlineMs: ctx.settings.query.deadlineMs },
      }
    },
  }
}
