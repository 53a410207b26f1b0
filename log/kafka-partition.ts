/**
 * Questions to the leader of one partition, and the proofs that this process already has.
 * Invariant (of a proof): in the history that `logId` names, the record before `offset` has this fingerprint, and the batch
 * that holds offset − 1 was appended under `epoch`. Since an epoch has one leader, which only appends, a log that still has
 * `epoch` up to `offset` still has that very record: the broker compares that inside each fetch (KIP-320, KIP-595).
 */
import type { LogRecord } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import {
  type Batch,
  committed,
  DamagedBatch,
  hasGap,
  OldMessageFormat,
  readBatches,
  readMessages,
} from './kafka-batch.ts'
import type { Leader } from './kafka-cluster.ts'
import { compacted, damaged, KafkaRefusal, oldFormat, refuse } from './kafka-errors.ts'
import { placeOf, RECORD_ID, recordsOf } from './kafka-record.ts'
import {
  EARLIEST,
  epochEndRequest,
  type FetchAsk,
  type Fetched,
  fetchRequest,
  LATEST,
  offsetRequest,
} from './kafka-requests.ts'

export type Proof = { position: Position; epoch: number }

/** Proofs kept of each partition, the latest used. */
const KEPT = 256

export type Proofs = {
  find(partition: string, logId: string, offset: number): Proof | undefined
  keep(partition: string, proof: Proof): void
  forget(partition: string, offset: number): void
}

export const openProofs = (): Proofs => {
  const partitions = new Map<string, Map<number, Proof>>()
  return {
    find: (partition, logId, offset) => {
      const proof = partitions.get(partition)?.get(offset)
      return proof?.position.logId === logId ? proof : undefined
    },
    keep: (partition, proof) => {
      const kept = partitions.get(partition) ?? new Map<number, Proof>()
      partitions.set(partition, kept)
      kept.delete(proof.position.offset)
      kept.set(proof.position.offset, proof)
      if (kept.size > KEPT) kept.delete(kept.keys().next().value!)
    },
    forget: (partition, offset) => void partitions.get(partition)?.delete(offset),
  }
}

/** Bytes that one batch may unpack to. */
const UNPACKED_BYTES = 128 * 1024 * 1024
const SCAN_BYTES = 1024 * 1024

/** The batches of a fetch at `offset`. Throws WEIR_LOG_CORRUPT, WEIR_LOG_MESSAGE_FORMAT, WEIR_LOG_COMPACTED. */
export const batchesOf = (topic: string, records: Buffer, offset: number): Batch[] => {
  try {
    const batches = readBatches(records)
    if (hasGap(batches, offset)) throw compacted(topic)
    return batches
  } catch (error) {
    if (error instanceof OldMessageFormat) throw oldFormat(topic, error.magic)
    if (error instanceof DamagedBatch) throw damaged(`${error.message} of topic ${topic}`, error)
    throw error
  }
}

export type PartitionView = {
  /** Where the partition began when the dataset was put on it: below it is a hole, whatever may still be stored there. */
  origin: number
  fetch(ask: Omit<FetchAsk, 'topicId' | 'partition'>): Promise<Fetched>
  /** First and end offset of what committed readers see. */
  ends(): Promise<{ low: number; end: number }>
  /** Whether the log still has `epoch` up to `offset`. */
  hasEpoch(epoch: number, offset: number): Promise<boolean>
  /** Epoch of the record at `offset`, of an open transaction too. */
  epochAt(offset: number): Promise<number>
  records(batch: Batch): Promise<LogRecord[]>
  /** The last record below `offset` and the epoch of the batch that holds offset − 1; null: only holes, from `low` or the origin on. */
  before(offset: number, low: number): Promise<{ record: LogRecord | null; epoch: number }>
  /** The first record at or after `offset`; null: none yet. */
  after(offset: number): Promise<LogRecord | null>
  /** Greatest append time of the records below `offset` that the log still has, at least `timeMs` (that of one of them). */
  greatestTime(offset: number, timeMs: number): Promise<number>
}

