/**
 * The door: how events enter. Invariant: one fate each: every event of a request that is answered is accepted, and then
 * durable in the log, or rejected with its index, a code and a reason; a request that fails has told so by an error.
 * What the door accepts, the decoder never kills.
 */
import { randomBytes } from 'node:crypto'
import type { Engine } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import { partitionOf } from '../model/partitioner.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { RejectStore } from '../model/ports/rejects.ts'
import type { Settings } from '../model/settings.ts'
import { newBudget, readBody } from './body.ts'
import { openBuffers } from './buffers.ts'
import type { Asked, Rejected } from './decide.ts'
import { badKey, overload, stopping, tooLarge, unknownDataset } from './errors.ts'
import { frame } from './frame.ts'
import { type Lane, openLane } from './lane.ts'
import { type Outcome, outcomeOf } from './outcome.ts'
import { cutChunks } from './records.ts'

export type DoorOptions = {
  log: EventLog
  engine: Engine
  datasets: Dataset[]
  /** null: rejected events are answered, and kept nowhere. */
  rejects: RejectStore | null
  settings: Settings['ingest']
  now?: () => number
}

export type AcceptOptions = {
  /** 1 to 255 printable ASCII characters. The same key with the same body makes the same record ids. */
  idempotencyKey?: string
  /** The body is gzip. (A body that begins as gzip does is taken for gzip anyway.) */
  gzip?: boolean
  /** Bytes that the body is said to have. */
  declaredBytes?: number
  /** The body is one event per line, whatever it looks like. */
  ndjson?: boolean
}

/** What metrics want to know. */
export type DoorObserver = {
  answered(dataset: string, accepted: number, rejected: number, bytes: number, durableSeconds: number): void
  grouped(dataset: string, requests: number, events: number, bytes: number): void
  rejectsLost(dataset: string, events: number): void
}

export type Door = {
  /** What can be said before the body: throws WEIR_INGEST_STOPPING, _UNKNOWN_DATASET, _TOO_LARGE, _OVERLOAD. */
  admit(dataset: string, declaredBytes: number, gzip: boolean): void
  /**
   * Takes one request's body. Throws WEIR_INGEST_* (errors.ts) and retryable WEIR_LOG_*; then nothing was accepted, or
   * (WEIR_INGEST_UNAVAILABLE) it is unknown or a part, and a retry with the same key is harmless.
   */
  accept(dataset: string, body: AsyncIterable<Uint8Array> | Uint8Array, options?: AcceptOptions): Promise<Outcome>
  datasets(): string[]
  /** Bytes being taken in. */
  inFlightBytes(): number
  limits: Settings['ingest']
  observe(observer: DoorObserver): void
  /** Takes no more, waits for what is under way. Log, engine and reject store stay open: they are the caller's. */
  close(): Promise<void>
}

/** Bytes of a rejected event that are kept; the answer and the client have the rest. */
const RAW_BYTES = 16 * 1024
/** Rejected events are handed to the store in pieces, so that one bad request does not hold up the others. */
const REJECTS_AT_ONCE = 1_000

/** Memory of bodies that is kept for later ones. */
const KEPT_BYTES = 64 * 1024 * 1024

/** Fresh keys: random once for each process, then counted. Drawing random bytes for each request costs more than hashing. */
const FRESH = randomBytes(16).toString('hex')
let fresh = 0

