/**
 * A small Weir for the serving layer: real log, real speed store and workers, real lake, real publications; and the rows that
 * plain DuckDB gives for the events that were appended.
 */

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { closeArchivers } from '../../batch-layer/archiver.ts'
import type { BatchContext } from '../../batch-layer/context.ts'
import { extend } from '../../batch-layer/extend.ts'
import { retireCovered } from '../../batch-layer/retire.ts'
import { random as openRandom, type Random } from '../../cli/random.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { compileView } from '../../model/compile/compile.ts'
import type { Dataset } from '../../model/dataset.ts'
import { WeirError } from '../../model/errors.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { SpeedStore } from '../../model/ports/speed-store.ts'
import type { Position } from '../../model/position.ts'
import { parseSettings, type Settings } from '../../model/settings.ts'
import { encodeToken } from '../../model/token.ts'
import { openVersions } from '../../model/versions.ts'
import type { View } from '../../model/view.ts'
import type { ServingContext } from '../../serving-layer/context.ts'
import { openServing, type Serving } from '../../serving-layer/serving.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'
import { openSpeedWorker, type SpeedWorker } from '../../speed-layer/worker.ts'

export const START = Date.UTC(2026, 10, 24, 10, 20, 30)
export const HOUR = 3_600_000

export const sales: Dataset = {
  name: 'sales',
  columns: [
    { name: 'id', type: 'VARCHAR', required: true },
    { name: 'ts', type: 'TIMESTAMPTZ', required: true },
    { name: 'country', type: 'VARCHAR', required: false },
    { name: 'shop', type: 'BIGINT', required: false },
    { name: 'paid', type: 'BOOLEAN', required: false },
    { name: 'amount', type: 'DECIMAL(18,2)', required: false },
    { name: 'buyer', type: 'VARCHAR', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'id',
  extra: 'keep',
  partitions: 2,
}

export const TAKINGS = `SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, country, shop, paid,
  count(*) AS sold, sum(amount) AS total, max(amount) AS largest, avg(amount) AS mean,
  approx_count_distinct(buyer) AS buyers, last(country) AS last_country, total / sold AS each
FROM sales GROUP BY ALL`
export const SHOPS = `SELECT shop, count(*) AS sold, sum(amount) AS total FROM sales GROUP BY ALL`

export type Sale = {
  id: string
  ts: string
  country?: string
  shop?: number
  paid?: boolean
  amount?: number
  buyer?: string
}

export type Lab = {
  engine: Engine
  log: EventLog
  speed: SpeedStore
  ctx: BatchContext
  settings: Settings
  serving: Serving
  random: Random
  /** All appended events, by partition, with their offsets. */
  known: { partition: number; offset: number; sale: Sale }[]
  view(name: string): Promise<View>
  /** Appends random events; returns the token of the last append. */
  append(events: number, partition?: number): Promise<string>
  appendSales(sales: Sale[], partition?: number): Promise<string>
  /** Lets the workers apply everything. */
  speedUp(): Promise<void>
  extend(view?: string): Promise<void>
  retire(view?: string): Promise<void>
  openServing(change?: Partial<ServingContext>): Serving
  close(): Promise<void>
}

const COUNTRIES = ['DE', 'FR', '東京', "O'Hara", '', undefined]
export const randomSale = (r: Random, n: number): Sale => {
  const country = r.pick(COUNTRIES)
  return {
    id: `s${n}`,
    ts: new Date(START - r.int(0, 40 * HOUR) - (r.chance(0.02) ? 500 * HOUR : 0)).toISOString(),
    ...(country === undefined ? {} : { country }),
    ...(r.chance(0.9) ? { shop: r.int(1, 3) } : {}),
    ...(r.chance(0.8) ? { paid: r.chance(0.5) } : {}),
    ...(r.chance(0.9) ? { amount: r.int(0, 5_000) / 100 } : {}),
    ...(r.chance(0.9) ? { buyer: `b${r.int(1, 40)}` } : {}),
  }
}

export const openLab = async (
  options: { seed?: number; views?: Record<string, string>; settings?: string } = {},
): Promise<Lab> => {
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'weir-serving-'))
  const engine = await openEngine({ tempDir: folder, memoryLimit: '512MB' })
  const tools = sqlTools(engine)
  const now = (): number => START
  const log = await openLmdbLog({ folder: join(folder, 'log'), now })
  const speed = await openLmdbSpeedStore({ folder: join(folder, 'speed') })
  const store = await openFolderStore(join(folder, 'lake'))
  const lake = openLake({ store, engine, now })
  const publications = openPublications(store, { now })
  const versions = openVersions(publications, [sales], tools)
  const settings = parseSettings(options.settings ?? '')
  settings.batch.retireAfterMs = 0
  await log.create('sales', sales.partitions)
  const ctx: BatchContext = {
    log,
    speed,
    publications,
    history: openHistory(lake, [sales]),
    lake,
    engine,
    datasets: [sales],
    versions,
    settings,
    now,
    alarm: (error) => {
      throw error
    },
  }
  const views = new Map<string, View>()
  for (const [name, sql] of Object.entries(options.views ?? { takings: TAKINGS, shops: SHOPS }))
    views.set(name, await compileView({ name, sql, dataset: sales }, tools))
  await adoptViews(ctx, [...views.values()])
  await versions.refresh()
  const workers = new Map<number, SpeedWorker>()
  const opened: Serving[] = []
  let serial = 0
  const make = (change: Partial<ServingContext> = {}): Serving => {
    const made = openServing({ ...ctx, replanMs: 60, ...change })
    opened.push(made)
    return made
  }
  const appendSales = async (rows: Sale[], partition = 0): Promise<string> => {
    const bytes = Buffer.from(rows.map((s) => `${JSON.stringify(s)}\n`).join(''))
    const recordId = createHash('md5').update(`${serial++}`).digest('hex')
    const at: Position = await log.append('sales', partition, [{ recordId, bytes, events: rows.length }])
    for (const sale of rows) lab.known.push({ partition, offset: at.offset - 1, sale })
    const { logId, offset, fingerprint } = at
    return encodeToken({ dataset: 'sales', logId, positions: { [String(partition)]: { offset, fingerprint } } })
  }
  const lab: Lab = {
    engine,
    log,
    speed,
    ctx,
    settings,
    serving: undefined as unknown as Serving,
    random: openRandom(options.seed ?? 1),
    known: [],
    view: async (name) => views.get(name)!,
    appendSales,
    append: async (events, partition) => {
      let token = ''
      for (let left = events; left > 0; ) {
        const n = Math.min(left, lab.random.int(1, 20))
        const rows = Array.from({ length: n }, () => randomSale(lab.random, lab.known.length + lab.random.int(0, 1e9)))
        token = await appendSales(rows, partition ?? lab.random.int(0, sales.partitions))
        left -= n
      }
      return token
    },
    speedUp: async () => {
      await versions.refresh()
      for (let partition = 0; partition < sales.partitions; partition++) {
        let worker = workers.get(partition)
        if (worker === undefined) {
          worker = await openSpeedWorker({
            log,
            store: speed,
            history: ctx.history,
            publications,
            engine,
            dataset: sales,
            partition,
            versions,
            settings: { ...settings.speed, waitMs: 1 },
            lookEveryMs: 0,
          })
          workers.set(partition, worker)
        }
        const { endOffset } = await log.range('sales', partition)
        for (let steps = 0; ; steps++) {
          const did = await worker.step()
          if (did.kind === 'stopped' || steps > 1_000) throw new Error(`the speed worker ${did.kind} at ${steps}`)
          const header = await speed.header({ dataset: 'sales', partition })
          if (header?.position.offset === endOffset && did.kind === 'idle') break
        }
      }
    },
    extend: async (name = 'takings') => {
      const done = await extend(ctx, views.get(name)!, {})
      if (done.outcome !== 'published') throw new Error(`extend: ${JSON.stringify(done)}`)
    },
    retire: async (name = 'takings') => {
      await retireCovered(ctx, views.get(name)!)
    },
    openServing: make,
    close: async () => {
      for (const serving of opened) await serving.close()
      for (const worker of workers.values()) await worker.close()
      await closeArchivers(ctx)
      await speed.close()
      await log.close()
      await engine.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
  lab.serving = make()
  return lab
}

/** The error that a question ends with; an answer fails the test. */
export const refusal = async (asked: Promise<unknown>): Promise<WeirError> => {
  const error = await asked.then(
    (answer) => new Error(`answered: ${JSON.stringify(answer)}`),
    (e: unknown) => e,
  )
  if (!(error instanceof WeirError)) throw error
  return error
}
export const refused = async (asked: Promise<unknown>, code: string): Promise<void> => {
  const error = await refusal(asked)
  expect(error.code).toBe(`WEIR_SERVING_${code}`)
  expect(error.retryable).toBe(true)
}

/** 80 events: 50 in the batch layer, all in the speed layer. */
export const fill = async (lab: Lab): Promise<void> => {
  await lab.append(40, 0)
  await lab.append(10, 1)
  await lab.speedUp()
  await lab.extend()
  await lab.append(30, 0)
  await lab.speedUp()
}
