/**
 * Reading a partition by raw fetches from a position that the caller keeps: no consumer group, no stored offset, no reset.
 * Invariant: records are given only from a fetch that also proved the record before them: by its bytes the first time, and
 * from then on by its leader epoch, which the broker compares inside the fetch (see kafka-partition).
 */
import type { LogRecord, ReadLimits, ReadResult } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { type Batch, committed } from './kafka-batch.ts'
import type { Cluster, Leader } from './kafka-cluster.ts'
import { clockAhead, KAFKA, KafkaRefusal, refuse } from './kafka-errors.ts'
import type { OriginOf } from './kafka-origin.ts'
import { batchesOf, type PartitionView, type Proofs, viewOf } from './kafka-partition.ts'
import type { Fetched } from './kafka-requests.ts'
import { MAX_CLOCK_BEHIND_MS } from './log-errors.ts'

export type ReaderOptions = {
  /** Longest wait of one fetch, ms. */
  pollMs: number
  now(): number
  alarm(error: Error): void
  originOf: OriginOf
  isOpen(): boolean
}

export type Reader = (topic: string, partition: number, from: Position, limits: ReadLimits) => Promise<ReadResult>

/** `at`: where to begin: `from`, or the origin from below it. */
type Look = { view: PartitionView; leader: Leader; key: string; partition: number; from: Position; at: number }
/** Where the next fetch begins, and the epoch of the batch before it. */
type Place = { offset: number; epoch: number }
type Refusal = Exclude<ReadResult, { kind: 'records' }>

export const openReader = (cluster: Cluster, proofs: Proofs, options: ReaderOptions): Reader => {
  const alarmed = new Map<string, number>()
  const checkClock = (topic: string, partition: number, effectiveMs: number): void => {
    const nowMs = options.now()
    if (effectiveMs <= nowMs + MAX_CLOCK_BEHIND_MS) return
    const key = `${topic}/${partition}`
    if (nowMs - (alarmed.get(key) ?? Number.NEGATIVE_INFINITY) < 60_000) return
    alarmed.set(key, nowMs)
    options.alarm(clockAhead(topic, partition, effectiveMs, nowMs))
  }

  /** From a place that is proven: fetches until a record is there, the waiting is over, or the broker refuses. */
  const follow = async (look: Look, place: Place, limits: ReadLimits, deadline: number): Promise<ReadResult> => {
    const { view, from, key } = look
    let { offset, epoch } = place
    for (;;) {
      const left = Math.max(0, deadline - performance.now())
      const waitMs = Math.ceil(Math.min(left, options.pollMs))
      const fetched = await view.fetch({ offset, lastEpoch: epoch, maxBytes: Math.max(1, limits.maxBytes), waitMs })
      if (fetched.diverging) {
        // The log no longer has that epoch there. What is in it now is decided by the bytes.
        proofs.forget(key, from.offset)
        return proveAndFollow(look, limits, deadline)
      }
      if (fetched.error === KAFKA.offsetOutOfRange) {
        // Also the answer where the broker no longer knows the epoch: the next try compares bytes.
        proofs.forget(key, from.offset)
        return outOfRange(look)
      }
      refuse(fetched.error, `records of ${look.leader.topic.topic}/${look.partition}`)
      const batches = batchesOf(look.leader.topic.topic, fetched.records, offset)
      const last = batches.at(-1)
      if (last !== undefined) [offset, epoch] = [last.lastOffset + 1, last.leaderEpoch]
      const taken = await takeRecords(look, batches, fetched, limits)
      const logEndOffset = fetched.lastStableOffset
      if (taken.records.length > 0) {
        const to = positionAfter(from, taken.records)
        proofs.keep(key, { position: to, epoch: taken.epoch })
        checkClock(look.leader.topic.topic, look.partition, to.effectiveMs)
        // Holes at the very end are no records to come.
        const atEnd = taken.all && offset >= logEndOffset
        return { kind: 'records', records: taken.records, to, logEndOffset: atEnd ? to.offset : logEndOffset }
      }
      if (last !== undefined) continue
      if (performance.now() >= deadline || limits.signal?.aborted || !options.isOpen()) {
        return { kind: 'records', records: [], to: from, logEndOffset: from.offset }
      }
    }
  }

  /** Proves the record before `from` by its bytes, then goes on. */
  const proveAndFollow = async (look: Look, limits: ReadLimits, deadline: number): Promise<ReadResult> => {
    const proven = await prove(look)
    if ('kind' in proven) return proven
    proofs.keep(look.key, { position: look.from, epoch: proven.epoch })
    return follow(look, { offset: look.at, epoch: proven.epoch }, limits, deadline)
  }

  const look = async (leader: Leader, partition: number, from: Position, limits: ReadLimits, deadline: number) => {
    const { topic } = leader
    const view = viewOf(leader, partition, options.originOf(topic, partition))
    const key = `${topic.topic}/${partition}`
    const looked: Look = { view, leader, key, partition, from, at: Math.max(from.offset, view.origin) }
    if (from.offset <= view.origin) {
      // Nothing is before it. That the log still begins there is proven by the fetch, which is refused elsewhere.
      if (from.fingerprint !== '') return { kind: 'replaced' } as const
      return follow(looked, { offset: looked.at, epoch: -1 }, limits, deadline)
    }
    const proof = proofs.find(key, from.logId, from.offset)
    if (proof === undefined || proof.position.fingerprint !== from.fingerprint) {
      return proveAndFollow(looked, limits, deadline)
    }
    return follow(looked, { offset: from.offset, epoch: proof.epoch }, limits, deadline)
  }

  return async (name, partition, from, limits) => {
    const deadline = performance.now() + (limits.waitMs ?? 0)
    return cluster.onLeader(name, partition, `reading ${name}/${partition}`, async (leader) => {
      if (leader.topic.logId !== from.logId) {
        // Either the position is of another log, or what we know of the topic is old.
        const fresh = await cluster.topic(name, 0)
        if (fresh !== null && fresh.logId !== from.logId) return { kind: 'replaced' }
        throw new KafkaRefusal(KAFKA.unknownTopicId, `topic ${name}`)
      }
      return look(leader, partition, from, limits, deadline)
    })
  }
}

