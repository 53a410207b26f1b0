/** A topic that others wrote to before, and whose start is gone: below the origin is a hole, in that very topic and nowhere else. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaLog, type KafkaLogOptions, openKafkaLog } from '../../log/kafka-log.ts'
import type { Origin } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { service } from '../support/services.ts'
import { all, freshTopic, openTopicTools, recordOf, records, type TopicTools, texts, until } from './kafka-support.ts'

const brokers = service('KAFKA_BROKERS')

describe.skipIf(brokers === null)('a topic whose start is gone', () => {
  let tools: TopicTools
  const made: string[] = []
  const opened: KafkaLog[] = []
  beforeAll(() => {
    tools = openTopicTools(brokers!)
  })
  afterAll(async () => {
    for (const log of opened) await log.close()
    for (const topic of made) await tools.remove(topic)
    await tools.close()
  })

  const open = async (more: Partial<KafkaLogOptions> = {}): Promise<KafkaLog> => {
    const log = await openKafkaLog({ brokers: brokers!.split(','), pollMs: 200, ...more })
    opened.push(log)
    return log
  }
  /** A log as a process opens it whose dataset is defined now. */
  const adopt = async (topic: string): Promise<{ log: KafkaLog; origin: Origin; start: Position }> => {
    const origin = await (await open()).origin(topic)
    const log = await open({ originOf: () => origin ?? undefined })
    return { log, origin: origin!, start: genesis(origin!.logId) }
  }
  const make = async (partitions = 1, settings?: Record<string, string>): Promise<string> => {
    const topic = freshTopic('origin')
    made.push(topic)
    await tools.make(topic, partitions, settings)
    return topic
  }
  const produce = async (topic: string, partition: number, values: string[], batch = values.length): Promise<void> => {
    const producer = await tools.producer()
    for (let i = 0; i < values.length; i += batch)
      await producer.send({ topic, messages: values.slice(i, i + batch).map((value) => ({ value, partition })) })
  }
  const deleteBelow = async (topic: string, offset: number, partition = 0): Promise<void> => {
    // The client asks for the topic's leaders only when it must.
    await tools.admin.fetchTopicOffsets(topic)
    await tools.admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] })
  }
  const numbers = (from: number, to: number): string[] =>
    Array.from({ length: to - from }, (_, i) => JSON.stringify({ n: from + i }))
  const lines = (from: number, to: number): string[] => numbers(from, to).map((line) => `${line}\n`)

  it('is none while nothing of it is gone', async () => {
    const topic = await make(2)
    const log = await open()
    expect(await log.origin('no-such-topic')).toBeNull()
    expect(await log.origin(topic)).toBeNull()
    await produce(topic, 0, numbers(0, 3))
    expect(await log.origin(topic)).toBeNull()
  })

  it('is read from the beginning, each partition from its own origin', async () => {
    const topic = await make(3)
    await produce(topic, 0, numbers(0, 10), 1)
    // One batch: what is stored of it begins before the origin.
    await produce(topic, 1, numbers(0, 10))
    await produce(topic, 2, numbers(0, 4))
    await deleteBelow(topic, 6)
    await deleteBelow(topic, 3, 1)
    const { log, origin, start } = await adopt(topic)
    expect(origin.offsets).toEqual({ '0': 6, '1': 3 })
    for (const [partition, from, to] of [
      [0, 6, 10],
      [1, 3, 10],
      [2, 0, 4],
    ] as const) {
      const read = await log.read(topic, partition, start, all)
      expect(texts(read)).toEqual(lines(from, to))
      expect(records(read).map((r) => r.offset)[0]).toBe(from)
      expect(read).toMatchObject({ to: { offset: to }, logEndOffset: to })
      expect(await log.range(topic, partition)).toMatchObject({ startOffset: 0, endOffset: to })
      for (let offset = 0; offset <= from; offset++)
        expect(await log.positionAt(topic, partition, offset)).toEqual({ ...start, offset })
      // Any place in the hole leads to the first record; none of them has a record before it.
      if (from > 0)
        expect(texts(await log.read(topic, partition, { ...start, offset: from - 1 }, all))).toHaveLength(to - from)
      const forged = { ...start, offset: from, fingerprint: 'f'.repeat(16) }
      expect(await log.read(topic, partition, forged, all)).toEqual({ kind: 'replaced' })
      // Positions after records are what a reader found.
      let at = start
      while (at.offset < to) {
        const one = await log.read(topic, partition, at, { ...all, maxRecords: 1 })
        if (one.kind !== 'records') throw new Error(one.kind)
        at = one.to
        expect(await log.positionAt(topic, partition, at.offset)).toEqual(at)
        expect(await (await adopt(topic)).log.positionAt(topic, partition, at.offset)).toEqual(at)
      }
      expect(await log.positionAt(topic, partition, to + 1)).toBeNull()
    }
    expect((await log.range(topic, 1)).originOffset).toBe(3)
    expect(await log.range(topic, 2)).not.toHaveProperty('originOffset')
  })

  it('is empty, and at its end, when all of it is gone', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 5))
    await deleteBelow(topic, 5)
    const { log, start } = await adopt(topic)
    expect(await log.range(topic, 0)).toEqual({ logId: start.logId, startOffset: 0, endOffset: 0, originOffset: 5 })
    expect(await log.read(topic, 0, start, all)).toEqual({ kind: 'records', records: [], to: start, logEndOffset: 0 })
    expect(await log.append(topic, 0, [])).toEqual(start)
    const waiting = log.read(topic, 0, start, { ...all, waitMs: 20_000 })
    const end = await log.append(topic, 0, [recordOf('{"n":5}')])
    expect(end.offset).toBe(6)
    expect(await waiting).toMatchObject({ kind: 'records', to: end, logEndOffset: 6 })
    expect(await log.positionAt(topic, 0, 6)).toEqual(end)
    expect(await log.range(topic, 0)).toMatchObject({ startOffset: 0, endOffset: 6 })
  })

  it('has effective times of the records from the origin on', async () => {
    const topic = await make(1, { 'message.timestamp.type': 'CreateTime' })
    const producer = await tools.producer()
    const times = [9_000_000, 8_000_000, 3_000_000, 5_000_000, 4_000_000]
    const messages = times.map((t) => ({ value: '{}', timestamp: String(t), partition: 0 }))
    await producer.send({ topic, messages })
    await deleteBelow(topic, 2)
    const { log } = await adopt(topic)
    const effective = await Promise.all([2, 3, 4, 5].map((offset) => log.positionAt(topic, 0, offset)))
    expect(effective.map((p) => p!.effectiveMs)).toEqual([0, 3_000_000, 5_000_000, 5_000_000])
  })

  it('passes over holes right after the origin', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 3))
    const producer = await tools.producer({ transactionalId: freshTopic('transaction'), maxInFlightRequests: 1 })
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: '{"n":"never"}', partition: 0 }] })
    await transaction.abort()
    await deleteBelow(topic, 3)
    const { log, start } = await adopt(topic)
    await until('the end', async () => (await log.range(topic, 0)).endOffset === 0)
    expect(await log.read(topic, 0, start, all)).toMatchObject({ kind: 'records', records: [], to: start })
    expect(await log.positionAt(topic, 0, 5)).toEqual({ ...start, offset: 5 })
    await produce(topic, 0, numbers(5, 7))
    expect(texts(await log.read(topic, 0, start, all))).toEqual(lines(5, 7))
    expect(texts(await log.read(topic, 0, { ...start, offset: 5 }, all))).toEqual(lines(5, 7))
  })

  it('says so when more is gone than was gone then', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 9), 1)
    await deleteBelow(topic, 4)
    const { log, origin, start } = await adopt(topic)
    const six = (await log.positionAt(topic, 0, 6))!
    expect(texts(await log.read(topic, 0, start, all))).toEqual(lines(4, 9))
    const waiting = log.read(topic, 0, (await log.positionAt(topic, 0, 9))!, { ...all, waitMs: 20_000 })
    await deleteBelow(topic, 5)
    const fresh = await open({ originOf: () => origin })
    for (const reader of [log, fresh]) {
      for (const at of [start, { ...start, offset: 2 }, { ...start, offset: 4 }])
        expect(await reader.read(topic, 0, at, all)).toEqual({ kind: 'below-start', startOffset: 6 })
      for (const offset of [0, 2, 4]) expect(await reader.positionAt(topic, 0, offset)).toBeNull()
      expect(await reader.range(topic, 0)).toMatchObject({ startOffset: 6, endOffset: 9 })
      // What is still provable goes on.
      expect(texts(await reader.read(topic, 0, six, all))).toEqual(lines(6, 9))
    }
    await produce(topic, 0, numbers(9, 10))
    expect(texts(await waiting)).toEqual(lines(9, 10))
  })

  it('is emptied anew past the origin: loud, and never taken for an empty one', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 4))
    await deleteBelow(topic, 4)
    const { log, origin, start } = await adopt(topic)
    await produce(topic, 0, numbers(4, 6))
    await deleteBelow(topic, 6)
    for (const reader of [log, await open({ originOf: () => origin })]) {
      expect(await reader.read(topic, 0, start, all)).toEqual({ kind: 'below-start', startOffset: 6 })
      expect(await reader.range(topic, 0)).toMatchObject({ startOffset: 6, endOffset: 6 })
    }
  })

  it('trims as ever, and from then on has the start that it has', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 10), 1)
    await deleteBelow(topic, 4)
    const { log, start } = await adopt(topic)
    for (const offset of [0, 3, 4]) await log.trim(topic, 0, offset)
    expect(texts(await log.read(topic, 0, start, all))).toHaveLength(6)
    const eight = (await log.positionAt(topic, 0, 8))!
    await log.trim(topic, 0, 8)
    expect(await log.range(topic, 0)).toMatchObject({ startOffset: 8, endOffset: 10 })
    expect(await log.read(topic, 0, start, all)).toEqual({ kind: 'below-start', startOffset: 8 })
    expect(texts(await log.read(topic, 0, eight, all))).toEqual(lines(8, 10))
  })

  it('means nothing for a topic made again under its name, nor for a partition added later', async () => {
    const topic = await make()
    await produce(topic, 0, numbers(0, 5))
    await deleteBelow(topic, 4)
    const { log, origin, start } = await adopt(topic)
    await tools.admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] })
    await until('two partitions', async () => (await log.partitions(topic)).length === 2)
    await produce(topic, 1, numbers(0, 5))
    expect(texts(await log.read(topic, 1, start, all))).toEqual(lines(0, 5))
    await deleteBelow(topic, 2, 1)
    expect(await log.read(topic, 1, start, all)).toEqual({ kind: 'below-start', startOffset: 3 })

    await tools.remove(topic)
    await tools.make(topic)
    await produce(topic, 0, numbers(0, 9))
    for (const reader of [log, await open({ originOf: () => origin })]) {
      expect(await reader.read(topic, 0, start, all)).toEqual({ kind: 'replaced' })
      const { logId, ...range } = await reader.range(topic, 0)
      expect(range).toEqual({ startOffset: 0, endOffset: 9 })
      expect(texts(await reader.read(topic, 0, genesis(logId), all))).toEqual(lines(0, 9))
    }
    await deleteBelow(topic, 4)
    const { logId } = await log.range(topic, 0)
    expect(await log.read(topic, 0, genesis(logId), all)).toEqual({ kind: 'below-start', startOffset: 5 })
  })
})
