/** Recompute, roll back, versions, catch-up, retention, upkeep: each ends in cells that equal plain SQL. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { adoptViews, dropVersion, switchTo } from '../../batch-layer/adopt.ts'
import { backfill } from '../../batch-layer/backfill.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { catchUp, extend } from '../../batch-layer/extend.ts'
import { findJobs } from '../../batch-layer/job-record.ts'
import { upkeep, vacuumParts } from '../../batch-layer/maintenance.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { applyRetention } from '../../batch-layer/retention.ts'
import { rollback } from '../../batch-layer/rollback.ts'
import { decodeJob, encodeJob, inProcessRunner, runShard, type WorkerRunner } from '../../batch-layer/shard.ts'
import type { View } from '../../model/view.ts'
import { rng } from '../support/orders.ts'
import { byCountry, byHour, byHourChanged, HOUR, openWorld, type TestView, total, type World } from './support.ts'

let w: World
let random = rng(0)
beforeEach(async () => {
  w = await openWorld()
  random = rng(31)
  await adoptViews(w.ctx, w.views)
})
afterEach(() => w.close())

/** Appends, applies, extends. */
const grow = async (rounds: number, views: View[] = [byHour]): Promise<void> => {
  for (let i = 0; i < rounds; i++) {
    await w.append(random, 10)
    await w.speedUp()
    for (const view of views) expect((await extend(w.ctx, view)).outcome).toBe('published')
  }
}
const exact = async (view: TestView): Promise<void> => {
  const pointer = await w.published(view)
  expect([view.name, await w.differing(view, pointer, pointer.cut)]).toEqual([view.name, 0])
}
/** The view as a release with a bug would compile it: it counts one too many. */
const bugged: View = {
  ...byHour,
  states: byHour.states.map((s, i) => (i === 0 ? { ...s, partial: 'count(*) + 1' } : s)),
}

