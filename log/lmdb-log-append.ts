/**
 * The writing side of the LMDB log: a queue of appends and one committer.
 * Invariant: one transaction at a time; what waits while it is flushed goes together into the next one (group commit).
 * Each append of a group has its own fate: what is refused (clock, size) does not hold up the others.
 */
import type { NewRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { encodeBlock } from './block.ts'
import { blockKey, encodeValue, type LogDatabase, readState, stateKey } from './lmdb-log-read.ts'
import {
  badRecord,
  busy,
  clockBehind,
  closed,
  diskFull,
  logFull,
  MAX_CLOCK_BEHIND_MS,
  unknownPartition,
  writeFailed,
} from './log-errors.ts'

export type AppenderOptions = {
  blockBytes: number
  maxPendingBytes: number
  maxBytes: number
  now: () => number
  committed: (dataset: string, partition: number) => void
  /** Bytes that the disk has left for the log; to tell a full disk from a broken one. */
  freeBytes: () => Promise<number>
}

/** One piece of work in a group: `write` runs inside the transaction and gives what to do after the commit, or throws. */
type Job = { bytes: number; write: () => () => void; fail: (error: unknown) => void }

/** Less than this left beyond a group's bytes (its pages and the tree above them) means that the disk is full. */
const FULL_MARGIN_BYTES = 1024 * 1024

/** A block that is larger than this gets memory of its own. */
const SCRATCH_BYTES = 2 * 1024 * 1024

/** Bytes of one group commit; more waits for the next one. */
const GROUP_BYTES = 16 * 1024 * 1024

export type Appender = {
  append(dataset: string, partition: number, records: NewRecord[]): Promise<Position>
  /** Runs a change in a write transaction of the queue; resolves, when durable, to its result. */
  run<T>(change: () => T): Promise<T>
  close(): Promise<void>
}

export const openAppender = (db: LogDatabase, options: AppenderOptions): Appender => {
  const queue: Job[] = []
  let pendingBytes = 0
  let committing: Promise<void> | undefined
  let isOpen = true
  let failed: unknown
  const scratch = newScratch()

  const commitGroup = async (): Promise<void> => {
    const group: Job[] = []
    let bytes = 0
    while (queue.length > 0 && (group.length === 0 || bytes + queue[0]!.bytes <= GROUP_BYTES)) {
      const job = queue.shift()!
      bytes += job.bytes
      group.push(job)
    }
    if (failed !== undefined) {
      // A later flush that succeeds says nothing of the pages that an earlier one lost.
      pendingBytes -= bytes
      for (const job of group) job.fail(failed)
      return
    }
    const done: { job: Job; after: () => void }[] = []
    const refused: { job: Job; error: unknown }[] = []
    try {
      // A child transaction is taken back when this throws; a plain one would keep what was put before.
      await db.childTransaction(() => {
        for (const job of group) {
          try {
            done.push({ job, after: job.write() })
          } catch (error) {
            // LMDB's own errors (a full disk inside put) poison the transaction: all of the group fails.
            if (!isRefusal(error)) throw error
            refused.push({ job, error })
          }
        }
      })
      await db.flushed
    } catch (error) {
      const reason = await writeError(error, bytes, options.freeBytes)
      if (!reason.retryable) failed = reason
      for (const job of group) job.fail(refused.find((r) => r.job === job)?.error ?? reason)
      return
    } finally {
      pendingBytes -= bytes
    }
    for (const { job, error } of refused) job.fail(error)
    for (const { after } of done) after()
  }

  const drain = async (): Promise<void> => {
    while (queue.length > 0) await commitGroup()
    committing = undefined
  }

  const enqueue = <T>(bytes: number, write: () => T, after: () => void = () => undefined): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (!isOpen) return reject(closed())
      if (failed !== undefined) return reject(failed)
      if (pendingBytes > 0 && pendingBytes + bytes > options.maxPendingBytes) {
        return reject(busy(pendingBytes + bytes, options.maxPendingBytes))
      }
      pendingBytes += bytes
      queue.push({
        bytes,
        write: () => {
          const result = write()
          return () => {
            resolve(result)
            after()
          }
        },
        fail: reject,
      })
      committing ??= Promise.resolve().then(drain)
    })

  return {
    append: async (dataset, partition, records) => {
      checkRecords(records)
      const bytes = records.reduce((sum, r) => sum + r.bytes.byteLength, 0)
      return enqueue(
        bytes,
        () => appendInTransaction(db, options, dataset, partition, records, scratch),
        () => options.committed(dataset, partition),
      )
    },
    run: (change) => enqueue(0, change),
    close: async () => {
      isOpen = false
      await committing
    },
  }
}