const positionAfter = (from: Position, records: LogRecord[]): Position => {
  const last = records.at(-1)!
  const effectiveMs = records.reduce((max, r) => Math.max(max, r.appendTimeMs), from.effectiveMs)
  return { logId: from.logId, offset: last.offset + 1, fingerprint: last.fingerprint, effectiveMs }
}

/** Records from `from` on within the limits, one at least; `all`: nothing of the fetch was left over. `epoch`: of the last one. */
const takeRecords = async (
  { view, at }: Look,
  batches: Batch[],
  { aborted }: Fetched,
  limits: ReadLimits,
): Promise<{ records: LogRecord[]; all: boolean; epoch: number }> => {
  const records: LogRecord[] = []
  let epoch = -1
  let room = limits.maxBytes
  for (const batch of committed(batches, aborted)) {
    for (const record of await view.records(batch)) {
      // A batch is stored whole, so it may begin before the offset asked for.
      if (record.offset < at) continue
      const isFull = record.bytes.byteLength > room || records.length >= (limits.maxRecords ?? Number.POSITIVE_INFINITY)
      if (records.length > 0 && isFull) return { records, all: false, epoch }
      room -= record.bytes.byteLength
      epoch = batch.leaderEpoch
      records.push(record)
    }
  }
  return { records, all: true, epoch }
}

const prove = async (look: Look): Promise<{ epoch: number } | Refusal> => {
  const { view, from } = look
  const { low, end } = await view.ends()
  // At the log's very start nothing is left to be compared with, so such a position counts as below it.
  if (from.offset <= low) return belowStart(view, low)
  if (from.offset > end) return beyondEnd(look, end)
  const { record, epoch } = await view.before(from.offset, low)
  if (record === null && low > view.origin) return belowStart(view, low)
  if ((record?.fingerprint ?? '') !== from.fingerprint) return { kind: 'replaced' }
  return { epoch }
}

/** Where the first position is whose record before it is still there; up to the origin nothing is missing. */
export const provableStart = async (view: PartitionView, low: number): Promise<number> => {
  if (low <= view.origin) return 0
  const first = await view.after(low)
  return first === null ? low : first.offset + 1
}

const belowStart = async (view: PartitionView, low: number): Promise<Refusal> => ({
  kind: 'below-start',
  startOffset: await provableStart(view, low),
})

/** A new leader may show less than was committed until it has heard from the others: the log is shorter only if its own end is. */
const beyondEnd = async ({ view, leader, partition, at }: Look, end: number): Promise<Refusal> => {
  const { error } = await view.fetch({ offset: at, lastEpoch: -1, maxBytes: 1, waitMs: 0 })
  if (error === KAFKA.offsetOutOfRange) return { kind: 'beyond-end', endOffset: end }
  throw new KafkaRefusal(78, `the end of ${leader.topic.topic}/${partition}`)
}

const outOfRange = async ({ view, leader, partition, at }: Look): Promise<Refusal> => {
  const { low, end } = await view.ends()
  if (at < low) return belowStart(view, low)
  if (at > end) return { kind: 'beyond-end', endOffset: end }
  throw new KafkaRefusal(78, `the range of ${leader.topic.topic}/${partition}`)
}