describe('recompute', () => {
  it('equals the chain of extends at its cut, and plain SQL after it is extended', async () => {
    await grow(3, w.views)
    await w.append(random, 6)
    await w.speedUp()
    for (const view of w.views) {
      const seen: number[] = []
      const done = await recompute(w.ctx, view, { shardBytes: 1, mergeCells: 20, progress: (f) => seen.push(f) })
      expect(done).toMatchObject({ outcome: 'published', generation: 4, differing: 0, resumed: false, reasons: [] })
      expect(done.shards).toBeGreaterThan(3)
      expect(seen).toEqual([...seen].sort((a, b) => a - b))
      expect(await w.published(view)).toMatchObject({ kind: 'recompute', lineage: '4', suspectLineages: [] })
      await exact(view)
      expect(await findJobs(w.store, view)).toEqual([])
    }
    await grow(1, w.views)
    for (const view of w.views) await exact(view)
    expect(await w.published(byHour)).toMatchObject({ generation: 5, kind: 'extend', lineage: '4' })
    expect(w.alarms).toEqual([])
  })

  it('repairs what a bug published, marks the lineage suspect, and roll back to it needs force', async () => {
    await grow(1)
    await w.append(random, 10)
    await w.speedUp()
    await extend(w.ctx, bugged)
    expect(w.alarms.map((a) => a.code)).toContain('WEIR_BATCH_DRIFT')
    await grow(1)
    expect(await w.differing(byHour, await w.published(byHour), (await w.published(byHour)).cut)).toBeGreaterThan(0)
    const done = await recompute(w.ctx, byHour)
    expect(done.differing).toBeGreaterThan(0)
    expect(done.explained[0]!.key).toHaveProperty('country')
    await exact(byHour)
    expect((await w.published(byHour)).suspectLineages).toEqual(['1'])
    await expect(rollback(w.ctx, byHour, 1)).rejects.toMatchObject({ code: 'WEIR_BATCH_SUSPECT' })
    await expect(rollback(w.ctx, byHour, 77)).rejects.toMatchObject({ code: 'WEIR_BATCH_NOT_KEPT' })
    expect(await rollback(w.ctx, byHour, 1, { force: true })).toMatchObject({ outcome: 'published', generation: 5 })
    // Generation 1 itself was right, so it is right again, up to the current cut.
    await exact(byHour)
    expect(await w.published(byHour)).toMatchObject({ kind: 'rollback', lineage: '1', suspectLineages: ['1'] })
  })

  it('is continued after it was killed: finished shards are not run again', async () => {
    await grow(3)
    const run: string[] = []
    const env = { store: w.store, engine: w.engine, now: () => w.now }
    const dying: WorkerRunner = async (jobs) => {
      for (const job of jobs.slice(0, 2)) {
        run.push(job.recordKey)
        await runShard(env, decodeJob(encodeJob(job)))
      }
      throw new Error('killed')
    }
    const counting: WorkerRunner = async (jobs, context) => {
      for (const job of jobs) if ((await w.store.get(job.recordKey)) === null) run.push(job.recordKey)
      return inProcessRunner(env)(jobs, context)
    }
    const options = { shardBytes: 1 }
    await expect(
      recompute(
        w.other((c) => ({ ...c, runWorker: dying })),
        byHour,
        options,
      ),
    ).rejects.toThrow('killed')
    expect(await findJobs(w.store, byHour)).toHaveLength(1)
    // Meanwhile life goes on, upkeep too: what the job needs is pinned.
    w.ctx.settings.batch.vacuumAfterMs = 0
    w.now += 48 * HOUR
    await grow(2)
    await upkeep(w.ctx)
    const done = await recompute(
      w.other((c) => ({ ...c, runWorker: counting })),
      byHour,
      options,
    )
    expect(done).toMatchObject({ outcome: 'published', resumed: true, differing: 0 })
    expect(new Set(run).size).toBe(run.length)
    await exact(byHour)
    expect(await findJobs(w.store, byHour)).toEqual([])
  })

  it('supersedes a job of another definition, or on demand', async () => {
    await grow(2)
    const dying: WorkerRunner = async () => {
      throw new Error('killed')
    }
    await expect(
      recompute(
        w.other((c) => ({ ...c, runWorker: dying })),
        bugged,
        { shardBytes: 1 },
      ),
    ).rejects.toThrow('killed')
    expect(await recompute(w.ctx, byHour)).toMatchObject({ outcome: 'published', resumed: false, differing: 0 })
    await expect(
      recompute(
        w.other((c) => ({ ...c, runWorker: dying })),
        byHour,
        { shardBytes: 1 },
      ),
    ).rejects.toThrow('killed')
    expect(await recompute(w.ctx, byHour, { restart: true })).toMatchObject({ outcome: 'published', resumed: false })
    await exact(byHour)
  })

  it('beside extends and another recompute: it loses, claims, wins', async () => {
    await grow(2)
    const order: string[] = []
    // An extend slips in before each of its publishes, until it holds the claim.
    const raced = w.other((c) => ({
      ...c,
      publications: {
        ...c.publications,
        publish: async (next) => {
          await w.append(random, 2)
          await w.speedUp()
          order.push((await extend(w.ctx, byHour)).outcome)
          return c.publications.publish(next)
        },
      },
    }))
    const done = await recompute(raced, byHour)
    expect(order).toEqual(['published', 'published', 'claimed'])
    expect(done).toMatchObject({ outcome: 'published', differing: 0 })
    await exact(byHour)
    expect(await w.ctx.publications.claimedBy('by_hour', byHour.version)).toBeNull()
    const both = await Promise.all([recompute(w.other(), byHour), recompute(w.other(), byHour)])
    expect(both.map((b) => [b.outcome, b.differing])).toEqual([
      ['published', 0],
      ['published', 0],
    ])
    await exact(byHour)
  })

  it('rolls back to a kept generation, extended to the current cut', async () => {
    await grow(4, [byHour, byCountry])
    for (const view of [byHour, byCountry]) {
      const cut = (await w.published(view)).cut
      expect(await rollback(w.ctx, view, 2)).toMatchObject({ outcome: 'published', from: 2, generation: 5 })
      expect((await w.published(view)).cut).toEqual(cut)
      await exact(view)
    }
    w.ctx.settings.batch.keepGenerations = 2
    await grow(3)
    expect((await w.published(byHour)).kept.map((k) => k.generation)).toEqual([7, 6])
  })
})

