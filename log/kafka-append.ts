/**
 * The writing side of the Kafka log: one queue for each partition, one send at a time; what waits meanwhile goes together.
 * Invariant: an append is acknowledged only after acks = all for its last record. A send without an answer is sent again to the
 * same partition under the same record ids: it may then be twice in the log, where the second one is a duplicate.
 */
import type { NewRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import { encodeBatch } from './kafka-batch.ts'
import type { Cluster } from './kafka-cluster.ts'
import { KAFKA, recordTooLarge, refusalOf } from './kafka-errors.ts'
import { viewOf } from './kafka-partition.ts'
import { messageOf, ownFingerprint } from './kafka-record.ts'
import { produceRequest } from './kafka-requests.ts'
import { busy, closed } from './log-errors.ts'

export type ProducerOptions = {
  /** Payload of one send; it must stay below the topic's max.message.bytes. */
  sendBytes: number
  /** Bytes that may wait before appends are refused with WEIR_LOG_BUSY. */
  maxPendingBytes: number
  produceTimeoutMs: number
  compression: 'none' | 'gzip'
  now(): number
  isOpen(): boolean
}

export type Producer = (topic: string, partition: number, records: NewRecord[]) => Promise<Position>

type Job = { records: NewRecord[]; bytes: number; resolve(position: Position): void; reject(error: unknown): void }
type Queue = {
  jobs: Job[]
  running: boolean
  hint?: { logId: string; epoch: number; from: number; effectiveMs: number }
}

/** Position after the first n records of a send. */
type After = (n: number) => Position
type Stored = { baseOffset: number; appendTimeMs: number }

/** Headers and framing of one record, about. */
const OVERHEAD_BYTES = 128

export const openProducer = (cluster: Cluster, options: ProducerOptions): Producer => {
  const queues = new Map<string, Queue>()
  let pendingBytes = 0

  const produce = (topic: string, partition: number, records: NewRecord[]): Promise<Stored> =>
    cluster.onLeader(topic, partition, `appending to ${topic}/${partition}`, async (leader) => {
      const sentMs = options.now()
      const batch = await encodeBatch(records.map(messageOf), sentMs, options.compression)
      try {
        const stored = await leader.send(produceRequest(topic, partition, batch, options.produceTimeoutMs))
        return { baseOffset: stored.baseOffset, appendTimeMs: stored.appendTimeMs ?? sentMs }
      } catch (error) {
        const code = refusalOf(error)
        const isTooLarge = code === KAFKA.messageTooLarge || code === KAFKA.recordListTooLarge
        throw isTooLarge ? recordTooLarge(batch.byteLength, error) : error
      }
    })

  /** Positions in a send that was answered: the answer lacks the leader epoch. */
  const positions = (topic: string, partition: number, queue: Queue, records: NewRecord[], stored: Stored) =>
    cluster.onLeader(topic, partition, `the epoch of ${topic}/${partition}`, async (leader): Promise<After> => {
      const { baseOffset, appendTimeMs } = stored
      const { logId } = leader.topic
      const view = viewOf(leader, partition)
      // Within an epoch a log is only appended to, so an epoch seen below and still open above holds all between.
      const known = queue.hint?.logId === logId && queue.hint.from <= baseOffset ? queue.hint : undefined
      const isSame = known !== undefined && (await view.hasEpoch(known.epoch, baseOffset + records.length))
      const epoch = isSame ? known.epoch : await view.epochAt(baseOffset)
      const effectiveMs = Math.max(known?.effectiveMs ?? 0, appendTimeMs)
      queue.hint = { logId, epoch, from: baseOffset, effectiveMs }
      const after: After = (n) => {
        const fingerprint = ownFingerprint(epoch, baseOffset + n - 1, records[n - 1]!.recordId)
        return { logId, offset: baseOffset + n, fingerprint, effectiveMs }
      }
      return after
    })

  const drain = async (topic: string, partition: number, queue: Queue): Promise<void> => {
    queue.running = true
    while (queue.jobs.length > 0) {
      // Whole appends while they fit; a larger one goes in several sends, with nothing of ours between them.
      const group: Job[] = [queue.jobs.shift()!]
      let bytes = group[0]!.bytes
      while (queue.jobs.length > 0 && bytes + queue.jobs[0]!.bytes <= options.sendBytes) {
        bytes += queue.jobs[0]!.bytes
        group.push(queue.jobs.shift()!)
      }
      try {
        // A group has several parts only when it is a single append larger than one send.
        let after: After | undefined
        let last = 0
        for (const part of cutRecords(
          group.flatMap((job) => job.records),
          options.sendBytes,
        )) {
          if (!options.isOpen()) throw closed()
          after = await positions(topic, partition, queue, part, await produce(topic, partition, part))
          last = part.length
        }
        let n = 0
        for (const job of group) {
          n += job.records.length
          job.resolve(after!(group.length === 1 ? last : n))
        }
      } catch (error) {
        for (const job of group) job.reject(error)
      } finally {
        for (const job of group) pendingBytes -= job.bytes
      }
    }
    queue.running = false
  }

  return (topic, partition, records) =>
    new Promise<Position>((resolve, reject) => {
      const bytes = records.reduce((sum, r) => sum + r.bytes.byteLength + OVERHEAD_BYTES, 0)
      if (pendingBytes > 0 && pendingBytes + bytes > options.maxPendingBytes) {
        return reject(busy(pendingBytes + bytes, options.maxPendingBytes))
      }
      pendingBytes += bytes
      const key = `${topic}/${partition}`
      const queue = queues.get(key) ?? { jobs: [], running: false }
      queues.set(key, queue)
      queue.jobs.push({ records, bytes, resolve, reject })
      if (!queue.running) void drain(topic, partition, queue)
    })
}

/** Consecutive records in parts of at most `bytes`; a larger record is a part of its own. */
export const cutRecords = (records: NewRecord[], bytes: number): NewRecord[][] => {
  const parts: NewRecord[][] = []
  let size = 0
  for (const record of records) {
    const more = record.bytes.byteLength + OVERHEAD_BYTES
    if (parts.length === 0 || size + more > bytes) {
      parts.push([])
      size = 0
    }
    parts.at(-1)!.push(record)
    size += more
  }
  return parts
}
