/**
 * Records that were read but not archived yet, of one partition, in memory and bounded in bytes.
 * Invariant: the records follow `base` without a gap, and each read proved the record before it (rule 5), so a buffer whose base is
 * the lake's position may be committed; on any doubt it is thrown away and read again.
 */
import type { EventLog, LogRecord, ReadResult } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'

export type Pending = {
  base: Position
  records: LogRecord[]
  /** Effective append time (ms) of each record. */
  effectiveMs: number[]
  bytes: number
  /** Position after the last record; beyond it where the log has holes. */
  to: Position
  /** When the first record was seen here, ms; null while there is none. */
  sinceMs: number | null
}

export const emptyPending = (base: Position): Pending => ({
  base,
  records: [],
  effectiveMs: [],
  bytes: 0,
  to: base,
  sinceMs: null,
})

/**
 * Reads on until the buffer holds `maxBytes`, or all there is, or offset `upTo`. A misfit at the buffer's end, which may be young, is
 * tried again from the base; the result is the log's last word.
 */
export const fill = async (
  log: EventLog,
  dataset: string,
  partition: number,
  pending: Pending,
  limits: { maxBytes: number; upTo: number; nowMs: number },
): Promise<Exclude<ReadResult, { kind: 'records' }> | { kind: 'filled' }> => {
  let again = false
  for (;;) {
    if (
      pending.bytes >= limits.maxBytes ||
      (pending.to.offset >= limits.upTo && pending.to.offset > pending.base.offset)
    )
      return { kind: 'filled' }
    const result = await log.read(dataset, partition, pending.to, { maxBytes: limits.maxBytes - pending.bytes })
    if (result.kind !== 'records') {
      if (pending.to.offset === pending.base.offset) return result
      Object.assign(pending, emptyPending(pending.base))
      // A log that changes while it is read is looked at again by the next step.
      if (again) return { kind: 'filled' }
      again = true
      continue
    }
    let effective = pending.to.effectiveMs
    for (const record of result.records) {
      effective = Math.max(effective, record.appendTimeMs)
      pending.records.push(record)
      pending.effectiveMs.push(effective)
      pending.bytes += record.bytes.length
    }
    const moved = result.to.offset > pending.to.offset
    pending.to = result.to
    if (moved) pending.sinceMs ??= limits.nowMs
    if (!moved) return { kind: 'filled' }
  }
}

export type Slice = { from: Position; to: Position; records: LogRecord[]; effectiveMs: number[] }

/** The buffer's records below an offset, and the position there. */
export const sliceOf = (pending: Pending, upTo: number): Slice => {
  const { base, records, effectiveMs, to } = pending
  if (upTo >= to.offset) return { from: base, to, records, effectiveMs }
  let n = records.findIndex((r) => r.offset >= upTo)
  if (n < 0) n = records.length
  const last = records[n - 1]
  const position = last
    ? { logId: base.logId, offset: upTo, fingerprint: last.fingerprint, effectiveMs: effectiveMs[n - 1]! }
    : { ...base, offset: upTo }
  return { from: base, to: position, records: records.slice(0, n), effectiveMs: effectiveMs.slice(0, n) }
}

/** What is left after a slice was committed. */
export const dropSlice = (pending: Pending, slice: Slice, nowMs: number): Pending => {
  const records = pending.records.slice(slice.records.length)
  return {
    base: slice.to,
    records,
    effectiveMs: pending.effectiveMs.slice(slice.records.length),
    bytes: records.reduce((n, r) => n + r.bytes.length, 0),
    to: pending.to,
    sinceMs: pending.to.offset > slice.to.offset ? nowMs : null,
  }
}
