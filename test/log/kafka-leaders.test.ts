/** Three brokers: the leader of a partition dies, another one leads, the first comes back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaLog, openKafkaLog } from '../../log/kafka-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { service } from '../support/services.ts'
import { brokerJars, type OwnBroker, prepareCluster } from './kafka-broker.ts'
import { all, freshTopic, openTopicTools, recordOf, records, until } from './kafka-support.ts'

const jars = brokerJars()

describe.skipIf(service('KAFKA_BROKERS') === null || jars === null)('three brokers', () => {
  let brokers: OwnBroker[] = []
  let log: KafkaLog
  beforeAll(async () => {
    brokers = await prepareCluster(jars!, 3)
    await Promise.all(brokers.map((b) => b.start()))
    log = await openKafkaLog({ brokers: brokers.map((b) => b.address), giveUpMs: 20_000 })
  }, 180_000)
  afterAll(async () => {
    await log?.close()
    await Promise.all(brokers.map((b) => b.remove()))
  })

  const leaderOf = async (topic: string): Promise<number> => {
    for (const { address } of brokers) {
      const tools = openTopicTools(address)
      try {
        await tools.admin.connect()
        const { topics } = await tools.admin.fetchTopicMetadata({ topics: [topic] })
        return topics[0]!.partitions[0]!.leader
      } catch {
        // This one is away.
      } finally {
        await tools.admin.disconnect()
      }
    }
    throw new Error('no broker answers')
  }

  it('goes on under another leader with the same positions, and loses nothing', async () => {
    const topic = freshTopic('leaders')
    await log.create(topic, 1)
    const start = genesis((await log.range(topic, 0)).logId)
    const acknowledged: { id: string; position: Position }[] = []
    let stopped = false
    const writer = async (): Promise<void> => {
      while (!stopped) {
        const record = recordOf('{"a":1}')
        acknowledged.push({ id: record.recordId, position: await log.append(topic, 0, [record]) })
      }
    }
    const ids: string[] = []
    const reader = async (): Promise<void> => {
      for (let at = start; !stopped; ) {
        const read = await log.read(topic, 0, at, { ...all, waitMs: 100 })
        ids.push(...records(read).map((r) => r.recordId))
        if (read.kind === 'records') at = read.to
      }
    }
    const work = [writer(), writer(), reader()]
    for (let round = 0; round < 2; round++) {
      const before = acknowledged.length
      await until('appends', () => acknowledged.length > before + 50, 60_000)
      const leader = await leaderOf(topic)
      await brokers[leader - 1]!.kill()
      const after = acknowledged.length
      const diedAt = performance.now()
      await until('appends under another leader', () => acknowledged.length > after + 50, 60_000)
      console.info(`another leader took over within ${Math.round(performance.now() - diedAt)} ms`)
      expect(await leaderOf(topic)).not.toBe(leader)
      await brokers[leader - 1]!.start()
    }
    stopped = true
    await Promise.all(work)
    const fresh = await openKafkaLog({ brokers: brokers.map((b) => b.address) })
    const inLog = new Set(records(await fresh.read(topic, 0, start, { maxBytes: 64 << 20 })).map((r) => r.recordId))
    expect(acknowledged.filter(({ id }) => !inLog.has(id))).toEqual([])
    const every = Math.ceil(acknowledged.length / 20)
    for (const { position } of acknowledged.filter((_, n) => n % every === 0)) {
      expect(await fresh.positionAt(topic, 0, position.offset)).toMatchObject({ fingerprint: position.fingerprint })
      for (const reader of [log, fresh]) expect((await reader.read(topic, 0, position, all)).kind).toBe('records')
    }
    expect(new Set(ids).size).toBeGreaterThan(150)
    await fresh.close()
  }, 180_000)
})
