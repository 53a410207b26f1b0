/**
 * Our own requests: Metadata 12 and Fetch 13 (with topic ids), ListOffsets 5 and OffsetForLeaderEpoch 3 (with leader epochs),
 * Produce 7. Pure: each gives the encoded request and how its answer is read. Layouts: kafka.apache.org/protocol.
 */
import type { Request } from './kafka-connections.ts'
import { refuse } from './kafka-errors.ts'
import { newReader, newWriter, type Reader, type Writer } from './kafka-wire.ts'

const READ_COMMITTED = 1
const CONSUMER = -1
const NO_ID = Buffer.alloc(16)

export type TopicMetadata = {
  error: number
  topic: string
  topicId: string
  /** In ascending order; leader −1: none at the moment. */
  partitions: { partition: number; leader: number }[]
}
export type ClusterMetadata = {
  clusterId: string
  controllerId: number
  brokers: { nodeId: number; host: string; port: number }[]
  topics: TopicMetadata[]
}

export const metadataRequest = (topics: string[]): Request<ClusterMetadata> => {
  const w = newWriter()
  // Flexible request headers end with tagged fields, which kafkajs' header lacks: so do the bodies below begin.
  w.tags().compactArray(topics, (topic) => w.raw(NO_ID).compactString(topic).tags())
  w.int8(0).int8(0).tags() // never creates a topic; no authorized operations
  return {
    apiKey: 3,
    apiVersion: 12,
    apiName: 'Metadata',
    body: w.done(),
    decode: (payload) => {
      const r = newReader(payload)
      r.tags()
      r.int32() // throttle
      const brokers = r.compactArray(() => {
        const broker = { nodeId: r.int32(), host: r.compactString() ?? '', port: r.int32() }
        r.compactString() // rack
        r.tags()
        return broker
      })
      const clusterId = r.compactString() ?? ''
      const controllerId = r.int32()
      const found = r.compactArray(() => {
        const head = { error: r.int16(), topic: r.compactString() ?? '', topicId: r.uuid() }
        r.int8() // internal
        const partitions = r.compactArray(() => {
          r.int16() // error: the leader says it
          const partition = { partition: r.int32(), leader: r.int32() }
          r.int32() // leader epoch
          for (let list = 0; list < 3; list++) r.compactArray(() => r.int32()) // replicas, in sync, offline
          r.tags()
          return partition
        })
        r.int32() // authorized operations
        r.tags()
        return { ...head, partitions: partitions.sort((a, b) => a.partition - b.partition) }
      })
      return { clusterId, controllerId, brokers, topics: found }
    },
  }
}

export type FetchAsk = {
  topicId: string
  partition: number
  offset: number
  /** Epoch of the record before `offset`, for the broker to compare; −1: none. */
  lastEpoch: number
  maxBytes: number
  waitMs: number
  /** Also what open and aborted transactions wrote. */
  uncommitted?: boolean
}
export type Fetched = {
  error: number
  /** Exclusive end of what committed readers see. */
  lastStableOffset: number
  logStartOffset: number
  aborted: { producerId: bigint; firstOffset: number }[]
  /** Set when the log has no record of `lastEpoch` just before `offset`. */
  diverging: boolean
  /** Record batches as stored; the last one may be cut off. */
  records: Buffer
}

export const fetchRequest = (ask: FetchAsk): Request<Fetched> => {
  const w = newWriter()
  w.tags()
    .int32(CONSUMER)
    .int32(ask.waitMs)
    .int32(1)
    .int32(ask.maxBytes)
    .int8(ask.uncommitted ? 0 : READ_COMMITTED)
  w.int32(0).int32(-1) // no fetch session
  w.compactArray([ask], ({ topicId, partition, offset, lastEpoch, maxBytes }) => {
    w.uuid(topicId).compactArray([partition], (p) => {
      w.int32(p).int32(-1).int64(offset).int32(lastEpoch).int64(-1).int32(maxBytes).tags()
    })
    w.tags()
  })
  w.compactArray([], () => undefined)
    .compactString('')
    .tags()
  return {
    apiKey: 1,
    apiVersion: 13,
    apiName: 'Fetch',
    body: w.done(),
    waitMs: ask.waitMs,
    decode: (payload) => {
      const r = newReader(payload)
      r.tags()
      r.int32() // throttle: the broker has already waited
      refuse(r.int16(), 'a fetch')
      r.int32() // session
      const answers = r.compactArray(() => {
        r.uuid()
        const partitions = r.compactArray((): Fetched => {
          r.int32() // partition
          const error = r.int16()
          r.int64() // high watermark
          const lastStableOffset = r.int64()
          const logStartOffset = r.int64()
          const aborted = r.compactArray(() => {
            const transaction = { producerId: r.bigint64(), firstOffset: r.int64() }
            r.tags()
            return transaction
          })
          r.int32() // preferred read replica
          const records = r.compactBytes() ?? Buffer.alloc(0)
          let diverging = false
          r.tags({ 0: () => (diverging = true) })
          return { error, lastStableOffset, logStartOffset, aborted, diverging, records }
        })
        r.tags()
        return partitions
      })
      const answer = answers.flat()[0]
      if (answer === undefined) throw new RangeError('a fetch without its partition')
      return answer
    },
  }
}

