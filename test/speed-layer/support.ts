/**
 * A partition with a real log and store, pointers and versions that the test holds in its hands, and an independent
 * reference: verdicts in plain JavaScript over what was appended, cells by plain SQL over the counted events.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { cellColumns, cellTableColumns, partialSql, unpackSql } from '../../model/cells.ts'
import { blockHash, digestOf } from '../../model/digest.ts'
import { ident } from '../../model/ident.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { History } from '../../model/ports/history.ts'
import type { Publications, Published } from '../../model/ports/publications.ts'
import type { Header, SpeedStore } from '../../model/ports/speed-store.ts'
import { genesis, type Position } from '../../model/position.ts'
import { parseSettings, type Settings } from '../../model/settings.ts'
import type { Versions } from '../../model/versions.ts'
import type { View } from '../../model/view.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { openSpeedWorker, type SpeedWorker, type SpeedWorkerOptions } from '../../speed-layer/worker.ts'
import type { MemoryLog } from '../support/memory-log.ts'
import { below, judge, type Known, orders, type Rng, randomOrder, stateOf, viewOf } from '../support/orders.ts'

export const START = Date.UTC(2026, 10, 24)
export const WINDOW = 5_000

export const dataset = orders({ partitions: 1, dedupeWindowMs: WINDOW })

const grain = (us: bigint, interval: string) => ({ interval, us, months: null })
const minute = {
  name: 'minute',
  grain: grain(60_000_000n, '00:01:00'),
  sql: `time_bucket(INTERVAL '1 minute', "ts")`,
}

/** By minute and country: light states. */
export const byCountry = viewOf({
  name: 'by_country',
  version: '1111111111111111',
  bucket: minute,
  dimensions: [{ name: 'country', type: 'VARCHAR', sql: '"country"' }],
  states: [
    stateOf(0, 'BIGINT', 'count(*)', 'coalesce(sum(@), 0)'),
    stateOf(1, 'DECIMAL(38,2)', `sum("amount")`, 'sum(@)'),
    stateOf(2, 'BIGINT', 'max("n")', 'max(@)'),
  ],
})
/** One cell, with a WHERE. */
export const total = viewOf({
  name: 'total',
  version: '2222222222222222',
  where: '("amount" > 5)',
  states: [
    stateOf(0, 'BIGINT', 'count(*)', 'coalesce(sum(@), 0)'),
    stateOf(1, 'DECIMAL(38,2)', `sum("amount")`, 'sum(@)'),
  ],
})
/** By country (in capitals, as a rolled-up NULL's neighbour), position needed, another WHERE. */
export const first = viewOf({
  name: 'first',
  version: '3333333333333333',
  dimensions: [{ name: 'Land', type: 'VARCHAR', sql: 'upper("country")' }],
  where: '("n" IS NOT NULL)',
  needsPosition: true,
  states: [
    stateOf(
      0,
      'STRUCT(p STRUCT(t TIMESTAMPTZ, p BIGINT, o BIGINT, i BIGINT), v BIGINT)',
      'min(struct_pack(p := struct_pack(t := "ts", p := _partition, o := _offset, i := _index), v := "n"))',
      'min(@)',
    ),
  ],
})
/** A heavy state: the set of ids. */
export const ids = viewOf({
  name: 'ids',
  version: '4444444444444444',
  bucket: minute,
  states: [
    stateOf(0, 'VARCHAR[]', 'list_sort(list_distinct(list("id")))', 'list_sort(list_distinct(flatten(list(@))))', true),
    stateOf(1, 'BIGINT', 'count(*)', 'coalesce(sum(@), 0)'),
  ],
})
export const allViews = [byCountry, total, first, ids]

export const randomEvent = (random: Rng, now: number) =>
  randomOrder(random, now, { ids: 400, lateMs: 240_000, earlyMs: 86_400_000 })

const readReference = (path: string): string =>
  `SELECT * FROM read_json('${path}', format = 'newline_delimited', records = true, columns = {${[
    ...dataset.columns,
    { name: '_partition', type: 'BIGINT' },
    { name: '_offset', type: 'BIGINT' },
    { name: '_index', type: 'BIGINT' },
    { name: '_append_time', type: 'TIMESTAMPTZ' },
  ]
    .map((c) => `${ident(c.name)}: '${c.type}'`)
    .join(', ')}})`

export type World = {
  folder: string
  engine: Engine
  log: EventLog
  store: SpeedStore
  known: Known[]
  now: number
  fed: View[]
  dropped: { view: string; version: string }[]
  cuts: Map<string, Position>
  archivedTo: number
  alarms: { code: string }[]
  history: History
  append(random: Rng, records: number): Promise<void>
  /** Position after each record of the log's present history, genesis first. */
  positions: Position[]
  /** Cuts off the tail of the (memory) log, and of the reference. */
  truncate(offset: number): void
  /** Publishes a version's cut: the lake reaches it, the pointer names it. */
  publish(view: View, offset: number): void
  worker(options?: Partial<SpeedWorkerOptions>): Promise<SpeedWorker>
  settings: Settings['speed']
  close(): Promise<void>
}

