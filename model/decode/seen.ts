/**
 * The de-duplication map of one (dataset, partition): id → last effective append time, and the same for record ids.
 *
 * Invariant: the map stands for a position: it holds the last time of every decoded event (counted or duplicate) below it
 * that can still make a later one a duplicate. A batch's entries stay in its `SeenChange` until `accept`, which the caller
 * calls once its commit was answered `applied` or `archived` (rule 15). Nothing is evicted before its window is over.
 */
import { createHash } from 'node:crypto'
import { WeirError } from '../errors.ts'
import type { Position } from '../position.ts'
import {
  countAfter,
  createTable,
  find,
  forEach,
  type HashTable,
  purge,
  put,
  putAt,
  resize,
  roomOf,
  slotsFor,
  timeAt,
  timeOf,
} from './seen-table.ts'

/** The window over record ids: fixed, since it only makes re-sent produces and retries harmless. */
export const RECORD_WINDOW_MS = 3_600_000

/** What a batch adds to the map. Opaque: made by an overlay, taken by `accept`. */
export type SeenChange = {
  /** The position that the map stood for when the change was made. */
  readonly from: Position
  readonly ids: HashTable
  readonly records: HashTable
}

export type Overlay = {
  /** Whether the record repeats; takes it in. Once for each record with a decoded event, in log order. */
  record(words: Uint32Array, at: number, effectiveMs: number): boolean
  /** Whether the id repeats; takes it in. Once for each decoded event, in log order. */
  event(words: Uint32Array, at: number, effectiveMs: number): boolean
  /** Throws WEIR_DECODE_SEEN_FULL (retryable) when the map would pass its capacity. */
  change(): SeenChange
}

export type Seen = {
  readonly position: Position
  /** Event ids in the map. */
  readonly size: number
  /** Record ids in the map. */
  readonly records: number
  readonly capacity: number
  /** Verdicts over the map and the events before in the same batch; `events`: about how many. The map is not changed. */
  overlay(events?: number): Overlay
  /** Takes a change in; the map then stands for `to`. */
  accept(change: SeenChange, to: Position): void
}

/**
 * An empty map at `position`. `capacity`: most event ids, and likewise most record ids, within their windows; about
 * 30 bytes each. `windowMs` undefined: only record ids are kept.
 */
export const createSeen = (position: Position, options: { capacity: number; windowMs?: number }): Seen => {
  const { capacity, windowMs } = options
  const idWindow = windowMs ?? 0
  const ids = createTable()
  const records = createTable()
  let at = position

  const accept = (change: SeenChange, to: Position): void => {
    if (change.from !== at) throw new Error('a change was made on another state of the map')
    merge(ids, change.ids, to.effectiveMs - idWindow, capacity)
    merge(records, change.records, to.effectiveMs - RECORD_WINDOW_MS, capacity)
    at = to
  }

  const overlay = (events = 0): Overlay => {
    const from = at
    const newIds = createTable(slotsFor(events))
    const newRecords = createTable()
    let first = Number.POSITIVE_INFINITY
    const repeats = (
      base: HashTable,
      own: HashTable,
      window: number,
      words: Uint32Array,
      place: number,
      ms: number,
    ): boolean => {
      if (ms < first) first = ms
      if (own.size >= roomOf(own)) resize(own, own.slots * 2)
      const known = find(own, words, place)
      const last = known >= 0 ? timeAt(own, known) : timeOf(base, words, place)
      putAt(own, known, words, place, ms)
      return ms - last < window
    }
    return {
      record: (words, place, ms) => repeats(records, newRecords, RECORD_WINDOW_MS, words, place, ms),
      event: (words, place, ms) => repeats(ids, newIds, idWindow, words, place, ms),
      change: () => {
        checkRoom(ids, newIds, first - idWindow, capacity, 'event ids')
        checkRoom(records, newRecords, first - RECORD_WINDOW_MS, capacity, 'record ids')
        return { from, ids: newIds, records: newRecords }
      },
    }
  }

  return {
    get position() {
      return at
    },
    get size() {
      return ids.size
    },
    get records() {
      return records.size
    },
    capacity,
    overlay,
    accept,
  }
}

/** Room for what is still within its window (times after `since`) and for what the batch brings. */
const checkRoom = (base: HashTable, own: HashTable, since: number, capacity: number, what: string): void => {
  if (base.size + own.size <= capacity) return
  let needed = countAfter(base, since)
  forEach(own, (at) => {
    if (timeOf(base, own.keys, at) <= since) needed++
  })
  if (needed <= capacity) return
  throw new WeirError({
    code: 'WEIR_DECODE_SEEN_FULL',
    message: `The de-duplication window holds more ${what} than the map may keep.`,
    expected: `at most ${capacity} ${what} within the window`,
    got: String(needed),
    next: 'raise seenIds, or declare a shorter dedupe window in a new dataset; meanwhile the partition waits',
    retryable: true,
  })
}

/** Puts a batch's entries into the map; entries not after `since` may go. */
const merge = (base: HashTable, own: HashTable, since: number, capacity: number): void => {
  if (base.size + own.size > roomOf(base)) {
    purge(base, since)
    const most = slotsFor(capacity + 1)
    // Half empty after a purge: the next one is far off. Else the table grows, so that purges stay rare.
    if (base.size + own.size > roomOf(base) / 2 && base.slots < most)
      resize(base, Math.min(most, Math.max(base.slots * 2, slotsFor((base.size + own.size) * 2))))
    // Only a batch with times that reach beyond its own window can still be too much.
    if (base.size + own.size > roomOf(base)) resize(base, slotsFor(base.size + own.size))
  }
  forEach(own, (at, time) => put(base, own.keys, at, time))
}

/** Hash of an id's text: the four words of MD5 as DuckDB's `md5_number` lays them out. */
export const idWords = (text: string): Uint32Array => {
  const digest = createHash('md5').update(text, 'utf8').digest()
  return Uint32Array.of(digest.readUInt32LE(0), digest.readUInt32LE(4), digest.readUInt32LE(8), digest.readUInt32LE(12))
}

/** A record id (32 hex digits, itself a hash) as four words. */
export const recordWords = (recordId: string): Uint32Array => {
  const words = new Uint32Array(4)
  for (let i = 0; i < 4; i++) words[i] = Number.parseInt(recordId.slice(i * 8, i * 8 + 8), 16)
  return words
}
