/**
 * The batch role: archiver loops, schedules, adoption and backfill of changed views, retiring, retention.
 * Invariant: everything here only proposes (the commit decides), so a second batch process is waste, not harm.
 */
import { adoptViews } from '../batch-layer/adopt.ts'
import { archiverOf, closeArchivers } from '../batch-layer/archiver.ts'
import { backfill } from '../batch-layer/backfill.ts'
import type { BatchContext } from '../batch-layer/context.ts'
import { createJobRunner } from '../batch-layer/jobs.ts'
import { applyRetention } from '../batch-layer/retention.ts'
import { retireCovered } from '../batch-layer/retire.ts'
import type { WorkerRunner } from '../batch-layer/shard.ts'
import type { WeirError } from '../model/errors.ts'
import type { JobAction, JobRequest, Scheduler } from '../model/ports/scheduler.ts'
import { workOnAssigned } from './assigned.ts'
import { openScheduler, openShardRunner, scheduledActions } from './job-queues.ts'
import { startLoop } from './loops.ts'
import type { Shared } from './ports.ts'
import type { Role } from './roles.ts'

export type BatchRuntime = {
  ctx: BatchContext
  scheduler: Scheduler /** Views that are being filled from the lake. */
  filling(): string[]
}

const RETENTION_MS = 30_000
const NOTICE_MS = 600_000
/** Nothing left to do: the loop only waits for its end. */
const IDLE_MS = 3_600_000

/** What the batch layer's functions are given, over the lake and engine of a role of this process. */
export const batchContext = (
  { options, ports, alarms }: Shared,
  role: Role,
  runWorker?: WorkerRunner,
): BatchContext => {
  const { settings, datasets } = options.project
  const { log, speed, publications, versions } = ports
  const { lake, history, engine } = ports.of(role)
  return {
    log,
    speed,
    publications,
    history,
    lake,
    engine,
    datasets,
    versions,
    settings,
    now: Date.now,
    alarm: (error) => alarms.raise(`batch/${(error as Partial<WeirError>).code ?? 'notice'}`, error, NOTICE_MS),
    ...(runWorker === undefined ? {} : { runWorker }),
  }
}

export const startBatch = async (shared: Shared): Promise<BatchRuntime> => {
  const { options, ports, alarms, drift, closers } = shared
  const { settings, datasets, views } = options.project
  const { versions } = ports
  const ctx = batchContext(shared, 'batch', options.inProcessWorkers ? undefined : await openShardRunner(shared))
  closers.add(() => closeArchivers(ctx))
  const loop = (name: string, step: (signal: AbortSignal) => Promise<number>): void => {
    closers.add(startLoop({ name, alarms, step }).stop)
  }

  const waiting = await adoptViews(ctx, views)
  await versions.refresh()
  const filling = new Set(waiting.map((v) => v.name))

  const pauseMs = Math.max(50, Math.min(1_000, settings.archive.maxAgeMs / 5))
  const archiving = await workOnAssigned(shared, 'batch', 'archive', async (dataset, partition) => {
    const archiver = archiverOf(ctx, dataset)
    return {
      step: async () => {
        const outcome = await archiver.step(partition)
        const { stopped } = archiver.state(partition)
        if (stopped) throw stopped
        return outcome === 'archived' ? 0 : pauseMs
      },
      // Archivers are the context's: extends use them too.
      close: async () => undefined,
    }
  })
  closers.add(archiving.stop)
  for (const dataset of datasets) {
    loop(`retention/${dataset.name}`, async () => {
      await applyRetention(ctx, dataset)
      return RETENTION_MS
    })
  }
  loop('retire', async () => {
    for (const dataset of datasets) for (const view of versions.fed(dataset.name)) await retireCovered(ctx, view)
    return Math.max(500, Math.min(5_000, settings.batch.retireAfterMs / 2))
  })
  for (const view of waiting)
    loop(`backfill/${view.name}`, async (signal) => {
      if (!filling.has(view.name)) return IDLE_MS
      const { switched } = await backfill(ctx, view, { signal, waitMs: 5_000 })
      if (switched === 'waiting') return 500
      filling.delete(view.name)
      return IDLE_MS
    })

  const run = createJobRunner(ctx, { compared: drift.note })
  // A job that fails is an alarm until one of its kind succeeds.
  const scheduler = await openScheduler(shared, async (request, how) => {
    const source = `job/${request.action}/${request.view}`
    try {
      const result = await run(request, how)
      alarms.clear(source)
      return result
    } catch (error) {
      if (!how.signal.aborted) alarms.raise(source, error)
      throw error
    }
  })
  // A view that left the project still serves: without extends its cut would hold up retention, and its epochs grow, for ever.
  const everyView = (action: JobAction) => (): JobRequest[] => {
    const serving = versions.all().flatMap((v) => (v.state === 'active' && v.compiled !== null ? [v.view] : []))
    return [...new Set([...views.map((v) => v.name), ...serving])].map((view) => ({ view, action }))
  }
  const { timeZone, schedules } = settings
  const everyDataset = (): JobRequest[] => datasets.map((d) => ({ view: d.name, action: 'compact' }))
  for (const action of scheduledActions(shared))
    await scheduler.schedule(
      action,
      schedules[action],
      timeZone,
      action === 'compact' ? everyDataset : everyView(action),
    )
  return { ctx, scheduler, filling: () => [...filling] }
}
