/**
 * From a job request to the function that carries it out. Invariant: jobs propose and the commit decides, so a job that runs twice,
 * here or in another process, is harmless.
 */
import { WeirError } from '../model/errors.ts'
import type { JobRequest, JobRunner } from '../model/ports/scheduler.ts'
import type { View } from '../model/view.ts'
import type { BatchContext } from './context.ts'
import { extend } from './extend.ts'
import { upkeep } from './maintenance.ts'
import { mirror } from './publish.ts'
import { recompute } from './recompute.ts'
import { retireCovered } from './retire.ts'
import { rollback } from './rollback.ts'
import { verify } from './verify.ts'

export type JobHooks = {
  /** A comparison was made: 0 must be. */
  compared?(view: string, job: 'extend' | 'recompute' | 'verify', differing: number): void
}

const noView = (name: string, known: string[]): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_NO_VIEW',
    message: `No version of ${name} serves.`,
    expected: known.length ? `one of ${[...new Set(known)].join(', ')}` : 'a view that was adopted',
    got: name,
    next: 'check the name; a new view is adopted when the batch role starts',
  })

export const createJobRunner = (ctx: BatchContext, hooks: JobHooks = {}): JobRunner => {
  /** The version that serves, then those kept for going back: all are fed, so all must be extended. */
  const fedOf = (name: string): View[] => {
    const active = ctx.versions.active(name)
    if (active === null)
      throw noView(
        name,
        ctx.versions.all().map((v) => v.view),
      )
    const kept = ctx.versions.fed(active.dataset).filter((v) => v.name === name && v.version !== active.version)
    return [active, ...kept]
  }

  const run: JobRunner = async ({ view: name, action, options = {} }, { signal, progress }) => {
    const how = { signal, progress: (fraction: number) => progress(fraction) }
    switch (action) {
      case 'extend':
      case 'publish': {
        const [active, ...kept] = fedOf(name)
        const done = await extend(ctx, active!, how)
        if (done.verified) hooks.compared?.(name, 'extend', done.verified.differing)
        for (const view of kept) await extend(ctx, view, { signal })
        for (const view of [active!, ...kept]) await retireCovered(ctx, view)
        if (action === 'publish') {
          const current = await ctx.publications.current(name, active!.version)
          if (current !== null && current !== 'dropped') await mirror(ctx, active!, current.pointer)
        }
        return { ...done }
      }
      case 'recompute': {
        const done = await recompute(ctx, fedOf(name)[0]!, { ...how, restart: options.restart === true })
        hooks.compared?.(name, 'recompute', done.differing)
        return { ...done }
      }
      case 'verify': {
        const done = await verify(ctx, fedOf(name)[0]!)
        hooks.compared?.(name, 'verify', done.differing)
        return { ...done }
      }
      case 'rollback': {
        const generation = Number(options.generation)
        if (!Number.isSafeInteger(generation) || generation < 1) throw badOptions(action, options)
        return { ...(await rollback(ctx, fedOf(name)[0]!, generation, { ...how, force: options.force === true })) }
      }
      case 'compact': {
        // The schedule names datasets, people name views.
        const dataset = ctx.datasets.some((d) => d.name === name) ? name : ctx.versions.active(name)?.dataset
        return { ...(await upkeep(ctx, { ...how, dataset: dataset ?? name })) }
      }
    }
  }
  return async (request: JobRequest, context) => {
    await ctx.versions.refresh()
    return run(request, context)
  }
}

const badOptions = (action: string, options: Record<string, unknown>): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_JOB_OPTIONS',
    message: `The options of ${action} are not understood.`,
    expected: '{ "generation": <number>, "force": false }',
    got: JSON.stringify(options),
    next: 'see `weir batch --help`',
  })
