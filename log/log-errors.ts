/** Errors of the event logs, in one place so that every implementation says the same. Retryable = the same append may succeed later. */
import { WeirError } from '../model/errors.ts'

export const unknownPartition = (dataset: string, partition: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_UNKNOWN_PARTITION',
    message: `The log has no partition ${partition} of dataset ${dataset}.`,
    expected: 'a dataset and partition that were created',
    got: `${dataset}/${partition}`,
    next: 'create the dataset in the log first',
  })

export const corrupt = (what: string, cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CORRUPT',
    message: `The event log is damaged: ${what}.`,
    expected: 'stored bytes that match their checksum and follow each other without a hole',
    got: what,
    next: 'stop Weir, check the disk, and bring the log folder back from a copy; archived records are still in the lake',
    cause,
  })

export const badFormat = (what: string, version: number, known: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_FORMAT',
    message: `The event log holds ${what} of format ${version}, which this version of Weir does not know.`,
    expected: `format ${known} or older`,
    got: String(version),
    next: 'start the newer version of Weir that wrote it',
  })

export const busy = (pendingBytes: number, maxPendingBytes: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_BUSY',
    message: 'Too many bytes wait to be written to the event log.',
    expected: `at most ${maxPendingBytes} bytes waiting`,
    got: `${pendingBytes} bytes`,
    next: 'retry a little later; a retry is safe',
    retryable: true,
  })

export const clockBehind = (nowMs: number, lastMs: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CLOCK_BEHIND',
    message: 'The clock is more than 5 minutes behind the last append time of this partition.',
    expected: `a time of at least ${new Date(lastMs - MAX_CLOCK_BEHIND_MS).toISOString()}`,
    got: new Date(nowMs).toISOString(),
    next: 'correct the clock; appends go on when it has caught up',
    retryable: true,
  })

export const diskFull = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_DISK_FULL',
    message: 'The disk of the event log is full; nothing of this append was stored.',
    expected: 'free space on the disk',
    next: 'free some space; reads go on, and appends work again by themselves',
    retryable: true,
    cause,
  })

export const logFull = (bytes: number, maxBytes: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_FULL',
    message: 'The event log has reached its configured size.',
    expected: `at most ${maxBytes} bytes (log.maxBytes)`,
    got: `${bytes} bytes`,
    next: 'wait until retention has removed what is archived and published, or raise log.maxBytes',
    retryable: true,
  })

/** After a failed write whose outcome is not known (an fsync error): final for this process. */
export const writeFailed = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_WRITE_FAILED',
    message: 'Writing to the event log failed; whether the append was stored is not known.',
    expected: 'a disk that takes writes',
    got: cause instanceof Error ? cause.message : String(cause),
    next: 'check the disk and restart Weir; a retry with the same idempotency key is safe',
    cause,
  })

export const closed = (): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CLOSED',
    message: 'The event log is closed.',
    expected: 'a log that is open',
    next: 'retry when Weir runs again',
    retryable: true,
  })

export const badRecord = (what: string): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_BAD_RECORD',
    message: `A record cannot be appended: ${what}.`,
    expected: 'recordId of 32 hex digits, at least one byte, events ≥ 1',
    got: what,
    next: 'this is a fault in the caller',
  })

/** How far the clock may be behind the last append time before appends are refused (DESIGN §6). */
export const MAX_CLOCK_BEHIND_MS = 5 * 60_000