export const viewOf = ({ topic, send }: Leader, partition: number, origin = 0): PartitionView => {
  const place = placeOf(topic.logId, partition)
  const fetch: PartitionView['fetch'] = (ask) => send(fetchRequest({ ...ask, topicId: topic.topicId, partition }))
  const records: PartitionView['records'] = async (batch) =>
    recordsOf(batch, await readMessages(batch, [RECORD_ID], UNPACKED_BYTES), place)

  /** Batches of [from, to), aborted ones and control batches marked by being absent from `visible`. */
  const scan = async (
    from: number,
    to: number,
    see: (batch: Batch, isVisible: boolean) => Promise<boolean>,
  ): Promise<void> => {
    for (let at = from; at < to; ) {
      const fetched = await fetch({ offset: at, lastEpoch: -1, maxBytes: SCAN_BYTES, waitMs: 0 })
      refuse(fetched.error, `records of ${topic.topic}/${partition}`)
      const batches = batchesOf(topic.topic, fetched.records, at)
      if (batches.length === 0) return
      const visible = new Set(committed(batches, fetched.aborted))
      for (const batch of batches) {
        if (batch.baseOffset >= to || !(await see(batch, visible.has(batch)))) return
        at = batch.lastOffset + 1
      }
    }
  }

  return {
    origin,
    fetch,
    records,
    ends: async () => {
      const [low, end] = await Promise.all([
        send(offsetRequest(topic.topic, partition, EARLIEST)),
        send(offsetRequest(topic.topic, partition, LATEST)),
      ])
      return { low: low.offset, end: end.offset }
    },
    hasEpoch: async (epoch, offset) => {
      const found = await send(epochEndRequest(topic.topic, partition, epoch))
      return found.epoch === epoch && found.endOffset >= offset
    },
    epochAt: async (offset) => {
      const fetched = await fetch({ offset, lastEpoch: -1, maxBytes: 1, waitMs: 0, uncommitted: true })
      refuse(fetched.error, `the record at ${offset} of ${topic.topic}/${partition}`)
      const batch = batchesOf(topic.topic, fetched.records, offset).find((b) => b.lastOffset >= offset)
      if (batch === undefined) throw new KafkaRefusal(78, `the record at ${offset} of ${topic.topic}/${partition}`)
      return batch.leaderEpoch
    },
    before: async (offset, low) => {
      const first = Math.max(low, origin)
      let epoch = -1
      // Holes are rare and short, so the way back is long only where many transactions were aborted.
      for (let back = 1; ; back *= 8) {
        const from = Math.max(first, offset - back)
        let record: LogRecord | null = null
        await scan(from, offset, async (batch, isVisible) => {
          if (batch.lastOffset >= offset - 1 && batch.baseOffset < offset) epoch = batch.leaderEpoch
          // A batch is stored whole, so it may begin before what is still there.
          if (isVisible) for (const r of await records(batch)) if (r.offset >= first && r.offset < offset) record = r
          return true
        })
        if (record !== null || from <= first) return { record, epoch }
      }
    },
    after: async (offset) => {
      let found: LogRecord | null = null
      await scan(offset, Number.POSITIVE_INFINITY, async (batch, isVisible) => {
        if (isVisible) found = (await records(batch)).find((r) => r.offset >= offset) ?? null
        return found === null
      })
      return found
    },
    greatestTime: async (offset, timeMs) => {
      // "Some record below `offset` is at least as late as t" is one question to the broker's time index; t is found by
      // doubling the step upwards and halving it again.
      const isReached = async (t: number): Promise<number | null> => {
        const first = await send(offsetRequest(topic.topic, partition, t))
        return first.offset >= 0 && first.offset < offset ? first.timeMs : null
      }
      let greatest = timeMs
      for (let step = 1; step >= 1; ) {
        const found = await isReached(greatest + step)
        if (found === null) step = step > 1 ? Math.floor(step / 2) : 0
        else {
          greatest = found
          step *= 4
        }
      }
      return greatest
    },
  }
}
