/** TLS and SASL, and that no secret is in an error. */
import { spawnSync } from 'node:child_process'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { joinGroup } from '../../log/kafka-assignment.ts'
import { openKafkaLog } from '../../log/kafka-log.ts'
import { genesis } from '../../model/position.ts'
import { service } from '../support/services.ts'
import { brokerJars, type OwnBroker, prepareBroker } from './kafka-broker.ts'
import { all, recordOf, texts, until } from './kafka-support.ts'

const jars = brokerJars()
const hasOpenssl = spawnSync('openssl', ['version']).status === 0

describe.skipIf(service('KAFKA_BROKERS') === null || jars === null || !hasOpenssl)('a broker with TLS and SASL', () => {
  let broker: OwnBroker
  beforeAll(async () => {
    broker = await prepareBroker(jars!, { secure: true })
    await broker.start()
  }, 120_000)
  afterAll(() => broker?.remove())
  const options = (mechanism: 'plain' | 'scram-sha-256', password = 'secret') => ({
    brokers: [broker.secure!.address],
    tls: { ca: [broker.secure!.certificate] },
    sasl: { mechanism, username: 'weir', password },
    giveUpMs: 2_000,
  })

  it.each(['plain', 'scram-sha-256'] as const)('is used with %s', async (mechanism) => {
    const log = await openKafkaLog(options(mechanism))
    const topic = `secure-${mechanism}`
    await log.create(topic, 1)
    await log.append(topic, 0, [recordOf('{"a":1}')])
    const start = genesis((await log.range(topic, 0)).logId)
    expect(texts(await log.read(topic, 0, start, all))).toEqual(['{"a":1}\n'])
    let owned = 0
    const group = await joinGroup({
      ...options(mechanism),
      groupId: topic,
      datasets: [topic],
      onAssigned: () => void owned++,
      onRevoked: () => undefined,
    })
    await until('a partition', () => owned > 0)
    await group.close()
    await log.close()
  })

  it('refuses a wrong password for good, and says it nowhere', async () => {
    for (const mechanism of ['plain', 'scram-sha-256'] as const) {
      const log = await openKafkaLog(options(mechanism, 'wr0ng-secret'))
      const error: unknown = await log.append('t', 0, [recordOf('{}')]).catch((e: unknown) => e)
      expect(error).toMatchObject({ code: 'WEIR_LOG_DENIED', retryable: false })
      expect(inspect(error, { depth: 10 })).not.toContain('wr0ng-secret')
      await log.close()
    }
  })

  it('says that a user may not, at once', async () => {
    const owner = await openKafkaLog(options('plain'))
    await owner.create('closed', 1)
    const start = genesis((await owner.range('closed', 0)).logId)
    const log = await openKafkaLog({
      ...options('plain'),
      sasl: { mechanism: 'plain', username: 'guest', password: 'secret' },
    })
    const denied = { code: 'WEIR_LOG_DENIED', retryable: false }
    await expect(log.append('closed', 0, [recordOf('{}')])).rejects.toMatchObject(denied)
    await expect(log.read('closed', 0, start, all)).rejects.toMatchObject(denied)
    await expect(log.range('closed', 0)).rejects.toMatchObject(denied)
    await expect(log.create('another', 1)).rejects.toMatchObject(denied)
    await expect(log.inspect('closed')).rejects.toMatchObject(denied)
    await log.close()
    await owner.close()
  })

  it('does not trust a certificate that nobody vouches for, nor talk without TLS', async () => {
    for (const tls of [true, false]) {
      const log = await openKafkaLog({ ...options('plain'), tls, requestTimeoutMs: 500 })
      await expect(log.range('t', 0)).rejects.toMatchObject({ code: 'WEIR_LOG_UNREACHABLE' })
      await log.close()
    }
  }, 30_000)
})
