/**
 * The embedded event log, in LMDB: one writer process; readers in other processes are allowed.
 * Invariant: an append is acknowledged only after its transaction is on disk, and a record is visible only then
 * (no overlapping sync), so nobody ever goes on from a record that a power failure can take back.
 *
 * Keys: ['d', dataset] → { logId } · ['p', dataset, partition] → PartitionState · ['b', dataset, partition, first offset] → block.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { open } from 'lmdb'
import type { EventLog, NewRecord, ReadResult } from '../model/ports/event-log.ts'
import { genesis, type Position } from '../model/position.ts'
import { positionIn } from './block.ts'
import { openAppender } from './lmdb-log-append.ts'
import {
  blockAt,
  blockKey,
  encodeValue,
  type LogDatabase,
  type PartitionState,
  positionOf,
  readOnce,
  readState,
  readValue,
  snapshot,
  stateKey,
} from './lmdb-log-read.ts'
import { corrupt, unknownPartition } from './log-errors.ts'

export type LmdbLogOptions = {
  folder: string
  /** Size at which a block of one commit is closed and the next one begins; default 256 KiB. */
  blockBytes?: number
  /** Bytes that may wait for their commit before appends are refused with WEIR_LOG_BUSY; default 256 MiB. */
  maxPendingBytes?: number
  /** Size of all stored blocks at which appends are refused with WEIR_LOG_FULL; 0 (default): no bound. */
  maxBytes?: number
  /** The clock of append times, ms. */
  now?: () => number
  /** For commands beside a running server: never writes. */
  readOnly?: boolean
}

/** How often a waiting reader looks for what another process appended. Appends of this process wake it at once. */
const POLL_MS = 100
/** Blocks deleted in one transaction of a trim. */
const TRIM_BLOCKS = 500

/** Opens (or creates) the log in a folder. Throws WEIR_LOG_FORMAT for newer stored data, WEIR_LOG_CORRUPT for damage it sees at once. */
export const openLmdbLog = async (options: LmdbLogOptions): Promise<EventLog> => {
  await mkdir(options.folder, { recursive: true })
  const db = await openWhole(options.folder, options.readOnly ?? false)
  const wakeUps = new Map<string, Set<() => void>>()
  const wake = (dataset: string, partition: number): void => {
    for (const waiter of wakeUps.get(`${dataset}/${partition}`) ?? []) waiter()
  }
  let isOpen = true
  const reads = new Set<Promise<unknown>>()

  try {
    checkStored(db)
  } catch (error) {
    await db.close()
    throw error
  }
  const appender = openAppender(db, {
    blockBytes: options.blockBytes ?? 256 * 1024,
    maxPendingBytes: options.maxPendingBytes ?? 256 * 1024 * 1024,
    maxBytes: options.maxBytes ?? 0,
    now: options.now ?? Date.now,
    committed: wake,
    freeBytes: async () => {
      const { bavail, bsize } = await statfs(options.folder)
      return bavail * bsize
    },
  })

  const pause = (dataset: string, partition: number, ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const key = `${dataset}/${partition}`
      const set = wakeUps.get(key) ?? new Set()
      wakeUps.set(key, set)
      const done = (): void => {
        clearTimeout(timer)
        set.delete(done)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      set.add(done)
      signal?.addEventListener('abort', done, { once: true })
    })

  const look = (dataset: string, partition: number, from: Position, limits: Parameters<EventLog['read']>[3]) =>
    snapshot(db, (txn): ReadResult => {
      const state = readState(db, dataset, partition, txn)
      if (state === undefined) throw unknownPartition(dataset, partition)
      return readOnce(db, dataset, partition, state, from, limits, txn)
    })

  const read: EventLog['read'] = async (dataset, partition, from, limits) => {
    const deadline = performance.now() + (limits.waitMs ?? 0)
    for (;;) {
      const result = look(dataset, partition, from, limits)
      const left = deadline - performance.now()
      const nothing = result.kind === 'records' && result.records.length === 0
      if (!nothing || left <= 0 || !isOpen || limits.signal?.aborted) return result
      await pause(dataset, partition, Math.min(left, POLL_MS), limits.signal)
      if (!isOpen) return result
    }
  }

  return {
    create: async (dataset, partitions) => {
      await appender.run(() => {
        const key = ['d', dataset]
        const stored = readValue<{ logId: string }>(db, key)
        const logId = stored?.logId ?? randomUUID()
        if (stored === undefined) void db.put(key, encodeValue(key, { formatVersion: 1, logId }))
        for (let p = 0; p < partitions; p++) {
          if (readState(db, dataset, p) !== undefined) continue
          const state: PartitionState = {
            formatVersion: 1,
            start: genesis(logId),
            end: genesis(logId),
            bytes: 0,
            events: 0,
          }
          void db.put(stateKey(dataset, p), encodeValue(stateKey(dataset, p), state))
        }
      })
    },
    partitions: async (dataset) =>
      snapshot(db, (transaction) =>
        [...db.getKeys({ start: ['p', dataset], end: ['p', dataset, Number.POSITIVE_INFINITY], transaction })].map(
          (key) => Number(key[2]),
        ),
      ),
    range: async (dataset, partition) =>
      snapshot(db, (txn) => {
        const state = readState(db, dataset, partition, txn)
        if (state === undefined) throw unknownPartition(dataset, partition)
        const { start, end, events } = state
        return {
          logId: end.logId,
          startOffset: start.offset,
          endOffset: end.offset,
          ...(events === undefined ? {} : { events }),
        }
      }),
    positionAt: async (dataset, partition, offset) =>
      snapshot(db, (txn) => {
        const state = readState(db, dataset, partition, txn)
        if (state === undefined) throw unknownPartition(dataset, partition)
        if (!Number.isInteger(offset) || offset < state.start.offset || offset > state.end.offset) return null
        return positionOf(db, dataset, partition, state, offset, txn)
      }),
    append: (dataset: string, partition: number, records: NewRecord[]) => appender.append(dataset, partition, records),
    read: (dataset, partition, from, limits) => {
      const running = read(dataset, partition, from, limits).finally(() => reads.delete(running))
      reads.add(running)
      return running
    },
    trim: async (dataset, partition, offset) => {
      while (await appender.run(() => trimSome(db, dataset, partition, offset)));
    },
    close: async () => {
      if (!isOpen) return
      isOpen = false
      for (const set of wakeUps.values()) for (const waiter of [...set]) waiter()
      await Promise.allSettled(reads)
      await appender.close()
      await db.close()
    },
  }
}

