/** What the door's tests share: a temporary log, engine and door, served or not, and a look into the log. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { decodeBatch } from '../../engine/decode.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { createApp, type FastifyInstance } from '../../http/app.ts'
import { type Door, openDoor } from '../../ingest/door.ts'
import { openRejectStore } from '../../ingest/reject-store.ts'
import { ingestRoutes } from '../../ingest/routes.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import type { Dataset } from '../../model/dataset.ts'
import type { EventLog, LogRecord } from '../../model/ports/event-log.ts'
import type { RejectStore } from '../../model/ports/rejects.ts'
import { genesis } from '../../model/position.ts'
import { parseSettings, type Settings } from '../../model/settings.ts'
import { orders } from './data.ts'

export * from './data.ts'

// One engine for each test file: opening one takes longer than most tests.
let shared: Engine | undefined
afterAll(async () => {
  await shared?.close()
  shared = undefined
})
const sharedEngine = async (): Promise<Engine> => {
  shared ??= await openEngine()
  return shared
}

const closers: (() => Promise<unknown>)[] = []
/** Closes all that was opened; for `afterEach` or `afterAll`. */
export const cleanUp = async (): Promise<void> => {
  for (const close of closers.splice(0).reverse()) await close()
}
export const onCleanUp = (close: () => Promise<unknown>): void => void closers.push(close)

export const tempFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-door-'))
  onCleanUp(() => rm(folder, { recursive: true, force: true }))
  return folder
}

export type World = {
  log: EventLog
  engine: Engine
  door: Door
  rejects: RejectStore
  datasets: Dataset[]
  folder: string
}

export const openWorld = async (
  options: {
    datasets?: Dataset[]
    ingest?: Partial<Settings['ingest']>
    log?: (log: EventLog) => EventLog
    engine?: (engine: Engine) => Engine
    now?: () => number
  } = {},
): Promise<World> => {
  const folder = await tempFolder()
  const datasets = options.datasets ?? [orders()]
  const settings = { ...parseSettings('').ingest, ...options.ingest }
  const log = await openLmdbLog({ folder: join(folder, 'log') })
  const engine = await sharedEngine()
  const rejects = await openRejectStore({ folder: join(folder, 'rejects'), maxBytes: settings.rejectsBytes })
  const door = await openDoor({
    log: options.log?.(log) ?? log,
    engine: options.engine?.(engine) ?? engine,
    datasets,
    rejects,
    settings,
    ...(options.now ? { now: options.now } : {}),
  })
  onCleanUp(async () => {
    await door.close()
    await rejects.close()
    await log.close()
  })
  return { log, engine, door, rejects, datasets, folder }
}

/** The world's door behind a listening server on a free port. */
export const serve = async (
  world: World,
  limits: Parameters<typeof createApp>[0]['limits'] = {},
): Promise<{ app: FastifyInstance; port: number; url: string }> => {
  const app = await createApp({ keys: null, version: '0', limits })
  ingestRoutes(app, world.door)
  await app.listen({ port: 0, host: '127.0.0.1' })
  onCleanUp(() => app.close())
  const { port } = app.server.address() as { port: number }
  return { app, port, url: `http://127.0.0.1:${port}/v1/events/orders` }
}

/** All records of a partition. */
export const readAll = async (log: EventLog, dataset = 'orders', partition = 0): Promise<LogRecord[]> => {
  const { logId } = await log.range(dataset, partition)
  let from = genesis(logId)
  const found: LogRecord[] = []
  for (;;) {
    const result = await log.read(dataset, partition, from, { maxBytes: 8 * 1024 * 1024 })
    if (result.kind !== 'records') throw new Error(`the log answered ${result.kind}`)
    if (result.records.length === 0) return found
    found.push(...result.records.map((r) => ({ ...r, bytes: Buffer.from(r.bytes) })))
    from = result.to
  }
}

/** Events of the log's records as text, record by record. */
export const eventsOf = (records: LogRecord[]): string[][] =>
  records.map((r) => Buffer.from(r.bytes).toString('utf8').split('\n').slice(0, -1))

/** Decodes what a partition holds, as the speed layer would. */
export const decodeLog = async (
  world: World,
  dataset: Dataset,
  partition = 0,
): Promise<{ rows: number; dead: { code: string; raw: string }[] }> => {
  const records = await readAll(world.log, dataset.name, partition)
  if (records.length === 0) return { rows: 0, dead: [] }
  return world.engine.withSession(async (session) => {
    const { rows, dead } = await decodeBatch(world.engine, session, dataset, records, { table: 'look' })
    return { rows, dead: dead.map((d) => ({ code: d.code, raw: Buffer.from(d.raw).toString('latin1') })) }
  })
}
