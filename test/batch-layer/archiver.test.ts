/** The archiver: every record once, with its verdict, whatever fails and however many archivers there are. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { archiverOf, openArchiver } from '../../batch-layer/archiver.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import { type Fate, faultyStore, InjectedFault, type StoreCall } from '../support/memory-object-store.ts'
import { below, rng } from '../support/orders.ts'
import { dataset, openWorld, type World } from './support.ts'

let w: World
beforeEach(async () => {
  w = await openWorld()
})
afterEach(() => w.close())

/** Everything in the lake, as text, in order of position. */
const lakeRows = (ctx: BatchContext) =>
  ctx.engine.withSession(async (session) => {
    const below = await ctx.lake.events(dataset).archivedCut()
    const scan = await ctx.lake.scan(dataset, { below, duplicates: true })
    return session.rows<{ at: string; id: string; dup: boolean }>(
      `SELECT _partition || '/' || _offset || '/' || _index AS at, id, _duplicate AS dup FROM ${scan.sql} ORDER BY _partition, _offset, _index`,
    )
  })

const expectedRows = (world: World) =>
  world.known
    .flatMap((k) =>
      k.events.flatMap((e, i) =>
        k.verdicts[i] === 'dead'
          ? []
          : [{ p: k.partition, o: k.offset, i, id: e.json.id as string, dup: k.verdicts[i] === 'duplicate' }],
      ),
    )
    .sort((a, b) => a.p - b.p || a.o - b.o || a.i - b.i)
    .map(({ p, o, i, id, dup }) => ({ at: `${p}/${o}/${i}`, id, dup }))

const expectAll = async (ctx: BatchContext): Promise<void> => {
  expect(await lakeRows(ctx)).toEqual(expectedRows(w))
  for (const partition of [0, 1]) {
    const { endOffset } = await w.log.range('orders', partition)
    const archived = await ctx.history.archived('orders', partition)
    if (endOffset === 0) continue
    expect(archived).toMatchObject({
      ...w.counts(partition),
      position: (await w.log.positionAt('orders', partition, endOffset))!,
    })
    expect(await ctx.lake.dead(dataset).count(partition)).toBe(w.counts(partition).dead)
  }
}

const drain = async (ctx: BatchContext): Promise<void> => {
  for (const partition of [0, 1])
    while ((await archiverOf(ctx, 'orders').step(partition, { force: true })) === 'archived');
}

describe('archive', () => {
  it('keeps every record once, with verdict, counters, dead letters and positions', async () => {
    const random = rng(1)
    for (let round = 0; round < 4; round++) {
      await w.append(random, 25)
      await drain(w.ctx)
    }
    expect(w.counts(0).duplicate).toBeGreaterThan(5)
    expect(w.counts(0).dead).toBeGreaterThan(0)
    await expectAll(w.ctx)
    await expectAll(w.other())
    const [letter] = await w.ctx.lake.dead(dataset).list({ limit: 1 })
    const known = w.known.find((k) => k.partition === letter!.partition && k.offset === letter!.offset)!
    expect(Buffer.from(letter!.raw).toString()).toBe(known.events[letter!.index]!.line)
    const [extra] = await w.engine.withSession(async (s) => {
      const files = await w.ctx.lake.events(dataset).files()
      const paths: string[] = []
      for (const f of files) paths.push(await w.store.localFile(f.key, { size: f.size, sha256: f.sha256! }))
      return s.rows<{ n: string }>(
        `SELECT count(*) AS n FROM read_parquet([${paths.map((p) => `'${p}'`).join(', ')}]) WHERE _extra = '{"colour":"東"}'`,
      )
    })
    const coloured = w.known.flatMap((k) => k.events.filter((e) => e.json.colour !== undefined))
    expect(Number(extra!.n)).toBe(coloured.length)
  })

  it('goes on in a new process: the map of ids is built again, from the lake and the log', async () => {
    const random = rng(2)
    for (let round = 0; round < 6; round++) {
      await w.append(random, 12)
      await drain(w.other())
    }
    await expectAll(w.ctx)
  })

  it('waits for size or age, unless it is forced or asked for a cut', async () => {
    const archiver = archiverOf(w.ctx, 'orders')
    const random = rng(3)
    w.ctx.settings.archive.maxBytes = 1_000_000
    await w.append(random, 10, 0)
    expect(await archiver.step(0)).toBe('nothing')
    expect(archiver.state(0)).toMatchObject({ pendingRecords: 10, archived: 0 })
    expect(await archiver.step(0, { upTo: 4 })).toBe('archived')
    expect((await w.ctx.history.archived('orders', 0))!.position).toEqual(await w.log.positionAt('orders', 0, 4))
    expect(await archiver.step(0, { upTo: 4 })).toBe('nothing')
    expect(await archiver.step(0)).toBe('nothing')
    w.now += w.ctx.settings.archive.maxAgeMs
    expect(await archiver.step(0)).toBe('archived')
    expect(archiver.state(0)).toMatchObject({ pendingRecords: 0, archived: 10 })
    w.ctx.settings.archive.maxBytes = 200
    await w.append(random, 10, 0)
    expect(await archiver.step(0)).toBe('archived')
    await drain(w.ctx)
    await drain(w.ctx)
    await expectAll(w.ctx)
  })

  it('advances over an empty range', async () => {
    // A log with a hole at its end, as transaction markers leave: the position moves, no record does.
    await w.append(rng(4), 5, 0)
    const holed: EventLog = {
      ...w.log,
      read: async (d, p, from, limits) => {
        if (p === 0 && from.offset >= 7) return { kind: 'records', records: [], to: from, logEndOffset: 7 }
        const read = await w.log.read(d, p, from, limits)
        if (p !== 0 || read.kind !== 'records' || read.records.length > 0) return read
        return { ...read, to: { ...read.to, offset: 7 }, logEndOffset: 7 }
      },
    }
    const ctx = w.other((c) => ({ ...c, log: holed }))
    await drain(ctx)
    expect((await ctx.history.archived('orders', 0))!.position.offset).toBe(7)
  })
})

