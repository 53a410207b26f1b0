/** What one step does in one process of a world. */
import { createHash } from 'node:crypto'
import { adoptViews, dropVersion } from '../../batch-layer/adopt.ts'
import { archiverOf } from '../../batch-layer/archiver.ts'
import { backfill } from '../../batch-layer/backfill.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { extend } from '../../batch-layer/extend.ts'
import { publish } from '../../batch-layer/publish.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { applyRetention } from '../../batch-layer/retention.ts'
import { retireCovered } from '../../batch-layer/retire.ts'
import { rollback } from '../../batch-layer/rollback.ts'
import { verify } from '../../batch-layer/verify.ts'
import { type Random, random } from '../../cli/random.ts'
import { compileView } from '../../model/compile/compile.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { View } from '../../model/view.ts'
import { checkOnce } from './answers.ts'
import type { Process } from './nemesis.ts'
import { randomEvent } from './project.ts'
import type { Step } from './schedule.ts'
import { Difference, tolerated, type World } from './state.ts'

const compiled = async (w: World, name: string): Promise<View> => {
  const view = w.project.views.find((v) => v.name === name)!
  return compileView(
    { name, sql: view.definitions[w.definitions.get(name)!]!, dataset: w.project.dataset },
    w.lab.tools,
  )
}
export const adopt = async (w: World, ctx: BatchContext): Promise<void> => {
  const views = await Promise.all(w.project.views.map((v) => compiled(w, v.name)))
  for (const view of await adoptViews(ctx, views)) await backfill(ctx, view, { waitMs: 0 })
  await ctx.versions.refresh()
}

const append = async (w: World, r: Random, log: EventLog): Promise<void> => {
  const { clock, attempted } = w
  const { dataset } = w.project
  const partition = r.pick(w.partitions)
  // Parts of the window of ids: what is repeated once and again goes on being a duplicate.
  const window = dataset.dedupeWindowMs ?? 60_000
  clock.now += r.pick([0, 1, 40, 1_000, 30_000, 600_000, 0.4 * window, 0.6 * window, 0.6 * window])
  if (r.chance(0.15)) clock.now -= r.int(0, 240_000)
  const records = Array.from({ length: r.int(1, 4) }, () => {
    const again = r.chance(0.1) ? [...attempted.entries()].at(-1) : undefined
    const events =
      again?.[1] ?? Array.from({ length: r.int(1, r.chance(0.2) ? 30 : 6) }, () => randomEvent(r, dataset, clock.now))
    const recordId =
      again?.[0] ??
      createHash('sha256')
        .update(`${w.appends++}`)
        .update(String(r.next()))
        .digest('hex')
        .slice(0, 32)
    attempted.set(recordId, events)
    const bytes = Buffer.from(events.map((e) => `${e.json}\n`).join(''))
    return { recordId, bytes, events: events.length }
  })
  await log.append(dataset.name, partition, records)
}

const rollBackOf =
  (r: Random) =>
  async (ctx: BatchContext, view: View): Promise<void> => {
    const current = await ctx.publications.current(view.name, view.version)
    if (current === null || current === 'dropped' || current.pointer.kept.length === 0) return
    await rollback(ctx, view, r.pick(current.pointer.kept).generation)
  }

/**
 * A build with a defect publishes cells that are wrong; a recompute repairs the view before anybody asks. From then on that lineage is
 * suspect, and nobody gets it back (rule 17).
 */
