/** The Kafka log keeps the event log's contract, on the real broker. Append times are the broker's, so clocks are not set here. */
import { describe } from 'vitest'
import { openKafkaLog } from '../../log/kafka-log.ts'
import { freshTopic, openTopicTools } from '../log/kafka-support.ts'
import { service } from '../support/services.ts'
import { eventLogContract } from './event-log.ts'

const brokers = service('KAFKA_BROKERS')

describe.skipIf(brokers === null)('on Kafka', () => {
  eventLogContract('kafka', async () => {
    const prefix = freshTopic('contract')
    const tools = openTopicTools(brokers!)
    return {
      open: () => openKafkaLog({ brokers: brokers!.split(','), topicOf: (dataset) => `${prefix}-${dataset}` }),
      clock: null,
      grows: false,
      replace: () => tools.remove(`${prefix}-orders`),
      remove: async () => {
        await tools.remove(`${prefix}-orders`)
        await tools.close()
      },
    }
  })
})