describe('faults', () => {
  it('archives exactly once under crashes and lost replies at every call, and two archivers', async () => {
    const random = rng(5)
    let faults = 0
    const calls = new Set<string>()
    const decide = (call: StoreCall, key: string): Fate => {
      if (random() > 0.06) return 'ok'
      faults++
      calls.add(`${call} ${key.replace(/[0-9a-f-]{20,}|\d+/g, '')}`)
      return random() < 0.5 ? 'before' : 'after'
    }
    const shaky = () => w.other((c) => c, faultyStore(w.objects.open(), decide))
    let [a, b] = [shaky(), shaky()]
    for (let round = 0; round < 25; round++) {
      await w.append(random, 4)
      const partition = below(random, 2)
      const step = async (ctx: BatchContext): Promise<boolean> => {
        try {
          await archiverOf(ctx, 'orders').step(partition, { force: true })
          return true
        } catch (error) {
          if (!(error instanceof InjectedFault)) throw error
          return false
        }
      }
      const [first, second] = await Promise.all([step(a), step(b)])
      // Sometimes the one that failed dies; sometimes it goes on with what it has in memory.
      if (!first && random() < 0.5) a = shaky()
      if (!second && random() < 0.5) b = shaky()
    }
    expect(faults).toBeGreaterThan(15)
    expect(calls.size).toBeGreaterThan(4)
    await drain(w.ctx)
    await expectAll(w.ctx)
  })

  it('canary: an archiver whose commit compares nothing is seen', async () => {
    const random = rng(6)
    // Both have read the lake's end before either commits; then one commits after the other.
    let arrived = 0
    let [open, finish] = [(): void => undefined, (): void => undefined]
    let [both, first] = [Promise.resolve(), Promise.resolve()]
    const careless = () =>
      w.other((ctx) => {
        const events = ctx.lake.events(dataset)
        const loose = {
          ...events,
          append: async (a: Parameters<typeof events.append>[0]) => {
            const isFirst = ++arrived === 1
            if (isFirst) await both
            else {
              open()
              await first
            }
            try {
              const now = await events.archived(a.partition)
              if (now === null) return await events.append(a)
              const to = { ...a.to, offset: now.position.offset + (a.to.offset - a.from.offset) }
              return await events.append({ ...a, from: now.position, to })
            } finally {
              if (isFirst) finish()
            }
          },
        }
        return { ...ctx, lake: { ...ctx.lake, events: () => loose } }
      })
    const [a, b] = [careless(), careless()]
    let caught = 0
    for (let round = 0; round < 10; round++) {
      await w.append(random, 3, 0)
      arrived = 0
      both = new Promise<void>((resolve) => {
        open = resolve
      })
      first = new Promise<void>((resolve) => {
        finish = resolve
      })
      const done = await Promise.allSettled([
        openArchiver(a, dataset).step(0, { force: true }),
        openArchiver(b, dataset).step(0, { force: true }),
      ])
      caught += done.filter((d) => d.status === 'rejected').length
    }
    const same = JSON.stringify(await lakeRows(w.ctx)) === JSON.stringify(expectedRows(w))
    expect({ same, caught: caught > 0 }).not.toEqual({ same: true, caught: false })
  })

  it('stops with an alarm on another log, and goes on when the old one is back', async () => {
    await w.append(rng(7), 10, 0)
    await drain(w.ctx)
    const position = (await w.ctx.history.archived('orders', 0))!.position
    for (const kind of ['replaced', 'beyond-end', 'below-start'] as const) {
      const alarms = w.alarms.length
      const bad: EventLog = {
        ...w.log,
        read: async () =>
          kind === 'replaced'
            ? { kind }
            : kind === 'beyond-end'
              ? { kind, endOffset: 1 }
              : { kind, startOffset: 1_000 },
      }
      const log = { ...w.log }
      const ctx = w.other((c) => ({ ...c, log }))
      const archiver = archiverOf(ctx, 'orders')
      log.read = bad.read
      expect(await archiver.step(0, { force: true })).toBe('stopped')
      expect(await archiver.step(0, { force: true })).toBe('stopped')
      expect(archiver.state(0).stopped).toMatchObject({ code: 'WEIR_BATCH_ARCHIVER_STOPPED', got: kind })
      expect(w.alarms.length).toBe(alarms + 1)
      expect((await ctx.history.archived('orders', 0))!.position).toEqual(position)
      log.read = w.log.read
      await w.append(rng(8), 2, 0)
      expect(await archiver.step(0, { force: true })).toBe('archived')
      expect(archiver.state(0).stopped).toBeNull()
      Object.assign(position, (await ctx.history.archived('orders', 0))!.position)
    }
    await drain(w.ctx)
    await expectAll(w.ctx)
  })
})
