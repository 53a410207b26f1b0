/**
 * The lane of one dataset: requests wait here and go through decode and append in groups (group commit).
 * Invariant: a request is answered only after the append of all its records resolved, and each request has its own fate:
 * what fails for one (or for a partition) is told to those whom it concerns and to nobody else.
 *
 * While a group is decoded, the next one gathers; while a group is being made durable, the next one is decoded if it is
 * large, and goes on gathering if it is small.
 */
import type { Engine, Session } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import type { EventLog, NewRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { type Asked, decide, type Verdict } from './decide.ts'
import { storedInPart, unavailable } from './errors.ts'
import type { RecordLimits } from './records.ts'

export type Settled = { verdict: Verdict; positions: Map<number, Position> }

export type Lane = {
  /** Resolves when every accepted event is durable. Throws WEIR_INGEST_UNAVAILABLE, or a retryable WEIR_LOG_*. */
  submit(asked: Asked): Promise<Settled>
  /** Waits for all that was submitted. */
  close(): Promise<void>
}

/** A group is full at this many bytes or requests; what is more waits for the next one. */
export const GROUP_BYTES = 12 * 1024 * 1024
export const GROUP_REQUESTS = 2_000
/** Less than this waits for the append of the group before; more is decoded meanwhile. */
const PIPELINED_BYTES = 256 * 1024

type Waiting = { asked: Asked; resolve: (settled: Settled) => void; reject: (error: unknown) => void }

export type LaneOptions = {
  log: EventLog
  engine: Engine
  dataset: Dataset
  partitions: number
  limits: RecordLimits
  /** Told of each group that was decoded: requests, events, bytes. */
  grouped: (requests: number, events: number, bytes: number) => void
}

export const openLane = (options: LaneOptions): Lane => {
  const { log, engine, dataset, partitions, limits } = options
  let queue: Waiting[] = []
  let queuedBytes = 0
  let running: Promise<void> | undefined
  let session: Session | undefined
  const appends = new Set<Promise<void>>()

  const takeGroup = (): Waiting[] => {
    let bytes = 0
    let n = 0
    while (n < queue.length && n < GROUP_REQUESTS) {
      bytes += queue[n]!.asked.framed.bytes.byteLength
      if (n > 0 && bytes > GROUP_BYTES) break
      n++
    }
    const group = queue.slice(0, n)
    queue = queue.slice(n)
    queuedBytes = queue.reduce((sum, w) => sum + w.asked.framed.bytes.byteLength, 0)
    return group
  }

  const verdicts = async (group: Waiting[]): Promise<Verdict[]> => {
    session ??= await engine.session()
    const asked = group.map((w) => w.asked)
    try {
      return await decide(engine, session, dataset, partitions, asked, limits)
    } catch (error) {
      // A session may have died with its engine: the next try opens a new one.
      session.close()
      session = undefined
      throw error
    }
  }

  const append = async (group: Waiting[], found: Verdict[]): Promise<void> => {
    const byPartition = new Map<number, NewRecord[]>()
    for (const { records } of found) {
      for (const [partition, own] of records) {
        const all = byPartition.get(partition)
        if (all === undefined) byPartition.set(partition, [...own])
        else all.push(...own)
      }
    }
    const appended = new Map<number, PromiseSettledResult<Position>>()
    await Promise.all(
      [...byPartition].map(async ([partition, records]) => {
        const [result] = await Promise.allSettled([log.append(dataset.name, partition, records)])
        appended.set(partition, result!)
      }),
    )
    for (const [i, waiting] of group.entries()) {
      const verdict = found[i]!
      const positions = new Map<number, Position>()
      let failed: PromiseRejectedResult | undefined
      for (const partition of verdict.records.keys()) {
        const result = appended.get(partition)!
        if (result.status === 'rejected') failed = result
        else positions.set(partition, result.value)
      }
      if (failed === undefined) waiting.resolve({ verdict, positions })
      // What the log says of its refusal ("nothing was stored") holds for that partition only.
      else waiting.reject(positions.size > 0 ? storedInPart(failed.reason) : asUnavailable(failed.reason))
    }
  }

  const pass = async (group: Waiting[]): Promise<void> => {
    let found: Verdict[]
    try {
      found = await verdicts(group)
    } catch (error) {
      if (group.length === 1) return group[0]!.reject(unavailable(error))
      // One of them may be what the engine cannot take: each on its own.
      for (const waiting of group) await pass([waiting])
      return
    }
    options.grouped(
      group.length,
      group.reduce((sum, w) => sum + w.asked.framed.total, 0),
      group.reduce((sum, w) => sum + w.asked.framed.bytes.byteLength, 0),
    )
    const appending = append(group, found).finally(() => appends.delete(appending))
    appends.add(appending)
  }

  const run = async (): Promise<void> => {
    // Requests that arrive in one turn of the event loop belong together.
    await new Promise(setImmediate)
    while (queue.length > 0) {
      // A decode costs milliseconds however small it is: small requests gather while the group before becomes durable.
      if (queuedBytes < PIPELINED_BYTES) await Promise.all(appends)
      await pass(takeGroup())
    }
    running = undefined
  }

  return {
    submit: (asked) =>
      new Promise((resolve, reject) => {
        queue.push({ asked, resolve, reject })
        queuedBytes += asked.framed.bytes.byteLength
        running ??= run()
      }),
    close: async () => {
      await running
      await Promise.all(appends)
      session?.close()
      session = undefined
    },
  }
}

const asUnavailable = (error: unknown): unknown => {
  const retryable = error instanceof Error && 'retryable' in error && error.retryable === true
  return retryable ? error : unavailable(error)
}