export const LATEST = -1
export const EARLIEST = -2

/** A question about one partition, known by its topic's name: `head` stands before the topics, `say` is asked of the partition, `hear` reads its answer. */
const askOne = <T extends { error: number }>(
  api: { apiKey: number; apiVersion: number; apiName: string },
  [topic, partition]: [topic: string, partition: number],
  what: string,
  { head, say, hear }: { head(w: Writer): unknown; say(w: Writer): unknown; hear(r: Reader): T },
): Request<Omit<T, 'error'>> => {
  const w = newWriter()
  head(w)
  w.array([topic], () => void w.string(topic).array([partition], () => say(w.int32(partition).int32(-1))))
  return {
    ...api,
    body: w.done(),
    decode: (payload) => {
      const r = newReader(payload)
      r.int32() // throttle
      const answers = r.array(() => {
        r.string()
        return r.array(() => hear(r))
      })
      const { error, ...answer } = answers.flat()[0]!
      refuse(error, `${what} of ${topic}/${partition}`)
      return answer
    },
  }
}

/** `timeMs`: the first offset whose record is at least as late; LATEST, EARLIEST: the log's ends. Offset −1: none. */
export const offsetRequest = (topic: string, partition: number, timeMs: number) =>
  askOne({ apiKey: 2, apiVersion: 5, apiName: 'ListOffsets' }, [topic, partition], 'the offsets', {
    head: (w) => w.int32(CONSUMER).int8(READ_COMMITTED),
    say: (w) => w.int64(timeMs),
    hear: (r) => {
      r.int32() // partition
      const at = { error: r.int16(), timeMs: r.int64(), offset: r.int64() }
      r.int32() // leader epoch
      return at
    },
  })

/** The latest epoch that is not after `epoch`, and where it ends (exclusive); epoch −1: no such epoch. */
export const epochEndRequest = (topic: string, partition: number, epoch: number) =>
  askOne({ apiKey: 23, apiVersion: 3, apiName: 'OffsetForLeaderEpoch' }, [topic, partition], 'the epochs', {
    head: (w) => w.int32(CONSUMER),
    say: (w) => w.int32(epoch),
    hear: (r) => {
      const error = r.int16()
      r.int32() // partition
      return { error, epoch: r.int32(), endOffset: r.int64() }
    },
  })

/** Appends one record batch with acks = all; `appendTimeMs` is null where the topic keeps the producer's times. */
export const produceRequest = (
  topic: string,
  partition: number,
  batch: Buffer,
  timeoutMs: number,
): Request<{ baseOffset: number; appendTimeMs: number | null }> => {
  const w = newWriter(batch.byteLength + topic.length * 3 + 64)
  w.string(null).int16(-1).int32(timeoutMs)
  w.array([topic], () => {
    w.string(topic).array([partition], () => w.int32(partition).bytes(batch))
  })
  return {
    apiKey: 0,
    apiVersion: 7,
    apiName: 'Produce',
    body: w.done(),
    waitMs: timeoutMs,
    decode: (payload) => {
      const r = newReader(payload)
      const answers = r.array(() => {
        r.string()
        return r.array(() => {
          r.int32() // partition
          const error = r.int16()
          const [baseOffset, appendTimeMs] = [r.int64(), r.int64()]
          r.int64() // log start
          return { error, baseOffset, appendTimeMs: appendTimeMs < 0 ? null : appendTimeMs }
        })
      })
      const { error, ...stored } = answers.flat()[0]!
      refuse(error, `an append to ${topic}/${partition}`)
      return stored
    },
  }
}
