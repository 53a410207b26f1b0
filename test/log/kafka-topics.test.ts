/** What happens to a topic behind the log's back: records deleted, the topic made again, partitions added, odd settings. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaLog, openKafkaLog } from '../../log/kafka-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { service } from '../support/services.ts'
import { all, freshTopic, openTopicTools, recordOf, records, type TopicTools, texts, until } from './kafka-support.ts'

const brokers = service('KAFKA_BROKERS')

describe.skipIf(brokers === null)('topics', () => {
  let log: KafkaLog
  let tools: TopicTools
  const made: string[] = []
  const open = (more: Partial<Parameters<typeof openKafkaLog>[0]> = {}) =>
    openKafkaLog({ brokers: brokers!.split(','), ...more })
  beforeAll(async () => {
    log = await open()
    tools = openTopicTools(brokers!)
  })
  afterAll(async () => {
    for (const topic of made) await tools.remove(topic)
    await tools.close()
    await log.close()
  })
  const name = (): string => {
    const topic = freshTopic('topics')
    made.push(topic)
    return topic
  }
  const start = async (topic: string): Promise<Position> => genesis((await log.range(topic, 0)).logId)
  const deleteBelow = async (topic: string, offset: number): Promise<void> => {
    await tools.admin.fetchTopicOffsets(topic)
    await tools.admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(offset) }] })
  }

  it('creates topics that Kafka itself never empties, with append times of the broker', async () => {
    const topic = name()
    expect(await log.inspect(topic)).toBeNull()
    await log.create(topic, 3)
    expect(await log.partitions(topic)).toEqual([0, 1, 2])
    expect(await log.inspect(topic)).toMatchObject({
      cleanupPolicy: 'delete',
      timestampType: 'LogAppendTime',
      retentionMs: -1,
      retentionBytes: -1,
    })
  })

  it('lets several processes create one topic at the same time', async () => {
    const topic = name()
    const logs = await Promise.all(Array.from({ length: 6 }, () => open()))
    await Promise.all(logs.map((l) => l.create(topic, 2)))
    for (const l of logs) expect(await l.partitions(topic)).toEqual([0, 1])
    await Promise.all(logs.map((l) => l.append(topic, 1, [recordOf('{"a":1}')])))
    expect((await log.range(topic, 1)).endOffset).toBe(6)
    await Promise.all(logs.map((l) => l.close()))
  })

  it('stops below the start when records were deleted under a position, and nowhere is an offset committed', async () => {
    const topic = name()
    await log.create(topic, 1)
    const ends: Position[] = []
    for (let n = 0; n < 8; n++) ends.push(await log.append(topic, 0, [recordOf(`{"n":${n}}`)]))
    for (const end of ends) expect((await log.read(topic, 0, end, all)).kind).toBe('records')
    await deleteBelow(topic, 5)
    // A reader that has read up to there, and one that begins anew.
    const fresh = await open()
    for (const reader of [log, fresh]) {
      for (const at of [await start(topic), ends[0]!, ends[3]!]) {
        expect(await reader.read(topic, 0, at, { ...all, waitMs: 5_000 })).toEqual({
          kind: 'below-start',
          startOffset: 6,
        })
      }
      expect(await reader.positionAt(topic, 0, 3)).toBeNull()
      expect(texts(await reader.read(topic, 0, ends[5]!, all))).toEqual(['{"n":6}\n', '{"n":7}\n'])
    }
    // At the very start nothing is left to compare with: refused, unless this process has seen the record and its epoch stands.
    expect(await fresh.read(topic, 0, ends[4]!, all)).toEqual({ kind: 'below-start', startOffset: 6 })
    expect(await fresh.positionAt(topic, 0, 5)).toBeNull()
    expect(texts(await log.read(topic, 0, ends[4]!, all))).toHaveLength(3)
    expect(await log.positionAt(topic, 0, 5)).toEqual(ends[4])
    expect(await log.range(topic, 0)).toMatchObject({ startOffset: 6, endOffset: 8 })
    await fresh.close()
    const { groups } = await tools.admin.listGroups()
    for (const { groupId } of groups) {
      const offsets = await tools.admin.fetchOffsets({ groupId, topics: [topic] }).catch(() => [])
      expect(offsets.flatMap((o) => o.partitions).filter((p) => p.offset !== '-1')).toEqual([])
    }
  })

  it('goes on with a reader whose log was emptied by retention, right at its position', async () => {
    const topic = name()
    await log.create(topic, 1)
    await log.append(topic, 0, [recordOf('{"n":0}')])
    const read = await log.read(topic, 0, await start(topic), all)
    if (read.kind !== 'records') throw new Error(read.kind)
    await deleteBelow(topic, 1)
    expect(await log.read(topic, 0, read.to, all)).toMatchObject({ kind: 'records', records: [], logEndOffset: 1 })
    await log.append(topic, 0, [recordOf('{"n":1}')])
    expect(texts(await log.read(topic, 0, read.to, all))).toEqual(['{"n":1}\n'])
  })

  it('trims up to the record that proves the position it was given', async () => {
    const topic = name()
    await log.create(topic, 1)
    const ends: Position[] = []
    for (let n = 0; n < 6; n++) ends.push(await log.append(topic, 0, [recordOf(`{"n":${n}}`)]))
    await log.trim(topic, 0, 4)
    expect((await tools.admin.fetchTopicOffsets(topic))[0]).toMatchObject({ low: '3' })
    const fresh = await open()
    expect(texts(await fresh.read(topic, 0, ends[3]!, all))).toEqual(['{"n":4}\n', '{"n":5}\n'])
    await fresh.close()
  })

  it('knows a topic made again under its name, however much is in it', async () => {
    const topic = name()
    await log.create(topic, 1)
    const ends: Position[] = []
    const same = [0, 1, 2, 3].map((n) => recordOf(`{"n":${n}}`))
    for (const record of same) ends.push(await log.append(topic, 0, [record]))
    const beginning = await start(topic)
    const waiting = log.read(topic, 0, ends[3]!, { ...all, waitMs: 20_000 })
    await tools.remove(topic)
    await tools.make(topic)
    const producer = await tools.producer()
    for (const { bytes, recordId } of [...same, recordOf('{"n":9}')]) {
      const headers = { 'weir-record-id': recordId }
      await producer.send({ topic, messages: [{ value: Buffer.from(bytes), headers, partition: 0 }] })
    }
    expect(await waiting).toEqual({ kind: 'replaced' })
    const fresh = await open()
    for (const reader of [log, fresh]) {
      for (const at of [beginning, ...ends]) {
        expect(await reader.read(topic, 0, at, { ...all, waitMs: 1_000 })).toEqual({ kind: 'replaced' })
      }
      expect((await reader.range(topic, 0)).logId).not.toBe(beginning.logId)
      expect(texts(await reader.read(topic, 0, genesis((await reader.range(topic, 0)).logId), all))).toHaveLength(5)
    }
    await fresh.close()
    await tools.remove(topic)
    const gone = { code: 'WEIR_LOG_UNKNOWN_PARTITION' }
    await expect(log.read(topic, 0, ends[0]!, all)).rejects.toMatchObject(gone)
    await expect(log.append(topic, 0, [recordOf('{}')])).rejects.toMatchObject(gone)
    expect(await log.partitions(topic)).toEqual([])
  })

  it('refuses a compacted topic, whatever is asked of it', async () => {
    for (const policy of ['compact', 'compact,delete']) {
      const topic = name()
      await tools.make(topic, 1, { 'cleanup.policy': policy })
      const compacted = { code: 'WEIR_LOG_COMPACTED', retryable: false }
      await expect(log.create(topic, 1)).rejects.toMatchObject(compacted)
      await expect(log.append(topic, 0, [recordOf('{}')])).rejects.toMatchObject(compacted)
      await expect(log.range(topic, 0)).rejects.toMatchObject(compacted)
      await expect(log.read(topic, 0, genesis('x'), all)).rejects.toMatchObject(compacted)
      expect(await log.inspect(topic)).toMatchObject({ cleanupPolicy: policy })
    }
  })

  it("refuses producers' times where duplicates are removed, and takes them elsewhere", async () => {
    const topic = name()
    await tools.make(topic, 1, { 'message.timestamp.type': 'CreateTime' })
    const strict = await open({ needsAppendTime: (dataset) => dataset === topic })
    await expect(strict.create(topic, 1)).rejects.toMatchObject({ code: 'WEIR_LOG_CREATE_TIME', retryable: false })
    await expect(strict.append(topic, 0, [recordOf('{}')])).rejects.toMatchObject({ code: 'WEIR_LOG_CREATE_TIME' })
    await strict.close()
    const producer = await tools.producer()
    const times = [5_000_000, 9_000_000, 7_000_000, 8_000_000]
    for (const t of times)
      await producer.send({ topic, messages: [{ value: '{}', timestamp: String(t), partition: 0 }] })
    const read = await log.read(topic, 0, await start(topic), all)
    expect(records(read).map((r) => r.appendTimeMs)).toEqual(times)
    expect(read).toMatchObject({ to: { effectiveMs: 9_000_000 } })
    // The running maximum of any place, also for a process that has read nothing.
    const fresh = await open()
    const effective = await Promise.all([1, 2, 3, 4].map((offset) => fresh.positionAt(topic, 0, offset)))
    expect(effective.map((p) => p!.effectiveMs)).toEqual([5_000_000, 9_000_000, 9_000_000, 9_000_000])
    await fresh.close()
  })

  it('raises an alarm for a record from the future', async () => {
    const topic = name()
    await tools.make(topic, 1, {
      'message.timestamp.type': 'CreateTime',
      'message.timestamp.after.max.ms': '9000000000',
    })
    const alarms: Error[] = []
    const watching = await open({ alarm: (error) => alarms.push(error) })
    const producer = await tools.producer()
    const send = (ms: number) =>
      producer.send({ topic, messages: [{ value: '{}', timestamp: String(ms), partition: 0 }] })
    await send(Date.now() + 60_000)
    const read = await watching.read(topic, 0, await start(topic), all)
    if (read.kind !== 'records') throw new Error(read.kind)
    expect(alarms).toEqual([])
    await send(Date.now() + 3_600_000)
    await watching.read(topic, 0, read.to, all)
    await watching.read(topic, 0, read.to, all)
    expect(alarms).toMatchObject([{ code: 'WEIR_LOG_CLOCK_AHEAD' }])
    await watching.close()
  })

  it('sees partitions that somebody adds', async () => {
    const topic = name()
    await log.create(topic, 1)
    expect(await log.partitions(topic)).toEqual([0])
    await tools.admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
    await until('three partitions', async () => (await log.partitions(topic)).length === 3)
    expect(await log.range(topic, 2)).toMatchObject({ startOffset: 0, endOffset: 0 })
    expect((await log.append(topic, 2, [recordOf('{"a":1}')])).offset).toBe(1)
    expect(texts(await log.read(topic, 2, await start(topic), all))).toEqual(['{"a":1}\n'])
  })

  it('splits what is larger than one send, keeps it together, and says what is too large', async () => {
    const topic = name()
    await tools.make(topic, 1, { 'max.message.bytes': '1048588' })
    const line = JSON.stringify({ text: 'x'.repeat(299_000) })
    const large = Array.from({ length: 9 }, () => recordOf(line))
    const [end] = await Promise.all([log.append(topic, 0, large), log.append(topic, 0, [recordOf('{"b":1}')])])
    expect(end.offset).toBe(9)
    expect((await log.range(topic, 0)).endOffset).toBe(10)
    let at = await start(topic)
    const seen: string[] = []
    while (at.offset < 10) {
      const read = await log.read(topic, 0, at, { maxBytes: 1_000 })
      seen.push(...records(read).map((r) => r.recordId))
      if (read.kind === 'records') at = read.to
    }
    expect(seen.slice(0, 9)).toEqual(large.map((r) => r.recordId))
    const tooLarge = recordOf(JSON.stringify({ text: 'x'.repeat(1_100_000) }))
    await expect(log.append(topic, 0, [tooLarge])).rejects.toMatchObject({
      code: 'WEIR_LOG_RECORD_TOO_LARGE',
      retryable: false,
    })
  })
})