export const openWorld = async (
  given: { log?: MemoryLog; store?: SpeedStore; engine?: Engine } = {},
): Promise<World> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-speed-'))
  const engine = given.engine ?? (await openEngine({ tempDir: folder }))
  const log = given.log ?? (await openLmdbLog({ folder: join(folder, 'log'), now: () => world.now }))
  const store = given.store ?? (await openLmdbSpeedStore({ folder: join(folder, 'speed') }))
  await log.create('orders', 1)

  const verdictsOf = (): void => judge(world.known, WINDOW)

  const history: History = {
    archived: async () => {
      const position = world.archivedTo === 0 ? null : await history.positionAt('orders', 0, world.archivedTo)
      return position && { position, ...(await history.countsBelow('orders', 0, world.archivedTo)) }
    },
    positionAt: async (_d, _p, offset) => world.positions[offset] ?? null,
    countsBelow: async (_d, _p, offset) => countsBelow(world, offset),
    window: async (_d, _p, offset, sinceMs) => {
      const events = new Map<string, number>()
      const records = new Map<string, number>()
      for (const k of world.known.slice(0, offset)) {
        if (k.effectiveMs <= sinceMs || k.events.every((e) => e.dead)) continue
        records.set(k.record.recordId, k.effectiveMs)
        for (const e of k.events) if (!e.dead) events.set(e.json.id as string, k.effectiveMs)
      }
      const list = (m: Map<string, number>) => [...m].map(([id, effectiveMs]) => ({ id, effectiveMs }))
      return { events: list(events), records: list(records) }
    },
  }
  const publications = {
    current: async (_view: string, version: string) => {
      if (world.dropped.some((d) => d.version === version)) return 'dropped'
      const cut = world.cuts.get(version)
      return cut === undefined ? null : ({ pointer: { cut: { '0': cut } }, hash: '' } as unknown as Published)
    },
  } as Publications
  const versions = {
    refresh: async () => undefined,
    all: () => world.dropped.map((d) => ({ ...d, state: 'dropped', compiled: null })),
    fed: () => world.fed,
  } as unknown as Versions

  const { logId } = await log.range('orders', 0)
  const world: World = {
    folder,
    engine,
    log,
    store,
    known: [],
    positions: [genesis(logId)],
    now: START,
    fed: [...allViews],
    dropped: [],
    cuts: new Map(),
    archivedTo: 0,
    alarms: [],
    history,
    settings: { ...parseSettings('').speed, waitMs: 1 },
    append: async (random, count) => {
      for (let i = 0; i < count; i++) {
        world.now += below(random, 400) - (random() < 0.1 ? 2_000 : 0)
        const previous = world.known[below(random, world.known.length)]
        const again = previous !== undefined && random() < 0.08
        const events = again
          ? previous.events
          : Array.from({ length: 1 + below(random, 12) }, () => randomEvent(random, world.now))
        const bytes = Buffer.from(events.map((e) => `${e.line}\n`).join(''))
        const recordId = again
          ? previous.record.recordId
          : createHash('md5').update(`${world.known.length}/${random()}`).digest('hex')
        const record = { recordId, bytes, events: events.length }
        if (given.log) given.log.clock.now = world.now
        const position = await log.append('orders', 0, [record])
        const effectiveMs = Math.max(world.known.at(-1)?.effectiveMs ?? 0, world.now)
        world.known.push({ record, partition: 0, offset: world.known.length, events, effectiveMs, verdicts: [] })
        world.positions.push(position)
      }
      verdictsOf()
    },
    truncate: (offset) => {
      given.log!.truncate('orders', 0, offset)
      world.known.length = offset
      world.positions.length = offset + 1
      verdictsOf()
    },
    publish: (view, offset) => {
      world.archivedTo = Math.max(world.archivedTo, offset)
      world.cuts.set(view.version, world.positions[offset]!)
    },
    worker: (options = {}) =>
      openSpeedWorker({
        log,
        store,
        history,
        publications,
        engine,
        dataset,
        partition: 0,
        versions,
        settings: world.settings,
        alarm: (error) => world.alarms.push(error),
        lookEveryMs: 0,
        verifyEveryMs: 0,
        ...options,
      }),
    close: async () => {
      await log.close()
      await store.close()
      if (given.engine === undefined) await engine.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
  return world
}

/** The reference's counters and watermark over all records below an offset. */
export const countsBelow = (world: Pick<World, 'known'>, offset: number) => {
  const counts = { counted: 0, duplicate: 0, dead: 0 }
  let watermark: number | null = null
  for (const k of world.known.slice(0, offset)) {
    for (const [i, verdict] of k.verdicts.entries()) {
      counts[verdict]++
      if (verdict !== 'counted') continue
      const t = Date.parse(k.events[i]!.json.ts as string)
      if (t <= k.effectiveMs && (watermark === null || t > watermark)) watermark = t
    }
  }
  return { ...counts, watermarkUs: watermark === null ? null : String(BigInt(watermark) * 1000n) }
}

const cellText = `to_json(c)::VARCHAR`
/** Cells that the view must have over [from, to), as sorted JSON texts. */
export const referenceCells = async (world: World, view: View, from: number, to: number): Promise<string[]> => {
  const lines: string[] = []
  for (const [i, k] of world.known.slice(from, to).entries()) {
    const offset = from + i
    for (const [index, verdict] of k.verdicts.entries()) {
      if (verdict !== 'counted') continue
      const time = new Date(k.effectiveMs).toISOString()
      const where = { _partition: 0, _offset: offset, _index: index, _append_time: time }
      lines.push(`${JSON.stringify({ ...k.events[index]!.json, ...where })}\n`)
    }
  }
  const path = join(world.folder, 'reference.ndjson')
  await writeFile(path, lines.join(''))
  return world.engine.withSession(async (session) => {
    if (lines.length === 0) return []
    await session.run(`CREATE TEMP TABLE reference AS ${readReference(path)}`)
    const rows = await session.rows<{ t: string }>(
      `SELECT ${cellText} AS t FROM (${partialSql(view, 'reference')}) c ORDER BY 1`,
    )
    return rows.map((r) => r.t)
  })
}

/** Cells of an epoch as stored, as sorted JSON texts; throws when the blocks are not those of the digest. */
export const storedCells = async (
  world: World,
  view: View,
  epoch: Header['views'][string]['epochs'][number],
): Promise<string[]> => {
  const blocks = await world.store.blocks({ dataset: 'orders', partition: 0 }, view.version, epoch.from)
  const digest = digestOf(blocks.map((b) => blockHash(b.id, b.bytes)))
  if (digest !== epoch.digest || blocks.length !== epoch.blocks) throw new Error('blocks do not fit the digest')
  if (blocks.length === 0) return []
  const path = join(world.folder, 'stored.ndjson')
  await writeFile(path, Buffer.concat(blocks.map((b) => b.bytes)))
  return world.engine.withSession(async (session) => {
    await session.run(`CREATE TEMP TABLE stored (${cellTableColumns(view)})`)
    await session.run(
      `INSERT INTO stored SELECT ${cellColumns(view).map((c) => ident(c.name))} FROM (${unpackSql(view, path)})`,
    )
    const rows = await session.rows<{ t: string }>(`SELECT ${cellText} AS t FROM stored c ORDER BY 1`)
    return rows.map((r) => r.t)
  })
}

/** Differences between the stored state and the reference; empty when all is right. */
export const differences = async (world: World): Promise<string[]> => {
  const header = await world.store.header({ dataset: 'orders', partition: 0 })
  if (header === null) return ['no header']
  const wrong: string[] = []
  const { counted, duplicate, dead, watermarkUs, position } = header
  const counts = JSON.stringify({ counted, duplicate, dead, watermarkUs })
  const expected = JSON.stringify(countsBelow(world, position.offset))
  if (counts !== expected) wrong.push(`counters ${counts}, reference ${expected}`)
  for (const [version, { epochs }] of Object.entries(header.views)) {
    const view = [...world.fed, ...allViews].find((v) => v.version === version)!
    let at = epochs[0]!.from.offset
    for (const epoch of epochs) {
      if (epoch.from.offset !== at) wrong.push(`${view.name}: a hole before ${epoch.from.offset}`)
      at = epoch.to.offset
      const stored = await storedCells(world, view, epoch).catch((error: Error) => [error.message])
      const reference = await referenceCells(world, view, epoch.from.offset, epoch.to.offset)
      if (JSON.stringify(stored) !== JSON.stringify(reference))
        wrong.push(
          `${view.name} [${epoch.from.offset}, ${at}): stored ${stored.slice(0, 3).join()} reference ${reference.slice(0, 3).join()}`,
        )
    }
    if (at !== position.offset) wrong.push(`${view.name}: ends at ${at}, position ${position.offset}`)
  }
  return wrong
}

/** Steps until the worker is idle at the end of the log with every fed version in the header. */
export const settle = async (world: World, worker: SpeedWorker, steps = 500): Promise<void> => {
  for (let i = 0; i < steps; i++) {
    const { kind } = await worker.step()
    const header = await world.store.header({ dataset: 'orders', partition: 0 })
    const fed = world.fed.every((v) => header?.views[v.version] !== undefined)
    if (kind === 'idle' && fed && header?.position.offset === world.known.length) return
  }
  throw new Error(`not settled: ${JSON.stringify(worker.state())}`)
}