/** Opens the files. One that is shorter than its last page would kill the process when that page is touched: refused here. */
const openWhole = async (folder: string, readOnly: boolean): Promise<LogDatabase> => {
  let db: LogDatabase
  try {
    db = open({
      path: folder,
      encoding: 'binary',
      overlappingSync: false,
      // Every write here is an explicit transaction. lmdb's batch around an event turn would add a promise of its own that
      // nobody holds: on a full disk its rejection, unhandled, would end the process.
      eventTurnBatching: false,
      readOnly,
      noSubdir: false,
    })
  } catch (error) {
    throw corrupt(`${folder} cannot be opened (${error instanceof Error ? error.message : String(error)})`, error)
  }
  const { lastPageNumber, pageSize } = db.getStats() as { lastPageNumber?: number; pageSize?: number }
  const size = await stat(join(folder, 'data.mdb')).then(
    (s) => s.size,
    () => Number.POSITIVE_INFINITY,
  )
  const needed = ((lastPageNumber ?? -1) + 1) * (pageSize ?? 0)
  if (size >= needed) return db
  await db.close()
  throw corrupt(`data.mdb has ${size} bytes of ${needed}`)
}

/** Opening looks at every partition's state and last block: a format that is not known, or a torn end, refuses to start. */
const checkStored = (db: LogDatabase): void =>
  snapshot(db, (transaction) => {
    for (const key of db.getKeys({ start: ['p'], end: ['q'], transaction })) {
      const [, dataset, partition] = key as [string, string, number]
      const state = readState(db, dataset, partition, transaction)
      if (state === undefined || state.end.offset === state.start.offset) continue
      if (positionOfEnd(db, dataset, partition, state) !== state.end.fingerprint) {
        throw corrupt(`the last block of ${dataset}/${partition} does not end where the partition does`)
      }
    }
  })

const positionOfEnd = (db: LogDatabase, dataset: string, partition: number, state: PartitionState): string => {
  const last = [
    ...db.getKeys({
      start: blockKey(dataset, partition, state.end.offset),
      end: ['b', dataset, partition],
      reverse: true,
      limit: 1,
    }),
  ][0]
  const block = last && blockAt(db, state.end.logId, dataset, partition, Number(last[3]))
  if (!block || block.before.offset + block.count !== state.end.offset) return ''
  const { bytes, count } = block
  return bytes.toString('hex', 40 + (count - 1) * 40 + 16, 40 + (count - 1) * 40 + 24)
}

/** Deletes a bounded number of blocks that end at or below `offset`, in the running write transaction; true when more may be left. */
const trimSome = (db: LogDatabase, dataset: string, partition: number, offset: number): boolean => {
  const state = readState(db, dataset, partition)
  if (state === undefined) throw unknownPartition(dataset, partition)
  let { start, bytes } = state
  let deleted = 0
  while (deleted < TRIM_BLOCKS && start.offset < state.end.offset) {
    const block = blockAt(db, state.end.logId, dataset, partition, start.offset)
    if (block === undefined) throw corrupt(`record ${start.offset} of ${dataset}/${partition} is missing`)
    const after = block.before.offset + block.count
    if (after > offset) break
    void db.remove(blockKey(dataset, partition, start.offset))
    start = positionIn(block, block.count)
    bytes -= block.bytes.byteLength
    deleted++
  }
  if (deleted === 0) return false
  const key = stateKey(dataset, partition)
  void db.put(key, encodeValue(key, { ...state, start, bytes }))
  return deleted === TRIM_BLOCKS
}
