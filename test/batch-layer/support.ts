/**
 * A small Weir for the batch layer: a real log, a lake over memory (or a folder), a speed store with real workers, and an independent
 * reference: verdicts in plain JavaScript over what was appended, cells by SQL written by hand.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { closeArchivers } from '../../batch-layer/archiver.ts'
import { compareCells } from '../../batch-layer/compare.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { cellsOf } from '../../batch-layer/parts.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { cellTableColumns } from '../../model/cells.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import type { Pointer } from '../../model/ports/publications.ts'
import type { Cut } from '../../model/position.ts'
import { parseSettings } from '../../model/settings.ts'
import type { VersionInfo, Versions } from '../../model/versions.ts'
import type { View } from '../../model/view.ts'
import { openSpeedWorker, type SpeedWorker } from '../../speed-layer/worker.ts'
import { type MemoryObjects, memoryObjects } from '../support/memory-object-store.ts'
import { type MemorySpeedStore, openMemorySpeedStore } from '../support/memory-speed-store.ts'
import { below, judge, type Known, orders, type Rng, randomOrder, stateOf, viewOf } from '../support/orders.ts'

export const START = Date.UTC(2026, 10, 24, 20)
export const HOUR = 3_600_000
const WINDOW = 60_000

export const dataset = orders({ partitions: 2, dedupeWindowMs: WINDOW })

/** A view, and the SQL of its cells over a table `events` of counted events, written by hand. */
export type TestView = View & { reference: string }

const hour = {
  name: 'hour',
  grain: { interval: '01:00:00', us: 3_600_000_000n, months: null },
  sql: `time_bucket(INTERVAL '1 hour', "ts")`,
}
const count = stateOf(0, 'BIGINT', 'count(*)', 'coalesce(sum(@), 0)')
const sum = stateOf(1, 'DECIMAL(38,2)', 'sum("amount")', 'sum(@)')
const FIRST = 'STRUCT(p STRUCT(t TIMESTAMPTZ, p BIGINT, o BIGINT, i BIGINT), v BIGINT)'

export const byHour: TestView = viewOf({
  name: 'by_hour',
  version: '1111111111111111',
  bucket: hour,
  dimensions: [{ name: 'country', type: 'VARCHAR', sql: '"country"' }],
  states: [
    count,
    sum,
    stateOf(2, 'BIGINT', 'max("n")', 'max(@)'),
    stateOf(3, 'HUGEINT', 'sum("n"::HUGEINT)', 'sum(@)'),
  ],
  reference: `SELECT date_trunc('hour', ts) AS _bucket, country, count(*) AS _s0, sum(amount) AS _s1, max(n) AS _s2, sum(n)::HUGEINT AS _s3 FROM events GROUP BY 1, 2`,
})
/** The same view, changed: only paid ones. */
export const byHourChanged: TestView = viewOf({
  ...byHour,
  version: '2222222222222222',
  sql: 'SELECT changed',
  where: '("amount" > 5)',
  reference: byHour.reference.replace('FROM events', 'FROM events WHERE amount > 5'),
})
export const total: TestView = viewOf({
  name: 'total',
  version: '3333333333333333',
  states: [count, sum],
  reference: 'SELECT count(*) AS _s0, sum(amount) AS _s1 FROM events HAVING count(*) > 0',
})
/** No bucket: slots; and a state that names a position. */
export const byCountry: TestView = viewOf({
  name: 'by_country',
  version: '4444444444444444',
  dimensions: [{ name: 'land', type: 'VARCHAR', sql: 'upper("country")' }],
  needsPosition: true,
  states: [
    count,
    stateOf(
      1,
      FIRST,
      'min(struct_pack(p := struct_pack(t := "ts", p := _partition, o := _offset, i := _index), v := "n"))',
      'min(@)',
    ),
  ],
  reference: `SELECT upper(country) AS land, count(*) AS _s0, min({p: {t: ts, p: _partition, o: _offset, i: _index}, v: n}) AS _s1 FROM events GROUP BY 1`,
})