const repairOf =
  (w: World, r: Random) =>
  async (ctx: BatchContext, view: View): Promise<void> => {
    const base = await ctx.publications.current(view.name, view.version)
    if (base === null || base === 'dropped' || base.pointer.rowsTotal === 0) return
    const { cut, files, slots = 1, lineage, suspectLineages } = base.pointer
    const parts = { files, slots, written: [], touched: 0 }
    const lost = files.find((f) => f.rows > 0)!
    const wrong = { ...parts, files: files.filter((f) => f !== lost) }
    const { outcome } = await publish(ctx, view, {
      base,
      cut,
      parts: wrong,
      kind: 'extend',
      lineage,
      suspectLineages,
    })
    if (outcome !== 'published') return
    const found = await recompute(ctx, view).catch((error) => {
      if (!tolerated(w, error)) throw error
    })
    const now = await ctx.publications.current(view.name, view.version)
    if (now === null || now === 'dropped') return
    if (found?.outcome === 'published') {
      if (!now.pointer.suspectLineages.includes(lineage))
        throw new Difference(`a recompute replaced a wrong generation, and did not say so: ${JSON.stringify(found)}`)
    } else {
      // By hand, then: the view as it was, as a lineage of its own.
      const suspects = [...suspectLineages, lineage]
      await publish(ctx, view, { base: now, cut, parts, kind: 'recompute', lineage: null, suspectLineages: suspects })
    }
    if (r.chance(0.6)) await rollBackOf(r)(ctx, view)
  }

export const noDifference = (found: { differing: number } | null | undefined): void => {
  if (found && found.differing > 0)
    throw new Difference(`verify found ${found.differing} differing cells: ${JSON.stringify(found)}`)
}

/** What one step does in one process. */
export const work = (w: World, step: Step): { process: Process; run: () => Promise<unknown> } | null => {
  const { batches, speeds, project, partitions, definitions, answering } = w
  const { dataset } = project
  const r = random(step.seed)
  const batch = step.batch === undefined ? r.pick(batches) : batches[step.batch]!
  const speed = r.pick(speeds)
  const view = step.view === undefined ? r.pick(project.views) : project.views[step.view % project.views.length]!
  const viewName = view.name
  const onView = (run: (ctx: BatchContext, view: View) => Promise<unknown>) => ({
    process: batch.process,
    run: async () => {
      await batch.ctx.versions.refresh()
      const candidates = batch.ctx.versions.fed(dataset.name).filter((v) => v.name === viewName)
      if (candidates.length > 0) return run(batch.ctx, r.pick(candidates))
    },
  })
  switch (step.kind) {
    case 'append':
      return { process: batch.process, run: () => append(w, r, batch.ctx.log) }
    case 'speed':
      return {
        process: speed.process,
        run: async () => {
          await speed.versions.refresh()
          const times = r.int(1, 5)
          for (let i = 0; i < times; i++) await speed.workers.get(r.pick(partitions))!.step()
        },
      }
    case 'archive':
      return {
        process: batch.process,
        run: () => archiverOf(batch.ctx, dataset.name).step(r.pick(partitions), { force: true }),
      }
    case 'extend':
      return onView((ctx, view) => extend(ctx, view))
    case 'recompute':
      return onView((ctx, view) => recompute(ctx, view))
    case 'verify':
      return onView(async (ctx, view) => noDifference(await verify(ctx, view)))
    case 'rollback':
      return onView(rollBackOf(r))
    case 'repair':
      return onView(repairOf(w, r))
    case 'define':
      return {
        process: batch.process,
        run: async () => {
          definitions.set(viewName, 1 - definitions.get(viewName)!)
          await adopt(w, batch.ctx)
        },
      }
    case 'activate':
      return onView(async (ctx, view) => {
        const active = await ctx.publications.active(view.name)
        const published = await ctx.publications.current(view.name, view.version)
        if (published === null || published === 'dropped') return
        await ctx.publications.activate(view.name, view.version, active?.token ?? null)
      })
    case 'drop':
      return onView(async (ctx, view) => {
        if (ctx.versions.active(view.name)?.version === view.version) return
        await dropVersion(ctx, view)
      })
    case 'retire':
      return onView(retireCovered)
    case 'retention':
      return {
        process: batch.process,
        run: () => batch.ctx.versions.refresh().then(() => applyRetention(batch.ctx, dataset)),
      }
    case 'compact':
      return { process: batch.process, run: () => batch.ctx.lake.compact(dataset) }
    case 'query':
      return { process: answering.process, run: () => checkOnce(w, r) }
    default:
      return null
  }
}
