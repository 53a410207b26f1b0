/**
 * Logs and lakes that cases start from. Each is made once for a benchmark and found again under its name.
 * Invariant: a folder that has its final name is whole.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { archiverOf } from '../batch-layer/archiver.ts'
import { recompute } from '../batch-layer/recompute.ts'
import { openLmdbLog } from '../log/lmdb-log.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import { checkSize, type EventOptions, eventChunks } from './events.ts'
import type { ProjectName } from './project.ts'
import { DATASET, openWorld, type World } from './world.ts'

/** Events of a log record: what the door makes of a request of many events. */
const RECORD_EVENTS = 2_500
const IN_FLIGHT = 32

const DAY_MS = 86_400_000
/** Monday; far enough back that no event is of the future. */
export const START_MS = Date.UTC(2025, 0, 6)

/** Event time goes at a rate of 20,000 events per second. */
export const streamOf = (events: number): EventOptions => ({ events, startMs: START_MS, stepMs: 1 / 20 })
export const yearOf = (events: number): EventOptions => ({
  events: 2 * Math.floor((events * 364) / 730),
  startMs: START_MS,
  stepMs: (365 * DAY_MS) / events,
})
export const monthOf = (events: number): EventOptions => ({ events, startMs: START_MS, stepMs: (30 * DAY_MS) / events })

/** Appends events to a log, and to a file too when asked. Throws unless they have the stated size. */
export const appendEvents = async (log: EventLog, options: EventOptions, file?: string): Promise<void> => {
  const fd = file === undefined ? null : openSync(file, 'w')
  const flying: Promise<unknown>[] = []
  let bytes = 0
  try {
    for (const chunk of eventChunks(options, RECORD_EVENTS)) {
      bytes += chunk.bytes.byteLength
      if (fd !== null) for (let at = 0; at < chunk.bytes.byteLength; ) at += writeSync(fd, chunk.bytes, at)
      flying.push(log.append(DATASET, 0, [{ recordId: randomBytes(16).toString('hex'), ...chunk }]))
      if (flying.length >= IN_FLIGHT) await flying.shift()
    }
    await Promise.all(flying)
  } finally {
    await Promise.allSettled(flying)
    if (fd !== null) closeSync(fd)
  }
  checkSize(bytes, options.events)
}

const once = async (folder: string, make: (building: string) => Promise<void>): Promise<string> => {
  if (existsSync(folder)) return folder
  const building = `${folder}.building`
  await mkdir(building, { recursive: true })
  await make(building)
  await rename(building, folder)
  return folder
}

/** A log alone, with the same bytes as NDJSON in `file`. */
export const preparedLog = async (folder: string, options: EventOptions, file: string): Promise<string> => {
  await mkdir(dirname(file), { recursive: true })
  return once(folder, async (building) => {
    const log = await openLmdbLog({ folder: building })
    await log.create(DATASET, 1)
    await appendEvents(log, options, file)
    await log.close()
  })
}

/**
 * A log as it is after a while: records came, and were trimmed when their time was over, so new ones get their room. (A log
 * that still grows gets new memory from the system for each page; a virtual machine may have to ask its host for it first,
 * which took longer than all the rest of an append here.)
 */
export const usedLog = async (folder: string, options: EventOptions): Promise<void> => {
  const log = await openLmdbLog({ folder })
  await log.create(DATASET, 1)
  await appendEvents(log, options)
  await log.trim(DATASET, 0, (await log.range(DATASET, 0)).endOffset)
  await log.close()
}

/** Archives all there is. */
export const archiveAll = async (world: World): Promise<void> => {
  const { endOffset } = await world.ctx.log.range(DATASET, 0)
  const archiver = archiverOf(world.ctx, DATASET)
  while (((await world.ctx.history.archived(DATASET, 0))?.position.offset ?? 0) < endOffset) {
    const step = await archiver.step(0, { force: true })
    if (step === 'stopped') throw archiver.state(0).stopped ?? new Error('the archiver stopped')
  }
}

/** A data folder with log and lake, views registered; with `publish` also recomputed and published. */
export const preparedData = (
  folder: string,
  project: ProjectName,
  options: EventOptions,
  publish: boolean,
): Promise<string> =>
  once(folder, async (building) => {
    const world = await openWorld({ project, data: building })
    try {
      await appendEvents(world.ctx.log, options)
      await world.adopt()
      await archiveAll(world)
      if (publish)
        for (const view of world.project.views) {
          const done = await recompute(world.ctx, view)
          if (done.outcome !== 'published') throw new Error(`${view.name}: ${done.outcome} ${done.reasons.join('; ')}`)
        }
    } finally {
      await world.close()
    }
  })

/** Where the prepared things of a benchmark lie. */
export const paths = (shared: string, sharedMemory: string) => ({
  streamLog: join(shared, 'stream-log'),
  streamFile: join(sharedMemory, 'stream.ndjson'),
  history: join(shared, 'history'),
  year: join(shared, 'year'),
  month: join(shared, 'month'),
})