const isRefusal = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code.startsWith('WEIR_')

/**
 * lmdb rejects with a wrapper whose `commitError` is a promise of the cause. A full disk is a short write inside LMDB,
 * which it reports as EIO like a broken disk: the free space tells them apart. (Such a transaction ended before its root
 * page was written: nothing of it is stored.)
 */
const writeError = async (error: unknown, bytes: number, freeBytes: () => Promise<number>) => {
  let cause = error
  if (error instanceof Error && 'commitError' in error) {
    cause = await Promise.race([
      Promise.resolve(error.commitError).then(
        () => error,
        (inner: unknown) => inner,
      ),
      new Promise((resolve) => setTimeout(resolve, 100, error)),
    ])
  }
  const text = String(cause instanceof Error ? cause.message : cause)
  if (/no space left|ENOSPC|MDB_MAP_FULL|disk quota/i.test(text)) return diskFull(cause)
  if (/input\/output error|EIO/i.test(text) && (await freeBytes()) < bytes + FULL_MARGIN_BYTES) return diskFull(cause)
  return writeFailed(cause)
}

const checkRecords = (records: NewRecord[]): void => {
  for (const { recordId, bytes, events } of records) {
    if (!/^[0-9a-f]{32}$/.test(recordId)) throw badRecord(`recordId ${JSON.stringify(recordId)}`)
    if (!Number.isInteger(events) || events < 1 || events > 0xffffffff) throw badRecord(`events ${events}`)
    if (bytes.byteLength === 0 || bytes.byteLength > 0x7fffffff) throw badRecord(`${bytes.byteLength} bytes`)
  }
}

/** Memory that blocks are encoded in, one after the other: inside a transaction, `put` has copied when it returns. */
const newScratch = (): ((size: number) => Buffer) => {
  let kept = Buffer.alloc(0)
  return (size) => {
    if (size > SCRATCH_BYTES) return Buffer.allocUnsafe(size)
    if (size > kept.byteLength) kept = Buffer.allocUnsafeSlow(Math.min(SCRATCH_BYTES, 2 * size))
    return kept.subarray(0, size)
  }
}

const appendInTransaction = (
  db: LogDatabase,
  options: AppenderOptions,
  dataset: string,
  partition: number,
  records: NewRecord[],
  scratch: (size: number) => Buffer,
): Position => {
  const state = readState(db, dataset, partition)
  if (state === undefined) throw unknownPartition(dataset, partition)
  if (records.length === 0) return state.end
  const appendTimeMs = options.now()
  if (appendTimeMs < state.end.effectiveMs - MAX_CLOCK_BEHIND_MS) throw clockBehind(appendTimeMs, state.end.effectiveMs)
  if (options.maxBytes > 0) {
    let stored = 0
    for (const key of db.getKeys({ start: ['p'], end: ['q'] }))
      stored += readState(db, String(key[1]), Number(key[2]))?.bytes ?? 0
    if (stored > options.maxBytes) throw logFull(stored, options.maxBytes)
  }
  let end = state.end
  let bytes = state.bytes
  for (let i = 0; i < records.length; ) {
    const taken: { record: NewRecord; appendTimeMs: number }[] = []
    let size = 0
    while (i < records.length && (taken.length === 0 || size + records[i]!.bytes.byteLength <= options.blockBytes)) {
      const record = records[i++]!
      size += record.bytes.byteLength
      taken.push({ record, appendTimeMs })
    }
    const key = blockKey(dataset, partition, end.offset)
    const block = encodeBlock(JSON.stringify(key), end, taken, scratch)
    void db.put(key, block.bytes)
    bytes += block.bytes.byteLength
    end = block.after
  }
  const key = stateKey(dataset, partition)
  const events = state.events === undefined ? {} : { events: records.reduce((n, r) => n + r.events, state.events) }
  void db.put(key, encodeValue(key, { ...state, end, bytes, ...events }))
  return end
}
