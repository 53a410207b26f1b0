/** Topics as somebody else makes, fills and deletes them: with kafkajs, not with the log under test. */
import { createHash, randomBytes } from 'node:crypto'
import { type Admin, Kafka, type KafkaConfig, logLevel, Partitioners, type Producer } from 'kafkajs'
import type { LogRecord, NewRecord, ReadResult } from '../../model/ports/event-log.ts'

export const freshTopic = (name: string): string => `test-${name}-${randomBytes(6).toString('hex')}`

export const kafkaOf = (brokers: string, more: Partial<KafkaConfig> = {}): Kafka =>
  new Kafka({ brokers: brokers.split(','), logLevel: logLevel.NOTHING, ...more })

export type TopicTools = {
  admin: Admin
  /** A producer that is closed with the tools. */
  producer(options?: Parameters<Kafka['producer']>[0]): Promise<Producer>
  make(topic: string, partitions?: number, settings?: Record<string, string>): Promise<void>
  /** Deletes a topic, if it exists, and waits until it is gone. */
  remove(topic: string): Promise<void>
  close(): Promise<void>
}

/** Waits for a condition; throws after `ms`. */
export const until = async (what: string, holds: () => Promise<boolean> | boolean, ms = 20_000): Promise<void> => {
  const deadline = performance.now() + ms
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not in ${ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

export const openTopicTools = (brokers: string): TopicTools => {
  const kafka = kafkaOf(brokers)
  const admin = kafka.admin()
  const producers: Producer[] = []
  let connected: Promise<void> | undefined
  const connect = () => (connected ??= admin.connect())
  const exists = async (topic: string): Promise<boolean> => (await admin.listTopics()).includes(topic)
  return {
    admin,
    producer: async (options = {}) => {
      const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options })
      await producer.connect()
      producers.push(producer)
      return producer
    },
    make: async (topic, partitions = 1, settings = { 'message.timestamp.type': 'LogAppendTime' }) => {
      await connect()
      const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }))
      await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }], waitForLeaders: false })
      await until(`topic ${topic}`, async () => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] }).catch(() => ({ topics: [] }))
        return topics[0]?.partitions.length === partitions && topics[0].partitions.every((p) => p.leader >= 0)
      })
    },
    remove: async (topic) => {
      await connect()
      if (!(await exists(topic))) return
      await admin.deleteTopics({ topics: [topic] })
      await until(`topic ${topic} is gone`, async () => !(await exists(topic)))
    },
    close: async () => {
      await Promise.all(producers.map((p) => p.disconnect()))
      if (connected !== undefined) await admin.disconnect()
    },
  }
}

let serial = 0
/** A record of Weir's own with these lines. */
export const recordOf = (...lines: string[]): NewRecord => ({
  recordId: createHash('md5').update(`${++serial}/${process.pid}/${Math.random()}`).digest('hex'),
  bytes: Buffer.from(lines.map((line) => `${line}\n`).join('')),
  events: lines.length,
})

export const records = (read: ReadResult): LogRecord[] => {
  if (read.kind !== 'records') throw new Error(`expected records, got ${JSON.stringify(read)}`)
  return read.records
}
export const texts = (read: ReadResult): string[] => records(read).map((r) => Buffer.from(r.bytes).toString())
export const all = { maxBytes: 8 << 20 }