const randomEvent = (random: Rng, now: number) =>
  randomOrder(random, now, { ids: 600, lateMs: 30 * HOUR, earlyMs: 90 * HOUR })

export type World = {
  ctx: BatchContext
  engine: Engine
  log: EventLog
  speed: MemorySpeedStore
  objects: MemoryObjects
  store: ObjectStore
  known: Known[]
  alarms: { code?: string; message?: string }[]
  now: number
  views: TestView[]
  append(random: Rng, records: number, partition?: number): Promise<void>
  /** Another process on the same stores: its own lake, publications, archivers. */
  other(change?: (ctx: BatchContext, store: ObjectStore) => BatchContext, store?: ObjectStore): BatchContext
  /** Lets the speed workers apply everything there is. */
  speedUp(): Promise<void>
  /** Expected cells of a view over records below the cut (default: all appended), as a table of the session. */
  differing(view: TestView, pointer: Pointer, cut?: Cut): Promise<number>
  published(view: View): Promise<Pointer>
  counts(partition: number, below?: number): { counted: number; duplicate: number; dead: number }
  close(): Promise<void>
}

export const openWorld = async (
  options: { store?: ObjectStore; partitions?: number; views?: TestView[] } = {},
): Promise<World> => {
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const folder = await mkdtemp(join(base, 'weir-batch-'))
  const engine = await openEngine({ tempDir: folder })
  const objects = await memoryObjects({ now: () => world.now })
  const store = options.store ?? objects.open()
  const log = await openLmdbLog({ folder: join(folder, 'log'), now: () => world.now, blockBytes: 2_000 })
  const speed = openMemorySpeedStore()
  const partitions = options.partitions ?? 2
  await log.create('orders', partitions)
  const contexts: BatchContext[] = []
  const workers = new Map<number, SpeedWorker>()

  const versionsOf = (publications: BatchContext['publications']): Versions => {
    let list: VersionInfo[] = []
    return {
      refresh: async () => {
        const next: VersionInfo[] = []
        for (const { view: name, version, dropped } of await publications.versions()) {
          const compiled = dropped ? null : (world.views.find((v) => v.version === version) ?? null)
          const active = (await publications.active(name))?.version === version
          const published = (await publications.current(name, version)) !== null
          next.push({
            view: name,
            version,
            compiled,
            state: dropped ? 'dropped' : active ? 'active' : published ? 'kept' : 'building',
          })
        }
        list = next
      },
      all: () => list,
      fed: () => list.flatMap((v) => (v.compiled && (v.state === 'active' || v.state === 'kept') ? [v.compiled] : [])),
      active: (name) => list.find((v) => v.view === name && v.state === 'active')?.compiled ?? null,
      find: (name, version) => list.find((v) => v.view === name && v.version === version)?.compiled ?? null,
    }
  }

  const other: World['other'] = (change = (c) => c, own = options.store ?? objects.open()) => {
    const now = (): number => world.now
    const lake = openLake({ store: own, engine, now, checkpointEvery: 5 })
    const publications = openPublications(own, { now })
    const made = change(
      {
        log,
        speed,
        publications,
        history: openHistory(lake, [dataset]),
        lake,
        engine,
        datasets: [dataset],
        versions: versionsOf(publications),
        settings,
        now,
        alarm: (error) => world.alarms.push(error as World['alarms'][number]),
      },
      own,
    )
    contexts.push(made)
    return made
  }
  const settings = parseSettings('schedules: { extend: off, recompute: off, compact: off }')
  settings.archive.maxBytes = 4_000
  settings.batch.retireAfterMs = 0

  const world: World = {
    engine,
    log,
    speed,
    objects,
    store,
    known: [],
    alarms: [],
    now: START,
    views: options.views ?? [byHour, total, byCountry],
    ctx: undefined as unknown as BatchContext,
    other,
    append: async (random, records, only) => {
      for (let i = 0; i < records; i++) {
        world.now += below(random, 4_000) - (random() < 0.1 ? 6_000 : 0)
        const partition = only ?? below(random, partitions)
        const mine = world.known.filter((k) => k.partition === partition)
        const previous = mine[below(random, mine.length)]
        const again = previous !== undefined && random() < 0.08
        const events = again
          ? previous.events
          : Array.from({ length: 1 + below(random, 8) }, () => randomEvent(random, world.now))
        const bytes = Buffer.from(events.map((e) => `${e.line}\n`).join(''))
        const recordId = again
          ? previous.record.recordId
          : createHash('md5').update(`${world.known.length}/${random()}`).digest('hex')
        const record = { recordId, bytes, events: events.length }
        const to = await log.append('orders', partition, [record])
        const effectiveMs = Math.max(mine.at(-1)?.effectiveMs ?? 0, world.now)
        world.known.push({ record, partition, offset: to.offset - 1, events, effectiveMs, verdicts: [] })
      }
      judge(world.known, WINDOW)
    },
    speedUp: async () => {
      await world.ctx.versions.refresh()
      for (let partition = 0; partition < partitions; partition++) {
        const worker =
          workers.get(partition) ??
          (await openSpeedWorker({
            log,
            store: speed,
            history: world.ctx.history,
            publications: world.ctx.publications,
            engine,
            dataset,
            partition,
            versions: world.ctx.versions,
            settings: { ...settings.speed, waitMs: 1 },
            alarm: (error) => world.alarms.push(error),
            lookEveryMs: 0,
            verifyEveryMs: 0,
          }))
        workers.set(partition, worker)
        const { endOffset } = await log.range('orders', partition)
        for (let steps = 0; ; steps++) {
          const did = await worker.step()
          const header = await speed.header({ dataset: 'orders', partition })
          if (did.kind === 'stopped') throw new Error('the speed worker stopped')
          if (header?.position.offset === endOffset && did.kind === 'idle') break
          if (steps > 1_000) throw new Error('the speed worker does not come to the end')
        }
      }
    },
    differing: async (v, pointer, cut) => {
      const file = join(engine.scratchDir, `known-${crypto.randomUUID()}.ndjson`)
      const lines = world.known.flatMap((k) =>
        k.offset >= (cut === undefined ? Number.POSITIVE_INFINITY : (cut[String(k.partition)]?.offset ?? 0))
          ? []
          : k.events.flatMap((e, index) =>
              k.verdicts[index] === 'counted'
                ? [JSON.stringify({ ...e.json, _partition: k.partition, _offset: k.offset, _index: index })]
                : [],
            ),
      )
      await writeFile(file, `${lines.join('\n')}\n`)
      const session = await engine.session()
      try {
        await session.run(
          `CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM read_json('${file}', format = 'newline_delimited', columns = {id: 'VARCHAR', ts: 'TIMESTAMPTZ', country: 'VARCHAR', amount: 'DECIMAL(18,2)', n: 'BIGINT', _partition: 'BIGINT', _offset: 'BIGINT', _index: 'BIGINT'})`,
        )
        await session.run(`CREATE TEMP TABLE expected (${cellTableColumns(v)})`)
        await session.run(`INSERT INTO expected BY NAME ${v.reference}`)
        const cells = await cellsOf(objects.open(), v, pointer.files)
        return (await compareCells(session, v, 'expected', cells)).differing
      } finally {
        session.close()
        await rm(file)
      }
    },
    published: async (v) => {
      const found = await world.ctx.publications.current(v.name, v.version)
      if (found === null || found === 'dropped') throw new Error(`nothing is published for ${v.name}: ${found}`)
      return found.pointer
    },
    counts: (partition, to = Number.POSITIVE_INFINITY) => {
      const out = { counted: 0, duplicate: 0, dead: 0 }
      for (const k of world.known)
        if (k.partition === partition && k.offset < to) for (const verdict of k.verdicts) out[verdict]++
      return out
    },
    close: async () => {
      for (const worker of workers.values()) await worker.close()
      for (const c of contexts) await closeArchivers(c)
      await log.close()
      await speed.close()
      await engine.close()
      await objects.remove()
      await rm(folder, { recursive: true, force: true })
    },
  }
  world.ctx = other()
  return world
}
