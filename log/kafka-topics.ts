/**
 * Topics: making those that are missing, and what is asked of one before it is used.
 * Invariant: an existing topic is taken as it is or refused, never changed.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster } from './kafka-cluster.ts'
import type { Address, Connections } from './kafka-connections.ts'
import { compacted, createTime, KAFKA, mayRetry, refusalOf, refuse, unreachable } from './kafka-errors.ts'

/** Settings of a topic as the broker tells them; names without a value are absent. */
export type TopicSettings = {
  cleanupPolicy: string
  timestampType: string
  retentionMs: number
  retentionBytes: number
  maxMessageBytes: number
}

const TOPIC = 2
const NAMES = [
  'cleanup.policy',
  'message.timestamp.type',
  'retention.ms',
  'retention.bytes',
  'max.message.bytes',
] as const

/** Asks one broker after the other. Throws a Kafka refusal or the last connection's error. */
export const readSettings = async (
  connections: Connections,
  addresses: Address[],
  topic: string,
): Promise<TopicSettings> => {
  let failure: unknown = unreachable('no broker is known', 'no addresses')
  for (const address of addresses) {
    try {
      const { resources } = await connections.lend(address, (broker) =>
        broker.describeConfigs({ resources: [{ type: TOPIC, name: topic, configNames: [...NAMES] }] }),
      )
      const [resource] = resources
      refuse(resource?.errorCode ?? KAFKA.unknownTopic, `the settings of topic ${topic}`)
      const values = new Map(resource!.configEntries.map((e) => [e.configName, e.configValue]))
      return {
        cleanupPolicy: values.get('cleanup.policy') ?? '',
        timestampType: values.get('message.timestamp.type') ?? '',
        retentionMs: Number(values.get('retention.ms') ?? -1),
        retentionBytes: Number(values.get('retention.bytes') ?? -1),
        maxMessageBytes: Number(values.get('max.message.bytes') ?? 0),
      }
    } catch (error) {
      if (!mayRetry(error)) throw error
      failure = error
    }
  }
  throw failure
}

/** Throws WEIR_LOG_COMPACTED, WEIR_LOG_CREATE_TIME. */
export const checkSettings = (topic: string, settings: TopicSettings, needsAppendTime: boolean): void => {
  if (settings.cleanupPolicy.includes('compact')) throw compacted(topic)
  if (needsAppendTime && settings.timestampType !== 'LogAppendTime') throw createTime(topic)
}

export type NewTopic = { topic: string; partitions: number; replicationFactor: number; retentionMs: number }

/** Creates the topic if it is missing, and waits until each partition has a leader. */
export const createTopic = async (cluster: Cluster, wanted: NewTopic, giveUpMs: number): Promise<void> => {
  const { topic, partitions, replicationFactor, retentionMs } = wanted
  if ((await cluster.topic(topic, 0)) === null) {
    await cluster.onController(`creating topic ${topic}`, async (broker) => {
      const configEntries = [
        { name: 'cleanup.policy', value: 'delete' },
        { name: 'message.timestamp.type', value: 'LogAppendTime' },
        { name: 'retention.ms', value: String(retentionMs) },
        { name: 'retention.bytes', value: '-1' },
      ]
      try {
        await broker.createTopics({
          topics: [{ topic, numPartitions: partitions, replicationFactor, configEntries }],
          timeout: giveUpMs,
        })
      } catch (error) {
        // Another process of ours was quicker.
        if (refusalOf(error) !== KAFKA.topicExists) throw error
      }
    })
  }
  const deadline = performance.now() + giveUpMs
  for (;;) {
    const made = await cluster.topic(topic, 0)
    if (made !== null && made.leaders.size === made.partitions.length) return
    if (performance.now() > deadline) throw unreachable(`topic ${topic} has no leader yet`, 'no leader')
    await sleep(50)
  }
}
