/** Partitions spread over workers, with Kafka's group protocol and no offsets. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Assignment, type Group, joinGroup } from '../../log/kafka-assignment.ts'
import { spread } from '../../log/kafka-group.ts'
import { service } from '../support/services.ts'
import { brokerJars, prepareBroker } from './kafka-broker.ts'
import { freshTopic, openTopicTools, type TopicTools, until } from './kafka-support.ts'

const brokers = service('KAFKA_BROKERS')

type Worker = { owned: Assignment; changes: string[]; errors: Error[]; group: Group }

describe('sharing out', () => {
  it('gives each partition to one member, shares that differ by one at most, whatever the order of members', () => {
    const partitions = new Map([
      ['b', [0, 1, 2]],
      ['a', [0, 1, 2, 3]],
    ])
    const shares = spread(['m1', 'm2', 'm3'], partitions)
    const sizes = [...shares.values()].map((share) => [...share.values()].flat().length)
    expect(sizes.sort()).toEqual([2, 2, 3])
    const dealt = [...shares.values()].flatMap((share) => [...share].flatMap(([t, ps]) => ps.map((p) => `${t}${p}`)))
    expect(dealt.sort()).toEqual(['a0', 'a1', 'a2', 'a3', 'b0', 'b1', 'b2'])
    expect(spread(['m1', 'm2'], new Map([['a', [0]]])).get('m2')).toEqual(new Map())
    expect(spread([], partitions).size).toBe(0)
  })
})

describe.skipIf(brokers === null)('groups', () => {
  let tools: TopicTools
  const made: string[] = []
  beforeAll(() => {
    tools = openTopicTools(brokers!)
  })
  afterAll(async () => {
    for (const topic of made) await tools.remove(topic)
    await tools.close()
  })
  const topicOf = async (partitions: number): Promise<string> => {
    const topic = freshTopic('group')
    made.push(topic)
    await tools.make(topic, partitions)
    return topic
  }
  const join = async (groupId: string, topics: string[], more: Partial<Parameters<typeof joinGroup>[0]> = {}) => {
    const worker: Worker = { owned: {}, changes: [], errors: [], group: undefined as never }
    worker.group = await joinGroup({
      brokers: brokers!.split(','),
      groupId,
      datasets: topics,
      sessionTimeoutMs: 2_000,
      lookMs: 300,
      onAssigned: (owned) => {
        worker.owned = owned
        worker.changes.push('assigned')
      },
      onRevoked: () => {
        worker.owned = {}
        worker.changes.push('revoked')
      },
      onError: (error) => worker.errors.push(error),
      ...more,
    })
    return worker
  }
  const partitionsOf = (worker: Worker): string[] =>
    Object.entries(worker.owned).flatMap(([topic, partitions]) => partitions.map((p) => `${topic}/${p}`))
  /** Waits until each of `all` has one owner and the shares are as large as said. */
  const shared = (workers: Worker[], all: number, sizes: number[]): Promise<void> =>
    until(`shares of ${sizes}`, () => {
      const owned = workers.map(partitionsOf)
      const distinct = new Set(owned.flat())
      return (
        distinct.size === all &&
        owned.flat().length === all &&
        JSON.stringify(owned.map((o) => o.length).sort()) === JSON.stringify([...sizes].sort())
      )
    })

  it('tells a member that there is nothing for it', async () => {
    const topic = await topicOf(1)
    const workers = [await join(topic, [topic])]
    await shared(workers, 1, [1])
    workers.push(await join(topic, [topic]))
    await shared(workers, 1, [0, 1])
    await until('each has its answer', () => workers.every((w) => w.changes.at(-1) === 'assigned'))
    for (const { group } of workers) await group.close()
  })

  it('spreads four partitions over two workers; the rest go on when one leaves, and when one dies', async () => {
    const topic = await topicOf(4)
    const one = await join(topic, [topic])
    await shared([one], 4, [4])
    const two = await join(topic, [topic])
    await shared([one, two], 4, [2, 2])
    await two.group.close()
    await shared([one], 4, [4])
    // A worker that is cut off cannot say goodbye: its session ends.
    let isCut = false
    const three = await join(topic, [topic], {
      reach: (address) => (isCut ? { host: '127.0.0.1', port: 1 } : address),
    })
    await shared([one, three], 4, [2, 2])
    isCut = true
    await shared([one], 4, [4])
    // It learns by itself that it owns nothing, and comes back when it can.
    await until('the lost one gives up', () => partitionsOf(three).length === 0)
    expect(three.errors).toMatchObject([{ code: 'WEIR_LOG_UNREACHABLE' }])
    isCut = false
    await shared([one, three], 4, [2, 2])
    expect(one.errors).toEqual([])
    await Promise.all([one.group.close(), three.group.close()])
    const offsets = await tools.admin.fetchOffsets({ groupId: topic, topics: [topic] })
    expect(offsets[0]!.partitions.map((p) => p.offset)).toEqual(['-1', '-1', '-1', '-1'])
  }, 60_000)

  it('keeps workers beyond the number of partitions at rest, and lets one in when a partition is added', async () => {
    const [first, second] = [await topicOf(1), await topicOf(1)]
    const workers = await Promise.all([0, 1, 2].map(() => join(first, [first, second])))
    await shared(workers, 2, [0, 1, 1])
    await tools.admin.createPartitions({ topicPartitions: [{ topic: second, count: 2 }] })
    await shared(workers, 3, [1, 1, 1])
    await Promise.all(workers.map((w) => w.group.close()))
  }, 60_000)

  it('hands over before it joins again, however slowly', async () => {
    const topic = await topicOf(2)
    let release: () => void = () => undefined
    const order: string[] = []
    const slow = await join(topic, [topic], {
      onRevoked: async () => {
        order.push('asked')
        await new Promise<void>((resolve) => {
          release = resolve
        })
        order.push('handed over')
      },
    })
    await until('both', () => Object.values(slow.group.assignment()).flat().length === 2)
    const other = await join(topic, [topic], { onAssigned: () => void order.push('taken') })
    await until('asked', () => order.includes('asked'))
    // Longer than a session: heartbeats go on meanwhile.
    const asked = performance.now()
    await until('longer than a session', () => performance.now() - asked > 2_500)
    expect(order).toEqual(['asked'])
    release()
    await until('taken', () => order.includes('taken'))
    expect(order).toEqual(['asked', 'handed over', 'taken'])
    release()
    const closing = slow.group.close()
    await until(
      'asked again',
      () => order.filter((o) => o === 'asked').length > 1 || Object.keys(slow.group.assignment()).length === 0,
    )
    release()
    await closing
    await other.group.close()
  }, 60_000)
})

describe.skipIf(brokers === null || brokerJars() === null)('a group whose broker is killed', () => {
  it('waits for it and shares out again by itself', async () => {
    const broker = await prepareBroker(brokerJars()!)
    await broker.start()
    const tools = openTopicTools(broker.address)
    const topic = freshTopic('group')
    await tools.make(topic, 4)
    await tools.close()
    const owners = [0, 1].map(() => ({ owned: [] as number[] }))
    const groups = await Promise.all(
      owners.map((owner) =>
        joinGroup({
          brokers: [broker.address],
          groupId: topic,
          datasets: [topic],
          sessionTimeoutMs: 2_000,
          onAssigned: (owned) => {
            owner.owned = owned[topic] ?? []
          },
          onRevoked: () => {
            owner.owned = []
          },
        }),
      ),
    )
    const isShared = () => owners.every((o) => o.owned.length === 2)
    await until('shared', isShared)
    await broker.kill()
    await until('given up', () => owners.every((o) => o.owned.length === 0))
    await broker.start()
    await until('shared again', isShared)
    await Promise.all(groups.map((g) => g.close()))
    await broker.remove()
  }, 120_000)
})
