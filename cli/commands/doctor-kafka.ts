/** Kafka, as `weir doctor` sees it: each broker that the settings name, and the topic of each dataset. Changes nothing. */

import { toWeirError } from '../../log/kafka-errors.ts'
import { addressOf, type KafkaClientOptions, openKafkaConnections, openKafkaLog } from '../../log/kafka-log.ts'
import { checkSettings, type TopicSettings } from '../../log/kafka-topics.ts'
import type { Dataset } from '../../model/dataset.ts'
import type { Settings } from '../../model/settings.ts'
import { itemsOf } from '../../model/settings-servers.ts'
import { kafkaClient, topicOf } from '../servers.ts'
import { ANSWER_MS, type Finding, failed, lookAt, ok, problem, warning } from './doctor-finding.ts'

/** Numbers of the requests in the protocol that tell most about a broker's age. */
const FETCH = 1
const METADATA = 3
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** What Weir puts into one send, with room for the batch's own header. */
const SEND_BYTES = 900_000

const duration = (ms: number): string =>
  ms >= DAY_MS ? `${Math.round(ms / DAY_MS)} day(s)` : `${Math.round(ms / HOUR_MS)} hour(s)`

/** A broker tells no version of its own, only which requests it knows. */
const broker = async (client: KafkaClientOptions, address: string): Promise<Finding> => {
  const check = `kafka ${address}`
  const connections = openKafkaConnections(client)
  try {
    const versions = await connections.lend(addressOf(address), async (lent) => lent.versions)
    const newest = (api: number): number => versions?.[api]?.maxVersion ?? -1
    return ok(check, `answers; knows topic ids (Fetch ${newest(FETCH)}, Metadata ${newest(METADATA)})`)
  } catch (error) {
    return failed(check, toWeirError(error, `broker ${address}`))
  } finally {
    await connections.close()
  }
}

/** What one topic's settings mean for its dataset. */
export const topicFindings = (dataset: Dataset, topic: string, partitions: number, found: TopicSettings): Finding[] => {
  const check = `topic ${topic}`
  try {
    checkSettings(topic, found, dataset.dedupeWindowMs !== undefined)
  } catch (error) {
    return [failed(check, error)]
  }
  const findings: Finding[] = []
  if (found.maxMessageBytes < SEND_BYTES)
    findings.push(
      problem(
        check,
        `max.message.bytes is ${found.maxMessageBytes}, below what Weir sends at once (${SEND_BYTES})`,
        `kafka-configs --alter --topic ${topic} --add-config max.message.bytes=1048588`,
      ),
    )
  if (found.retentionMs >= 0)
    findings.push(
      warning(
        check,
        `Kafka removes records after ${duration(found.retentionMs)}, archived or not`,
        'set retention.ms=-1 (Weir trims what is archived and published), or see that neither batch stands still nor the topic is silent so long',
      ),
    )
  if (found.retentionBytes >= 0)
    findings.push(
      warning(
        check,
        `Kafka removes records beyond ${found.retentionBytes} bytes of a partition, archived or not`,
        'set retention.bytes=-1, or see that so much is archived in time',
      ),
    )
  if (findings.length === 0)
    findings.push(ok(check, `${partitions} partition(s), ${found.timestampType}, trimmed by Weir alone`))
  return findings
}

const topics = async (client: KafkaClientOptions, settings: Settings, datasets: Dataset[]): Promise<Finding[]> => {
  const log = await openKafkaLog({ ...client, topicOf: topicOf(settings) })
  const look = async (dataset: Dataset): Promise<Finding[]> => {
    const topic = topicOf(settings)(dataset.name)
    try {
      const found = await log.inspect(dataset.name)
      if (found === null)
        return [ok(`topic ${topic}`, `missing; the first start creates it with ${dataset.partitions} partition(s)`)]
      // A topic that is refused tells no partitions: its settings say why.
      const partitions = await log.partitions(dataset.name).catch(() => [])
      return topicFindings(dataset, topic, partitions.length, found)
    } catch (error) {
      return [failed(`topic ${topic}`, error)]
    }
  }
  try {
    return (await Promise.all(datasets.map(look))).flat()
  } finally {
    await log.close()
  }
}

/** Findings of the brokers, and of the topics when one of them answers: the others are then less than a problem. */
export const kafkaFindings = async (settings: Settings, datasets: Dataset[]): Promise<Finding[]> =>
  lookAt('kafka', async () => {
    const client = { ...(await kafkaClient(settings)), requestTimeoutMs: ANSWER_MS, giveUpMs: ANSWER_MS }
    const named = itemsOf(settings.kafka.brokers)
    const found = await Promise.all(named.map((address) => broker(client, address)))
    const answering = named.filter((_, i) => found[i]!.state === 'ok')
    if (answering.length === 0) return found
    const brokers = found.map((f): Finding => (f.state === 'problem' ? { ...f, state: 'warning' } : f))
    // Only those that answer: what a silent one says of a topic is nothing.
    return [...brokers, ...(await topics({ ...client, brokers: answering }, settings, datasets))]
  })