describe('versions', () => {
  const swap = (view: TestView): void => {
    w.views = [...w.views.filter((v) => v.version !== view.version), view]
  }

  it('keeps the newest generation of each of the last lineages, besides the last generations', async () => {
    w.ctx.settings.batch.keepGenerations = 2
    await grow(3)
    expect(await recompute(w.ctx, byHour)).toMatchObject({ generation: 4 })
    await grow(3)
    expect(await recompute(w.ctx, byHour)).toMatchObject({ generation: 8 })
    await grow(3)
    const { kept } = await w.published(byHour)
    // Current: 11. The last two, of lineage 8, and the newest of lineage 4; lineage 1 has gone.
    expect(kept.map((k) => [k.generation, k.lineage])).toEqual([
      [10, '8'],
      [9, '8'],
      [7, '4'],
    ])
    expect(await rollback(w.ctx, byHour, 7)).toMatchObject({ outcome: 'published', from: 7 })
    await exact(byHour)
  })

  it('a changed view is filled while the old one serves, switched to, and gone back from', async () => {
    await grow(2)
    await applyRetention(w.ctx, { name: 'orders' })
    swap(byHourChanged)
    const waiting = await adoptViews(w.ctx, [byHourChanged, total])
    expect(waiting).toEqual([byHourChanged])
    expect((await w.ctx.publications.active('by_hour'))!.version).toBe(byHour.version)
    const first = await backfill(w.ctx, byHourChanged, { waitMs: 0 })
    expect(first.recomputed).toMatchObject({ outcome: 'published', generation: 1 })
    // The speed side is not there yet: the old version goes on serving.
    expect(first.switched).toBe('waiting')
    expect((await w.ctx.publications.active('by_hour'))!.version).toBe(byHour.version)
    await w.append(random, 5)
    await w.speedUp()
    expect(await backfill(w.ctx, byHourChanged, { waitMs: 0 })).toMatchObject({
      switched: 'activated',
      recomputed: null,
    })
    for (const view of [byHour, byHourChanged]) {
      await extend(w.ctx, view)
      await exact(view)
    }
    // Going back is one switch, since the old one is still fed.
    expect(await adoptViews(w.ctx, [byHour])).toEqual([])
    expect((await w.ctx.publications.active('by_hour'))!.version).toBe(byHour.version)
    await dropVersion(w.ctx, byHourChanged)
    expect(await extend(w.ctx, byHourChanged)).toMatchObject({ outcome: 'dropped' })
    expect(await recompute(w.ctx, byHourChanged)).toMatchObject({ outcome: 'dropped' })
    await expect(dropVersion(w.ctx, byHour)).rejects.toMatchObject({ code: 'WEIR_BATCH_ACTIVE' })
    await expect(backfill(w.ctx, byHourChanged)).rejects.toMatchObject({ code: 'WEIR_BATCH_DROPPED' })
  })

  it('a first version serves from the beginning of a whole log, and is filled from the lake of a trimmed one', async () => {
    expect((await w.ctx.publications.active('total'))!.version).toBe(total.version)
    await grow(3, w.views)
    w.ctx.settings.log.retention = '1 minute'
    w.now += 10 * HOUR
    expect(Object.keys(await applyRetention(w.ctx, { name: 'orders' })).length).toBeGreaterThan(0)
    const late: TestView = { ...total, name: 'late', version: '5555555555555555' }
    swap(late)
    expect(await adoptViews(w.ctx, [late])).toEqual([late])
    expect((await backfill(w.ctx, late, { waitMs: 0 })).switched).toBe('waiting')
    await w.speedUp()
    expect(await switchTo(w.ctx, late)).toBe('activated')
    expect(await switchTo(w.ctx, late)).toBe('active')
    await exact(late)
  })
})

