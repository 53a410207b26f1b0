/**
 * An event log in memory with the promises of the port, and the faults of a real one: its tail is cut off and grows again,
 * its records are trimmed, another log takes its name.
 * Invariant: a fingerprint identifies the append: equal bytes appended again, also after a truncation, have another one.
 */
import { createHash } from 'node:crypto'
import { WeirError } from '../../model/errors.ts'
import type { EventLog, LogRecord, ReadResult } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'

type Partition = { start: Position; records: LogRecord[] /** position after each record */; after: Position[] }
type Topic = { logId: string; partitions: Partition[] }

export type MemoryLog = EventLog & {
  /** The clock of append times, ms; the test sets it. */
  clock: { now: number }
  /** Cuts the tail off: records from `offset` on are gone; what is appended next takes their offsets. */
  truncate(dataset: string, partition: number, offset: number): void
  /** Another, empty log under the same name and with as many partitions. */
  replace(dataset: string): void
  /** A handle that can be closed while the log goes on. */
  handle(): EventLog
}

const MAX_CLOCK_BEHIND_MS = 5 * 60_000

const refused = (code: string, message: string, retryable: boolean): WeirError =>
  new WeirError({ code, message, expected: 'an append that the log takes', next: 'see the code', retryable })

export const openMemoryLog = (options: { clock?: { now: number } } = {}): MemoryLog => {
  const clock = options.clock ?? { now: Date.UTC(2026, 10, 24) }
  const topics = new Map<string, Topic>()
  const waiting = new Set<() => void>()
  let appends = 0
  let logs = 0

  const of = (dataset: string, partition: number): { topic: Topic; part: Partition } => {
    const topic = topics.get(dataset)
    const part = topic?.partitions[partition]
    if (topic === undefined || part === undefined)
      throw refused('WEIR_LOG_UNKNOWN_PARTITION', `no ${dataset}/${partition}`, false)
    return { topic, part }
  }
  const endOf = (part: Partition): Position => part.after.at(-1) ?? part.start
  const positionIn = (part: Partition, offset: number): Position | null => {
    const index = offset - part.start.offset
    if (!Number.isInteger(offset) || index < 0 || index > part.records.length) return null
    return index === 0 ? part.start : part.after[index - 1]!
  }
  const wake = (): void => {
    for (const waiter of [...waiting]) waiter()
  }

  const look = (
    dataset: string,
    partition: number,
    from: Position,
    maxBytes: number,
    maxRecords: number,
  ): ReadResult => {
    const { topic, part } = of(dataset, partition)
    const end = endOf(part)
    if (from.logId !== topic.logId) return { kind: 'replaced' }
    if (from.offset < part.start.offset) return { kind: 'below-start', startOffset: part.start.offset }
    if (from.offset > end.offset) return { kind: 'beyond-end', endOffset: end.offset }
    const own = positionIn(part, from.offset)!
    if (own.fingerprint !== from.fingerprint) return { kind: 'replaced' }
    const records: LogRecord[] = []
    let bytes = 0
    for (const record of part.records.slice(from.offset - part.start.offset)) {
      if (records.length >= maxRecords) break
      if (records.length > 0 && bytes + record.bytes.byteLength > maxBytes) break
      bytes += record.bytes.byteLength
      records.push({ ...record, bytes: Uint8Array.from(record.bytes) })
    }
    return { kind: 'records', records, to: positionIn(part, from.offset + records.length)!, logEndOffset: end.offset }
  }

  const handle = (): EventLog => {
    let isOpen = true
    return {
      create: async (dataset, partitions) => {
        const topic = topics.get(dataset) ?? { logId: `memory-${++logs}`, partitions: [] }
        topics.set(dataset, topic)
        while (topic.partitions.length < partitions)
          topic.partitions.push({ start: genesis(topic.logId), records: [], after: [] })
      },
      partitions: async (dataset) => (topics.get(dataset)?.partitions ?? []).map((_, p) => p),
      range: async (dataset, partition) => {
        const { topic, part } = of(dataset, partition)
        return { logId: topic.logId, startOffset: part.start.offset, endOffset: endOf(part).offset }
      },
      positionAt: async (dataset, partition, offset) => positionIn(of(dataset, partition).part, offset),
      append: async (dataset, partition, records) => {
        if (!isOpen) throw refused('WEIR_LOG_CLOSED', 'closed', true)
        const { topic, part } = of(dataset, partition)
        for (const r of records)
          if (!/^[0-9a-f]{32}$/.test(r.recordId) || r.events < 1 || r.bytes.byteLength === 0)
            throw refused('WEIR_LOG_BAD_RECORD', 'a record that is none', false)
        if (records.length > 0 && clock.now < endOf(part).effectiveMs - MAX_CLOCK_BEHIND_MS)
          throw refused('WEIR_LOG_CLOCK_BEHIND', 'the clock is behind', true)
        for (const record of records) {
          const before = endOf(part)
          const fingerprint = createHash('sha256')
            .update(`${before.fingerprint}/${record.recordId}/${clock.now}/${++appends}/`)
            .update(record.bytes)
            .digest('hex')
            .slice(0, 16)
          part.records.push({
            ...record,
            bytes: Uint8Array.from(record.bytes),
            offset: before.offset,
            appendTimeMs: clock.now,
            fingerprint,
          })
          const effectiveMs = Math.max(before.effectiveMs, clock.now)
          part.after.push({ logId: topic.logId, offset: before.offset + 1, fingerprint, effectiveMs })
        }
        wake()
        return endOf(part)
      },
      read: async (dataset, partition, from, limits) => {
        const deadline = performance.now() + (limits.waitMs ?? 0)
        for (;;) {
          const found = look(dataset, partition, from, limits.maxBytes, limits.maxRecords ?? Number.POSITIVE_INFINITY)
          const left = deadline - performance.now()
          const nothing = found.kind === 'records' && found.records.length === 0
          if (!nothing || left <= 0 || !isOpen || limits.signal?.aborted) return found
          await new Promise<void>((resolve) => {
            const done = (): void => {
              clearTimeout(timer)
              waiting.delete(done)
              limits.signal?.removeEventListener('abort', done)
              resolve()
            }
            const timer = setTimeout(done, left)
            waiting.add(done)
            limits.signal?.addEventListener('abort', done, { once: true })
          })
        }
      },
      trim: async (dataset, partition, offset) => {
        const { part } = of(dataset, partition)
        const index = Math.min(Math.max(0, offset - part.start.offset), part.records.length)
        part.start = positionIn(part, part.start.offset + index)!
        part.records.splice(0, index)
        part.after.splice(0, index)
      },
      close: async () => {
        isOpen = false
        wake()
      },
    }
  }

  return {
    ...handle(),
    clock,
    handle,
    truncate: (dataset, partition, offset) => {
      const { part } = of(dataset, partition)
      const keep = Math.max(0, offset - part.start.offset)
      part.records.length = Math.min(part.records.length, keep)
      part.after.length = Math.min(part.after.length, keep)
      wake()
    },
    replace: (dataset) => {
      const logId = `memory-${++logs}`
      const old = topics.get(dataset)
      const partitions = (old?.partitions ?? []).map(() => ({ start: genesis(logId), records: [], after: [] }))
      topics.set(dataset, { logId, partitions })
      wake()
    },
  }
}
