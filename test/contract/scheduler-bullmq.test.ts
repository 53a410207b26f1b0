/** The scheduler on BullMQ keeps the scheduler's contract, on one Redis and on a Cluster. */
import { describe } from 'vitest'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { newPrefix, removeKeys, SERVERS } from '../batch-layer/bullmq-support.ts'
import { schedulerContract } from './scheduler.ts'

for (const { name, connection } of SERVERS)
  describe.skipIf(connection === null)(name, () => {
    schedulerContract(`BullMQ on ${name}`, async () => {
      const prefix = newPrefix()
      return {
        open: (options) => openBullMqScheduler({ connection: connection!, prefix, work: true, ...options }),
        jobsAreKept: true,
        remove: () => removeKeys(connection!, prefix),
      }
    })
  })
