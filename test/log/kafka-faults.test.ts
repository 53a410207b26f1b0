/** A broker that is killed, restarted, loses its tail, or whose answers get lost. */
import { open as openFile, readdir } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaLog, openKafkaLog } from '../../log/kafka-log.ts'
import type { LogRecord } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { service } from '../support/services.ts'
import { brokerJars, type OwnBroker, prepareBroker } from './kafka-broker.ts'
import { all, freshTopic, openTopicTools, recordOf, records, texts, until } from './kafka-support.ts'

const shared = service('KAFKA_BROKERS')
const jars = brokerJars()
if (shared !== null && jars === null) console.info('no Kafka jars in the cache: tests that kill a broker are skipped')

const readAll = async (log: KafkaLog, topic: string, from: Position): Promise<LogRecord[]> => {
  const found: LogRecord[] = []
  for (let at = from; ; ) {
    const read = await log.read(topic, 0, at, all)
    if (read.kind !== 'records') throw new Error(read.kind)
    if (read.records.length === 0) return found
    found.push(...read.records)
    at = read.to
  }
}

/**
 * Passes bytes on in both ways. An answer for which `swallow` says so is never passed on, and its connection ends. While it is
 * silent nothing is passed on, and connections stay open: a half-open network.
 */
const openProxy = async (port: number, swallow: (answer: Buffer) => boolean = () => false) => {
  const line = { silent: false }
  const sockets = new Set<Socket>()
  const server: Server = createServer((client) => {
    const broker = connect(port, '127.0.0.1')
    for (const socket of [client, broker]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    client.on('data', (request) => void (line.silent || broker.write(request)))
    broker.on('data', (answer) => {
      if (line.silent) return
      if (swallow(answer)) {
        client.destroy()
        broker.destroy()
      } else client.write(answer)
    })
    broker.on('close', () => client.destroy())
    client.on('close', () => broker.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    line,
    port: (server.address() as { port: number }).port,
    close: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

describe.skipIf(shared === null || jars === null)('a broker with faults', () => {
  let broker: OwnBroker
  let log: KafkaLog
  beforeAll(async () => {
    broker = await prepareBroker(jars!, { settings: 'log.cleaner.backoff.ms=100\n' })
    await broker.start()
    log = await openKafkaLog({ brokers: [broker.address] })
  }, 120_000)
  afterAll(async () => {
    await log?.close()
    await broker?.remove()
  })

  it('sends a produce again whose answer was lost: twice in the log, one record id, one partition', async () => {
    const topic = freshTopic('lost')
    await log.create(topic, 2)
    const start = genesis((await log.range(topic, 1)).logId)
    let lose = 0
    const name = Buffer.from(topic)
    const proxy = await openProxy(Number(broker.address.split(':')[1]), (answer) => {
      // A Produce answer begins with size and correlation id, then one topic by its name; Metadata holds it further behind.
      const isProduce = answer.indexOf(name) === 14 && answer.readInt32BE(8) === 1
      return isProduce && lose-- > 0
    })
    const through = await openKafkaLog({
      brokers: [`127.0.0.1:${proxy.port}`],
      reach: () => ({ host: '127.0.0.1', port: proxy.port }),
    })
    const record = recordOf('{"a":1}', '{"a":2}')
    await through.append(topic, 1, [recordOf('{"a":0}')])
    lose = 2
    const end = await through.append(topic, 1, [record])
    expect(lose).toBeLessThan(0)
    expect(end.offset).toBe(4)
    const read = records(await log.read(topic, 1, start, all)).slice(1)
    expect(read.map((r) => r.recordId)).toEqual([record.recordId, record.recordId, record.recordId])
    expect(new Set(read.map((r) => r.fingerprint)).size).toBe(3)
    expect((await log.range(topic, 0)).endOffset).toBe(0)
    expect(await log.positionAt(topic, 1, 4)).toEqual(end)
    await through.close()
    proxy.close()
  })

  it('gives up on a connection that is silent, and works again on new ones', async () => {
    const topic = freshTopic('silent')
    await log.create(topic, 1)
    const proxy = await openProxy(Number(broker.address.split(':')[1]))
    const through = await openKafkaLog({
      brokers: [`127.0.0.1:${proxy.port}`],
      reach: () => ({ host: '127.0.0.1', port: proxy.port }),
      requestTimeoutMs: 300,
      giveUpMs: 1_000,
      pollMs: 300,
    })
    const end = await through.append(topic, 0, [recordOf('{"a":0}')])
    const waiting = through.read(topic, 0, end, { ...all, waitMs: 60_000 })
    proxy.line.silent = true
    const unreachable = { code: 'WEIR_LOG_UNREACHABLE', retryable: true }
    await expect(waiting).rejects.toMatchObject(unreachable)
    await expect(through.range(topic, 0)).rejects.toMatchObject(unreachable)
    proxy.line.silent = false
    expect((await through.append(topic, 0, [recordOf('{"a":1}')])).offset).toBe(2)
    expect(texts(await through.read(topic, 0, end, all))).toEqual(['{"a":1}\n'])
    await through.close()
    proxy.close()
  })

  it('refuses a topic that begins to be compacted, by its gaps and by its settings', async () => {
    const topic = freshTopic('compacted')
    const tools = openTopicTools(broker.address)
    await log.create(topic, 1)
    const start = genesis((await log.range(topic, 0)).logId)
    const producer = await tools.producer()
    const send = (n: number) => producer.send({ topic, messages: [{ key: 'k', value: `{"n":${n}}`, partition: 0 }] })
    for (let n = 0; n < 20; n++) await send(n)
    expect(records(await log.read(topic, 0, start, all))).toHaveLength(20)
    await tools.admin.connect()
    const settings = { 'cleanup.policy': 'compact', 'segment.ms': '50', 'min.cleanable.dirty.ratio': '0' }
    const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }))
    await tools.admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] })
    const compacted = { code: 'WEIR_LOG_COMPACTED', retryable: false }
    let refusal: unknown
    // The process knows the topic as a good one, so it is the records that tell.
    await until('gaps', async () => {
      await send(99)
      refusal = await log.read(topic, 0, start, all).catch((error: unknown) => error)
      return refusal instanceof Error
    })
    expect(refusal).toMatchObject(compacted)
    const fresh = await openKafkaLog({ brokers: [broker.address] })
    await expect(fresh.range(topic, 0)).rejects.toMatchObject(compacted)
    await fresh.close()
    await tools.admin.disconnect()
    await tools.close()
  }, 60_000)

  it('loses nothing that was acknowledged when the broker is killed in the middle, and heals by itself', async () => {
    const topic = freshTopic('killed')
    await log.create(topic, 1)
    const start = genesis((await log.range(topic, 0)).logId)
    const acknowledged = new Map<string, Position>()
    let stopped = false
    let refused = 0
    const writer = async (): Promise<void> => {
      while (!stopped) {
        const record = recordOf('{"a":1}', '{"a":2}')
        try {
          acknowledged.set(record.recordId, await log.append(topic, 0, [record]))
        } catch (error) {
          expect(error).toMatchObject({ retryable: true })
          refused++
        }
      }
    }
    const writers = [writer(), writer(), writer()]
    await until('appends', () => acknowledged.size > 200)
    const seen: LogRecord[] = []
    let readErrors = 0
    const reader = (async () => {
      let at = start
      while (!stopped) {
        try {
          const read = await log.read(topic, 0, at, { ...all, waitMs: 200 })
          if (read.kind !== 'records') throw new Error(read.kind)
          seen.push(...read.records)
          at = read.to
        } catch (error) {
          expect(error).toMatchObject({ code: 'WEIR_LOG_UNREACHABLE', retryable: true })
          readErrors++
        }
      }
      return at
    })()
    await broker.kill()
    const before = acknowledged.size
    await until('a refusal while the broker is away', () => refused > 0 && readErrors > 0, 15_000)
    await broker.start()
    const backAt = performance.now()
    await until('appends go on', () => acknowledged.size > before + 100)
    await until('reading goes on', () => seen.length > before + 50)
    console.info(`healed ${Math.round(performance.now() - backAt)} ms after the broker's return`)
    stopped = true
    await Promise.all(writers)
    const at = await reader
    seen.push(...(await readAll(log, topic, at)))
    const inLog = new Set(seen.map((r) => r.recordId))
    expect([...acknowledged.keys()].filter((id) => !inLog.has(id))).toEqual([])
    expect(seen.map((r) => r.offset)).toEqual(seen.map((_, n) => n))
    // The epoch has changed with the restart; every position given out is still the log's.
    const fresh = await openKafkaLog({ brokers: [broker.address] })
    const positions = [...acknowledged.values()]
    for (const position of [positions[0]!, positions[before - 1]!, positions[before]!, positions.at(-1)!]) {
      expect(await fresh.positionAt(topic, 0, position.offset)).toMatchObject({ fingerprint: position.fingerprint })
      expect((await fresh.read(topic, 0, position, all)).kind).toBe('records')
    }
    await fresh.close()
  }, 120_000)

  it('notices a tail that was lost and has grown again, with the very same records too', async () => {
    const topic = freshTopic('truncated')
    await log.create(topic, 1)
    const sent = Array.from({ length: 6 }, (_, n) => recordOf(`{"n":${n}}`))
    const start = genesis((await log.range(topic, 0)).logId)
    const ends: Position[] = []
    for (const record of sent) ends.push(await log.append(topic, 0, [record]))
    await broker.kill()
    // The last three batches never reached the disk.
    const folder = join(broker.folder, `${topic}-0`)
    const segment = (await readdir(folder)).find((name) => name.endsWith('.log'))!
    const file = await openFile(join(folder, segment), 'r+')
    const bytes = await file.readFile()
    let length = 0
    for (let n = 0; n < 3; n++) length += 12 + bytes.readInt32BE(length + 8)
    await file.truncate(length)
    await file.close()
    await broker.start()
    const fresh = await openKafkaLog({ brokers: [broker.address] })
    for (const reader of [log, fresh]) {
      expect(await reader.read(topic, 0, ends[5]!, all)).toEqual({ kind: 'beyond-end', endOffset: 3 })
      expect(records(await reader.read(topic, 0, ends[2]!, all))).toEqual([])
    }
    for (const record of [...sent.slice(3), recordOf('{"n":6}')]) await fresh.append(topic, 0, [record])
    for (const reader of [log, fresh]) {
      for (const at of [ends[3]!, ends[4]!, ends[5]!]) {
        expect(await reader.read(topic, 0, at, { ...all, waitMs: 1_000 })).toEqual({ kind: 'replaced' })
        expect((await reader.positionAt(topic, 0, at.offset))!.fingerprint).not.toBe(at.fingerprint)
      }
      expect(texts(await reader.read(topic, 0, ends[2]!, all))).toHaveLength(4)
      expect(texts(await reader.read(topic, 0, start, all))).toHaveLength(7)
    }
    await fresh.close()
  }, 120_000)

  it('opens while the broker is away, says so quickly, and works when it is there', async () => {
    const topic = freshTopic('away')
    await log.create(topic, 1)
    await broker.kill()
    const early = await openKafkaLog({ brokers: [broker.address], giveUpMs: 300 })
    const unreachable = { code: 'WEIR_LOG_UNREACHABLE', retryable: true }
    await expect(early.range(topic, 0)).rejects.toMatchObject(unreachable)
    await expect(early.append(topic, 0, [recordOf('{}')])).rejects.toMatchObject(unreachable)
    await broker.start()
    expect((await early.append(topic, 0, [recordOf('{}')])).offset).toBe(1)
    await early.close()
  }, 120_000)
})