describe('retention and catch-up', () => {
  it('trims only what is archived, published and old', async () => {
    const { log } = w
    const start = async (p: number) => (await log.range('orders', p)).startOffset
    w.ctx.settings.log.retention = '1 minute'
    await w.append(random, 40)
    w.now += HOUR
    await applyRetention(w.ctx, { name: 'orders' })
    expect([await start(0), await start(1)]).toEqual([0, 0])
    await w.speedUp()
    await extend(w.ctx, byHour)
    await extend(w.ctx, total)
    // byCountry serves from the log's beginning still.
    expect(await applyRetention(w.ctx, { name: 'orders' })).toEqual({})
    await extend(w.ctx, byCountry)
    await w.append(random, 20)
    w.now += 30_000
    const trimmed = await applyRetention(w.ctx, { name: 'orders' })
    for (const view of w.views) {
      const { cut } = await w.published(view)
      for (const [p, to] of Object.entries(trimmed)) expect(to).toBeLessThanOrEqual(cut[p]!.offset)
    }
    expect(await start(0)).toBeGreaterThan(0)
    w.ctx.settings.log.retention = 'forever'
    w.now += 1000 * HOUR
    expect(await applyRetention(w.ctx, { name: 'orders' })).toEqual({})
  })

  it('goes on from the lake alone when the log lost the published cut', async () => {
    await grow(2)
    await w.append(random, 20)
    // The speed side is gone for long; somebody trims the log beyond the cut, but not beyond the lake.
    w.speed.lose()
    const ctx: BatchContext = w.other()
    expect(await catchUp(ctx, byHour)).toMatchObject({ outcome: 'nothing' })
    const archiver = (await import('../../batch-layer/archiver.ts')).archiverOf(ctx, 'orders')
    for (const p of [0, 1]) while ((await archiver.step(p, { force: true })) === 'archived');
    for (const p of [0, 1]) await w.log.trim('orders', p, (await w.log.range('orders', p)).endOffset)
    expect((await w.log.range('orders', 0)).startOffset).toBeGreaterThan((await w.published(byHour)).cut['0']!.offset)
    expect(await catchUp(ctx, byHour)).toMatchObject({ outcome: 'published' })
    const pointer = await w.published(byHour)
    expect(pointer.kind).toBe('catch-up')
    expect(await w.differing(byHour, pointer)).toBe(0)
  })
})

describe('upkeep', () => {
  it('deletes parts that nothing names, after the safety age, and nothing else', async () => {
    w.ctx.settings.batch.keepGenerations = 1
    w.ctx.settings.batch.vacuumAfterMs = HOUR
    await grow(5, w.views)
    const parts = () => w.objects.keys().filter((k) => /^views\/.*\.parquet$/.test(k) && !k.includes('/_'))
    const before = parts().length
    expect(await vacuumParts(w.ctx)).toMatchObject({ deleted: [] })
    w.now += HOUR - 1
    expect(await vacuumParts(w.ctx)).toMatchObject({ deleted: [] })
    w.now += 1
    const gone = await upkeep(w.ctx)
    expect(gone.deletedFiles).toBeGreaterThan(0)
    expect(parts().length).toBeLessThan(before)
    const named = new Set<string>()
    for (const view of w.views) {
      const pointer = await w.published(view)
      for (const f of [...pointer.files, ...pointer.kept.flatMap((k) => k.files)]) named.add(f.key)
      await exact(view)
      expect(await rollback(w.ctx, view, 4)).toMatchObject({ outcome: 'published' })
      await exact(view)
    }
    for (const key of named) expect(parts()).toContain(key)
  })

  it('leaves what the table of a view names, and takes a dropped version away whole', async () => {
    w.ctx.settings.batch.vacuumAfterMs = 0
    await grow(2, [byHour, byCountry])
    await grow(2, [byHour, byCountry])
    const table = await w.ctx.lake.mirrored(byHour)
    expect(table.sort()).toEqual((await w.published(byHour)).files.map((f) => f.key).sort())
    const of = (view: View) => w.objects.keys().filter((k) => k.startsWith(`views/${view.name}/${view.version}/`))
    await upkeep(w.ctx)
    expect(of(byCountry).length).toBeGreaterThan(0)
    await w.ctx.publications.drop(byCountry.name, byCountry.version)
    w.now += 1
    await upkeep(w.ctx)
    expect(of(byCountry)).toEqual([])
    expect(of(byHour)).toEqual(expect.arrayContaining(table))
    expect(of(byHour).some((k) => k.includes('/_delta_log/'))).toBe(true)
    await exact(byHour)
  })
})