/** Opens the door; creates the datasets' partitions in the log where they are missing. */
export const openDoor = async (options: DoorOptions): Promise<Door> => {
  const { log, engine, rejects, settings } = options
  const now = options.now ?? Date.now
  // One whole body fits when nothing else is under way, whatever the settings: else it would be refused for ever.
  const budget = newBudget(Math.max(settings.inFlightBytes, settings.bodyBytes))
  const buffers = openBuffers(KEPT_BYTES)
  const observers: DoorObserver[] = []
  const lanes = new Map<string, { lane: Lane; dataset: Dataset; partitions: number }>()
  for (const dataset of options.datasets) {
    await log.create(dataset.name, dataset.partitions)
    const partitions = (await log.partitions(dataset.name)).length
    const grouped = (requests: number, events: number, bytes: number): void => {
      for (const o of observers) o.grouped(dataset.name, requests, events, bytes)
    }
    const lane = openLane({ log, engine, dataset, partitions, limits: settings, grouped })
    lanes.set(dataset.name, { lane, dataset, partitions })
  }
  let isOpen = true
  let turn = 0
  const running = new Set<Promise<Outcome>>()

  const keep = async (dataset: string, rejected: Rejected[]): Promise<void> => {
    if (rejects === null) return
    const receivedAtMs = now()
    for (let i = 0; i < rejected.length; i += REJECTS_AT_ONCE) {
      const some = rejected.slice(i, i + REJECTS_AT_ONCE)
      try {
        await rejects.add(
          some.map(({ index, code, reason, raw }) => ({
            dataset,
            receivedAtMs,
            index,
            code,
            reason,
            raw: textOf(raw),
          })),
        )
      } catch {
        // They are in the answer; a store that cannot write must not undo what is durable. The loss is counted.
        for (const o of observers) o.rejectsLost(dataset, some.length)
      }
    }
  }

  const accept = async (
    name: string,
    body: AsyncIterable<Uint8Array> | Uint8Array,
    how: AcceptOptions,
  ): Promise<Outcome> => {
    const found = lanes.get(name)
    if (found === undefined) throw unknownDataset(name, [...lanes.keys()])
    const { idempotencyKey } = how
    if (idempotencyKey !== undefined && !/^[\x20-\x7e]{1,255}$/.test(idempotencyKey)) throw badKey()
    let held = 0
    try {
      let lent: Buffer | undefined
      const bytes = await readBody(
        body,
        how.gzip ?? false,
        how.declaredBytes ?? 0,
        settings,
        budget,
        (n) => {
          held += n
        },
        {
          take: (n) => {
            lent = buffers.take(n)
            return lent
          },
          give: buffers.give,
        },
      )
      const began = performance.now()
      const framed = frame(bytes, how.ndjson ?? false, settings)
      const asked: Asked = {
        framed,
        chunks: cutChunks(framed.bytes, framed.ends, settings),
        // 'k' and 'f' keep a client's key from ever meeting a fresh one.
        key:
          idempotencyKey === undefined
            ? { text: `f${FRESH}/${fresh++}`, unique: true }
            : { text: `k${idempotencyKey}`, unique: false },
        turn: idempotencyKey === undefined ? turn++ % found.partitions : partitionOf(idempotencyKey, found.partitions),
      }
      const { verdict, positions } = await found.lane.submit(asked)
      const seconds = (performance.now() - began) / 1_000
      const { accepted, rejected } = verdict
      for (const o of observers) o.answered(name, accepted, rejected.length, bytes.byteLength, seconds)
      if (rejected.length > 0) await keep(name, rejected)
      // Only now does nobody read it any more. After an error the log might: then it is not used again.
      if (lent !== undefined) buffers.give(lent)
      return outcomeOf(name, accepted, rejected, positions)
    } finally {
      budget.release(held)
    }
  }

  return {
    admit: (dataset, declaredBytes, gzip) => {
      if (!isOpen) throw stopping()
      if (!lanes.has(dataset)) throw unknownDataset(dataset, [...lanes.keys()])
      if (!gzip && declaredBytes > settings.bodyBytes) throw tooLarge(settings.bodyBytes)
      if (budget.used() + Math.min(declaredBytes, settings.bodyBytes) > budget.limit) throw overload(budget.limit)
    },
    accept: async (dataset, body, how = {}) => {
      if (!isOpen) throw stopping()
      const one = accept(dataset, body, how).finally(() => running.delete(one))
      running.add(one)
      return one
    },
    datasets: () => [...lanes.keys()],
    inFlightBytes: () => budget.used(),
    limits: settings,
    observe: (observer) => void observers.push(observer),
    close: async () => {
      isOpen = false
      await Promise.allSettled(running)
      for (const { lane } of lanes.values()) await lane.close()
    },
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Bytes as text: UTF-8, or base64 behind `base64:` when they are not; at most RAW_BYTES of them. */
const textOf = (raw: Uint8Array): string => {
  const kept = raw.byteLength > RAW_BYTES ? raw.subarray(0, RAW_BYTES) : raw
  try {
    return utf8.decode(kept)
  } catch {
    return `base64:${Buffer.from(kept.buffer, kept.byteOffset, kept.byteLength).toString('base64')}`
  }
}
