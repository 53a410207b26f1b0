/**
 * A topic that is older than its retention when a dataset is put on it: others have written to it, and its start is gone, of some partitions in
 * part, of some wholly, of some not at all. Invariant: what the origin must be is known from the deletions, not from a Weir process.
 */
import type { Random } from '../../cli/random.ts'
import { openKafkaLog } from '../../log/kafka-log.ts'
import type { Origin } from '../../model/ports/event-log.ts'
import { openTopicTools } from '../log/kafka-support.ts'

export const makeAgedTopic = async (
  brokers: string,
  topic: string,
  partitions: number,
  r: Random,
  /** Values of so many messages. */
  make: (count: number) => string[],
): Promise<Origin | undefined> => {
  const tools = openTopicTools(brokers)
  const log = await openKafkaLog({ brokers: brokers.split(',') })
  try {
    await tools.make(topic, partitions)
    const producer = await tools.producer()
    const offsets: Record<string, number> = {}
    for (let partition = 0; partition < partitions; partition++) {
      let end = 0
      for (let batches = r.int(0, 5); batches > 0; batches--) {
        const values = make(r.int(1, 8))
        await producer.send({ topic, messages: values.map((value) => ({ value, partition })) })
        end += values.length
      }
      const start = r.pick([0, r.int(0, end + 1), end])
      if (start > 0) offsets[String(partition)] = start
    }
    await tools.admin.fetchTopicOffsets(topic)
    const deletions = Object.entries(offsets).map(([p, offset]) => ({ partition: Number(p), offset: String(offset) }))
    if (deletions.length > 0) await tools.admin.deleteTopicRecords({ topic, partitions: deletions })
    const origin = (await log.origin(topic)) ?? undefined
    if (JSON.stringify(origin?.offsets ?? {}) !== JSON.stringify(offsets))
      throw new Error(`the origin is ${JSON.stringify(origin)}, deleted was up to ${JSON.stringify(offsets)}`)
    return origin
  } finally {
    await log.close()
    await tools.close()
  }
}
