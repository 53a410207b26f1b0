/** Extend and publish: the chain of extends equals plain SQL, whoever races, crashes or stands in another history. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { extend } from '../../batch-layer/extend.ts'
import { SLOT_CELLS, slotsFor } from '../../batch-layer/parts.ts'
import { retireCovered } from '../../batch-layer/retire.ts'
import { verify } from '../../batch-layer/verify.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import { type Fate, faultyStore, InjectedFault } from '../support/memory-object-store.ts'
import { rng } from '../support/orders.ts'
import { byCountry, byHour, openWorld, total, type World } from './support.ts'

let w: World
beforeEach(async () => {
  w = await openWorld()
  await adoptViews(w.ctx, w.views)
})
afterEach(() => w.close())

const expectExact = async (): Promise<void> => {
  for (const view of w.views) {
    const pointer = await w.published(view)
    expect([view.name, await w.differing(view, pointer, pointer.cut)]).toEqual([view.name, 0])
  }
}

describe('extend', () => {
  it('a chain of extends equals plain SQL over the records below the cut; speed and batch agree', async () => {
    const random = rng(11)
    for (let round = 0; round < 5; round++) {
      await w.append(random, 15)
      await w.speedUp()
      // What comes after the speed side's position is not in the cut.
      await w.append(random, 3)
      for (const view of w.views) {
        const done = await extend(w.ctx, view)
        expect(done).toMatchObject({ outcome: 'published', generation: round + 1, reasons: [] })
        expect(done.verified).toMatchObject({ differing: 0, skipped: {} })
        expect(Object.keys(done.verified!.ranges).length).toBeGreaterThan(0)
      }
      await expectExact()
      const pointer = await w.published(byHour)
      expect(pointer.kept.map((k) => k.generation)).toEqual(
        Array.from({ length: round }, (_, i) => round - i).slice(0, 7),
      )
      expect(pointer).toMatchObject({ lineage: '1', kind: 'extend', engineVersion: w.engine.version })
      for (const [p, at] of Object.entries(pointer.cut))
        expect(at).toEqual(await w.ctx.history.positionAt('orders', Number(p), at.offset))
      expect(await w.ctx.lake.viewTable(byHour).generation()).toBe(round + 1)
    }
    expect(await verify(w.ctx, byHour)).toMatchObject({ differing: 0, skipped: {} })
    expect(w.alarms).toEqual([])
  })

  it('makes no generation when there is nothing new, and touches only the parts of the new records', async () => {
    const random = rng(12)
    await w.append(random, 60)
    await w.speedUp()
    await extend(w.ctx, byHour)
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'nothing', generation: 1 })
    const before = await w.published(byHour)
    w.now += 200 * 3_600_000
    await w.append(random, 4)
    await w.speedUp()
    const done = await extend(w.ctx, byHour)
    const after = await w.published(byHour)
    const carried = after.files.filter((f) => before.files.some((b) => b.key === f.key))
    expect(carried).toHaveLength(before.files.length)
    expect(done.parts).toBe(after.files.length - carried.length)
    await extend(w.ctx, total)
    await extend(w.ctx, byCountry)
    await expectExact()
  })

  it('throws a stale base away and begins anew; of racing runners each record is published once', async () => {
    const random = rng(13)
    await w.append(random, 30)
    await w.speedUp()
    const rivals = Array.from({ length: 4 }, () => w.other())
    for (let round = 0; round < 5; round++) {
      const done = await Promise.all(rivals.map((ctx) => extend(ctx, byHour)))
      expect(done.filter((d) => d.outcome === 'published')).toHaveLength(1)
      expect(done.filter((d) => d.outcome === 'nothing').length).toBe(3)
      await w.append(random, 5)
      await w.speedUp()
    }
    const pointer = await w.published(byHour)
    expect(pointer.generation).toBe(5)
    expect(await w.differing(byHour, pointer, pointer.cut)).toBe(0)
    // The losers' files are gone.
    const named = new Set([...pointer.files, ...pointer.kept.flatMap((k) => k.files)].map((f) => f.key))
    const parts = w.objects.keys().filter((k) => /^(views|parts)\/by_hour\/.*\.parquet$/.test(k) && !k.includes('/_'))
    expect(parts.filter((k) => !named.has(k))).toEqual([])
  })

  it('canary: publishing without a compare-and-set is seen', async () => {
    const random = rng(14)
    await w.append(random, 30)
    await w.speedUp()
    // Both runners read the same base; the slower one renumbers itself and publishes anyway.
    const careful = extend(w.ctx, byHour)
    const careless = w.other((ctx) => ({
      ...ctx,
      publications: {
        ...ctx.publications,
        current: () => Promise.resolve(null),
        publish: async (next) => {
          await careful
          const base = await w.ctx.publications.current(next.view, next.version)
          if (base === null || base === 'dropped') return ctx.publications.publish(next)
          return ctx.publications.publish({
            ...next,
            generation: base.pointer.generation + 1,
            baseHash: base.hash,
            files: [...base.pointer.files, ...next.files],
          })
        },
      },
    }))
    await Promise.all([careful, extend(careless, byHour)])
    const pointer = await w.published(byHour)
    expect(pointer.generation).toBe(2)
    expect(await w.differing(byHour, pointer, pointer.cut)).toBeGreaterThan(0)
  })

  it('survives a failing store at every call: a rerun gives the same cells', async () => {
    const random = rng(15)
    let faults = 0
    const decide = (): Fate => {
      if (random() > 0.05) return 'ok'
      faults++
      return random() < 0.5 ? 'before' : 'after'
    }
    for (let round = 0; round < 6; round++) {
      await w.append(random, 6)
      await w.speedUp()
      const shaky = w.other((c) => c, faultyStore(w.objects.open(), decide))
      for (const view of w.views)
        await extend(shaky, view).catch((error: unknown) => {
          if (!(error instanceof InjectedFault)) throw error
        })
    }
    expect(faults).toBeGreaterThan(8)
    for (const view of w.views) await extend(w.ctx, view)
    await expectExact()
  })

  it('honours a claim, and its own', async () => {
    await w.append(rng(16), 10)
    await w.speedUp()
    await w.ctx.publications.claim('by_hour', byHour.version, 'somebody', 60_000)
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'claimed' })
    expect(await extend(w.ctx, byHour, { holder: 'somebody' })).toMatchObject({ outcome: 'published' })
    w.now += 60_001
    await w.append(rng(17), 2)
    await w.speedUp()
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'published' })
  })

  it('throws a cut of another history away (rule 7), and one that the log does not reach', async () => {
    await w.append(rng(18), 10, 0)
    await w.speedUp()
    const speed = (change: (at: { offset: number; fingerprint: string }) => object): SpeedStore => ({
      ...w.speed,
      cut: async (key, version, desired) => {
        const got = await w.speed.cut(key, version, desired)
        return typeof got === 'string' ? got : { ...got, ...change(got) }
      },
    })
    const forged = w.other((c) => ({ ...c, speed: speed(() => ({ fingerprint: '00000000000000ff' })) }))
    expect(await extend(forged, byHour)).toMatchObject({ outcome: 'thrown-away' })
    const beyond = w.other((c) => ({ ...c, speed: speed((at) => ({ offset: at.offset + 5 })) }))
    expect(await extend(beyond, byHour)).toMatchObject({ outcome: 'thrown-away' })
    expect(w.alarms.map((a) => a.code)).toEqual(['WEIR_BATCH_THROWN_AWAY', 'WEIR_BATCH_THROWN_AWAY'])
    expect(await w.ctx.publications.current('by_hour', byHour.version)).toBeNull()
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'published' })
  })

  it('a speed store that went back never takes the cut back', async () => {
    await w.append(rng(19), 10)
    await w.speedUp()
    const early = w.speed.snapshot()
    await w.append(rng(20), 10)
    await w.speedUp()
    await extend(w.ctx, byHour)
    const before = await w.published(byHour)
    w.speed.restore(early)
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'nothing' })
    w.speed.lose()
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'nothing' })
    expect(await w.published(byHour)).toEqual(before)
    await w.append(rng(21), 4)
    await w.speedUp()
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'published' })
    const pointer = await w.published(byHour)
    expect(await w.differing(byHour, pointer)).toBe(0)
  })

  it('a partition that comes later enters through a publish of its own', async () => {
    await w.append(rng(22), 10)
    await w.speedUp()
    await extend(w.ctx, byHour)
    await w.log.create('orders', 3)
    expect(await extend(w.ctx, byHour)).toMatchObject({ outcome: 'published', generation: 2 })
    const pointer = await w.published(byHour)
    expect(pointer.cut['2']).toMatchObject({ offset: 0, fingerprint: '' })
    expect(await w.differing(byHour, pointer)).toBe(0)
  })
})

describe('verify', () => {
  it('counts and explains differing cells, and never takes unreadable state for equal', async () => {
    await w.append(rng(23), 30)
    await w.speedUp()
    const lying: BatchContext = w.other((c) => ({
      ...c,
      // The speed side lost a cell: its block says so with a digest that fits.
      speed: {
        ...w.speed,
        header: async (key) => {
          const header = await w.speed.header(key)
          return header && { ...header, views: { ...header.views } }
        },
      },
    }))
    expect((await verify(lying, byHour)).differing).toBe(0)
    w.speed.deleteBlocks(1)
    const damaged = await verify(w.ctx, byHour)
    const total = await verify(w.ctx, byCountry)
    const skipped = [...Object.values(damaged.skipped), ...Object.values(total.skipped)]
    expect(skipped.some((s) => s.includes('digest'))).toBe(true)
    const wrong = { ...byHour, states: byHour.states.map((s, i) => (i === 0 ? { ...s, partial: 'count(*) + 1' } : s)) }
    const found = await verify(w.ctx, wrong)
    const cells = found.differing
    expect(cells + Object.keys(found.skipped).length).toBeGreaterThan(0)
    if (cells > 0) {
      expect(found.cells[0]!.key).toHaveProperty('_bucket')
      expect(found.cells[0]!.left).not.toEqual(found.cells[0]!.right)
      expect(w.alarms.map((a) => a.code)).toContain('WEIR_BATCH_DRIFT')
    }
  })
})

describe('retire', () => {
  it('takes epochs only after their cut was published for the grace period', async () => {
    w.ctx.settings.batch.retireAfterMs = 10_000
    await w.append(rng(24), 20)
    await w.speedUp()
    expect(await retireCovered(w.ctx, byHour)).toBeNull()
    await extend(w.ctx, byHour)
    expect(await retireCovered(w.ctx, byHour)).toBeNull()
    const epochs = async () =>
      (await w.speed.header({ dataset: 'orders', partition: 0 }))!.views[byHour.version]!.epochs
    expect(await epochs()).toHaveLength(2)
    w.now += 10_000
    expect(await retireCovered(w.ctx, byHour)).not.toBeNull()
    expect(await epochs()).toHaveLength(1)
  })
})

describe('slots', () => {
  it('grow with the cells and never shrink', async () => {
    expect(slotsFor(byCountry, 10, 1)).toBe(1)
    expect(slotsFor(byCountry, SLOT_CELLS * 3, 1)).toBe(4)
    expect(slotsFor(byCountry, 10, 4)).toBe(4)
    expect(slotsFor(byHour, SLOT_CELLS * 3, 1)).toBe(1)
  })
})
