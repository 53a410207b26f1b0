/** What producers that know nothing of Weir put on a topic: every codec, keyed or not, transactions, odd values. */

import { createRequire } from 'node:module'
import { Partitioners } from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaLog, openKafkaLog } from '../../log/kafka-log.ts'
import { partitionOf } from '../../model/partitioner.ts'
import type { LogRecord } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { hasKcat, kcatProduce } from '../support/kcat.ts'
import { service } from '../support/services.ts'
import { all, freshTopic, openTopicTools, recordOf, records, type TopicTools, texts, until } from './kafka-support.ts'

const { compress } = createRequire(import.meta.url)('snappyjs') as { compress(bytes: Buffer): Buffer }
const brokers = service('KAFKA_BROKERS')

describe.skipIf(brokers === null)('foreign producers', () => {
  let log: KafkaLog
  let tools: TopicTools
  const made: string[] = []
  beforeAll(async () => {
    log = await openKafkaLog({ brokers: brokers!.split(',') })
    tools = openTopicTools(brokers!)
  })
  afterAll(async () => {
    for (const topic of made) await tools.remove(topic)
    await tools.close()
    await log.close()
  })
  const topicOf = async (partitions = 1, settings?: Record<string, string>): Promise<string> => {
    const topic = freshTopic('foreign')
    made.push(topic)
    await tools.make(topic, partitions, settings)
    return topic
  }
  const start = async (topic: string, partition = 0): Promise<Position> =>
    genesis((await log.range(topic, partition)).logId)
  const readAll = async (topic: string, partition = 0): Promise<LogRecord[]> => {
    const found: LogRecord[] = []
    for (let at = await start(topic, partition); ; ) {
      const read = await log.read(topic, partition, at, { maxBytes: 20_000 })
      if (read.kind !== 'records') throw new Error(read.kind)
      if (read.records.length === 0) return found
      found.push(...read.records)
      at = read.to
    }
  }

  describe.skipIf(!hasKcat())('with kcat', () => {
    it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('reads %s', async (codec) => {
      const topic = await topicOf()
      const lines = Array.from({ length: 3000 }, (_, n) => JSON.stringify({ n, text: 'some text, ü 😀', codec }))
      await kcatProduce(brokers!, topic, lines, { codec, partition: 0 })
      const found = await readAll(topic)
      expect(found.map((r) => Buffer.from(r.bytes).toString())).toEqual(lines.map((line) => `${line}\n`))
      expect(found.map((r) => r.offset)).toEqual(lines.map((_, n) => n))
      expect(new Set(found.map((r) => r.recordId)).size).toBe(3000)
      expect(new Set(found.map((r) => r.fingerprint)).size).toBe(3000)
      expect(found.every((r) => r.events === 1 && /^[0-9a-f]{32}$/.test(r.recordId))).toBe(true)
      // Any place in the middle of a packed batch is a place to go on from.
      const middle = (await log.positionAt(topic, 0, 1234))!
      expect(middle.fingerprint).toBe(found[1233]!.fingerprint)
      expect(records(await log.read(topic, 0, middle, all))[0]).toEqual(found[1234])
      expect(await log.read(topic, 0, { ...middle, fingerprint: found[1232]!.fingerprint }, all)).toEqual({
        kind: 'replaced',
      })
    })

    it('finds keys where the default partitioner puts them', async () => {
      const topic = await topicOf(5)
      const keys = Array.from({ length: 200 }, (_, n) => `key-${n}-${'ü'.repeat(n % 4)}`)
      await kcatProduce(
        brokers!,
        topic,
        keys.map((key) => `${key}\t{"key":"${key}"}`),
        { keyed: true, settings: { partitioner: 'murmur2_random' } },
      )
      let seen = 0
      for (let p = 0; p < 5; p++) {
        for (const r of await readAll(topic, p)) {
          seen++
          expect(partitionOf(JSON.parse(Buffer.from(r.bytes).toString()).key as string, 5)).toBe(p)
        }
      }
      expect(seen).toBe(200)
    })

    it('counts tombstones as one event that is none', async () => {
      const topic = await topicOf()
      await kcatProduce(brokers!, topic, ['k\t{"a":1}', 'k\t', 'k\t{"a":2}'], {
        keyed: true,
        tombstones: true,
        partition: 0,
      })
      expect((await readAll(topic)).map((r) => [Buffer.from(r.bytes).toString(), r.events])).toEqual([
        ['{"a":1}\n', 1],
        ['null\n', 1],
        ['{"a":2}\n', 1],
      ])
    })
  })

  it('puts keys where kafkajs puts them', () => {
    const partitioner = Partitioners.DefaultPartitioner()
    const partitionMetadata = Array.from({ length: 7 }, (_, p) => ({ partitionId: p, leader: 1 }) as never)
    for (let n = 0; n < 500; n++) {
      const key = `${n}`.repeat(n % 9) + (n % 3 ? 'ß' : '')
      expect(partitionOf(key, 7)).toBe(partitioner({ topic: 't', partitionMetadata, message: { key, value: '' } }))
    }
    expect([partitionOf('', 7), partitionOf('order-1', 7), partitionOf('x', 1)]).toMatchInlineSnapshot(`
      [
        2,
        4,
        0,
      ]
    `)
  })

  it('reads the snappy stream that Java writes', async () => {
    const topic = await topicOf()
    const { CompressionCodecs, CompressionTypes } = await import('kafkajs')
    const before = CompressionCodecs[CompressionTypes.Snappy]
    const xerial = (bytes: Buffer): Buffer => {
      const parts: Buffer[] = [Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1])]
      for (let at = 0; at < bytes.byteLength; at += 32_768) {
        const block = Buffer.from(compress(bytes.subarray(at, at + 32_768)))
        const length = Buffer.alloc(4)
        length.writeInt32BE(block.byteLength)
        parts.push(length, block)
      }
      return Buffer.concat(parts)
    }
    CompressionCodecs[CompressionTypes.Snappy] = () => ({
      compress: async (encoder: { buffer: Buffer }) => xerial(encoder.buffer),
      decompress: async () => Buffer.alloc(0),
    })
    try {
      const producer = await tools.producer()
      const values = Array.from({ length: 2000 }, (_, n) => JSON.stringify({ n, text: 'x'.repeat(40) }))
      await producer.send({
        topic,
        compression: CompressionTypes.Snappy,
        messages: values.map((value) => ({ value, partition: 0 })),
      })
      expect((await readAll(topic)).map((r) => Buffer.from(r.bytes).toString())).toEqual(values.map((v) => `${v}\n`))
    } finally {
      CompressionCodecs[CompressionTypes.Snappy] = before!
    }
  })

  it('takes a value as one document, or as lines', async () => {
    const topic = await topicOf()
    const producer = await tools.producer()
    const values: [Buffer | string | null, string, number][] = [
      ['{"a":1}', '{"a":1}\n', 1],
      ['  {"a":1} \r\n', '{"a":1}\n', 1],
      ['{\n "a": 1,\r\n "b": [\n2]\n}', '{  "a": 1,   "b": [ 2] }\n', 1],
      ['{\n"a": 1\n}\n', '{ "a": 1 }\n', 1],
      ['{"a":1}\n{"a":2}\n', '{"a":1}\n{"a":2}\n', 2],
      ['{"a":1}\n\n  {"a":2}\r\n \n{"a":3}', '{"a":1}\n{"a":2}\n{"a":3}\n', 3],
      ['not json', 'not json\n', 1],
      ['not\njson', 'not\njson\n', 2],
      [Buffer.from([0xff, 0xfe, 0x0a, 0x7b]), '\xff\xfe\n{\n', 2],
      [null, 'null\n', 1],
      ['', 'null\n', 1],
      [' \n \n', 'null\n', 1],
    ]
    await producer.send({ topic, messages: values.map(([value]) => ({ value, partition: 0 })) })
    expect((await readAll(topic)).map((r) => [Buffer.from(r.bytes).toString('latin1'), r.events])).toEqual(
      values.map(([, text, events]) => [text, events]),
    )
  })

  it('does not believe a header that counts wrongly', async () => {
    const topic = await topicOf()
    const producer = await tools.producer()
    const headers = { 'weir-record-id': 'a'.repeat(32), 'weir-events': '7' }
    await producer.send({ topic, messages: [{ value: '{"a":1}\n\n{"a":2}', headers, partition: 0 }] })
    expect(await readAll(topic)).toMatchObject([{ recordId: 'a'.repeat(32), events: 2 }])
  })

  it('passes over holes left by transactions, at the end too, and goes on from any side of them', async () => {
    const topic = await topicOf()
    const producer = await tools.producer({ transactionalId: topic, maxInFlightRequests: 1, idempotent: true })
    const send = async (fate: 'commit' | 'abort', ...values: string[]): Promise<void> => {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: values.map((value) => ({ value, partition: 0 })) })
      const high = async () => Number((await tools.admin.fetchTopicOffsets(topic))[0]!.high)
      const before = await high()
      await transaction[fate]()
      // The marker follows the answer.
      await until('the marker', async () => (await high()) > before)
    }
    await send('abort', '{"x":0}')
    expect(await log.range(topic, 0)).toMatchObject({ startOffset: 0, endOffset: 0 })
    const empty = await log.read(topic, 0, await start(topic), { ...all, waitMs: 20 })
    expect(empty).toMatchObject({ kind: 'records', records: [], to: { offset: 0 }, logEndOffset: 0 })
    await send('commit', '{"a":1}', '{"a":2}')
    await send('abort', '{"x":1}', '{"x":2}', '{"x":3}')
    await send('commit', '{"a":3}')
    await log.append(topic, 0, [recordOf('{"a":4}')])
    await send('abort', '{"x":4}')
    // 0 x, 1 abort, 2 3 a, 4 commit, 5 6 7 x, 8 abort, 9 a, 10 commit, 11 ours, 12 x, 13 abort
    const read = await log.read(topic, 0, await start(topic), all)
    expect(texts(read)).toEqual(['{"a":1}\n', '{"a":2}\n', '{"a":3}\n', '{"a":4}\n'])
    expect(records(read).map((r) => r.offset)).toEqual([2, 3, 9, 11])
    expect(read).toMatchObject({ to: { offset: 12 }, logEndOffset: 12 })
    expect(await log.range(topic, 0)).toMatchObject({ startOffset: 0, endOffset: 12 })
    const fresh = await openKafkaLog({ brokers: brokers!.split(',') })
    for (let offset = 1; offset <= 14; offset++) {
      const at = (await log.positionAt(topic, 0, offset))!
      expect(at.offset).toBe(offset)
      const rest = await fresh.read(topic, 0, at, all)
      expect([offset, records(rest).map((r) => r.offset)]).toEqual([offset, [2, 3, 9, 11].filter((o) => o >= offset)])
    }
    await fresh.close()
    // One fingerprint for all places between two records.
    const [five, nine] = [await log.positionAt(topic, 0, 5), await log.positionAt(topic, 0, 9)]
    expect(five!.fingerprint).toBe(nine!.fingerprint)
  })

  it('does not show what an open transaction holds back, nor call it missing', async () => {
    const topic = await topicOf()
    const producer = await tools.producer({ transactionalId: topic, maxInFlightRequests: 1, idempotent: true })
    const first = await log.append(topic, 0, [recordOf('{"a":1}')])
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: '{"a":2}', partition: 0 }] })
    // Durable, so acknowledged; not visible before the transaction has ended.
    const second = await log.append(topic, 0, [recordOf('{"a":3}')])
    expect(second.offset).toBe(3)
    expect(records(await log.read(topic, 0, first, all))).toEqual([])
    expect((await log.range(topic, 0)).endOffset).toBe(1)
    await transaction.commit()
    const waiting = await log.read(topic, 0, first, { ...all, waitMs: 5_000 })
    expect(texts(waiting)).toEqual(['{"a":2}\n', '{"a":3}\n'])
  })
})
