/**
 * Work that is done per (dataset, partition): here for all of them with the embedded log, for this process's share of the consumer group
 * with Kafka. Invariant: what a rebalance takes away has come to rest before the group goes on, so two owners are rare; that they are
 * harmless is the stores' compare-and-set.
 */
import { joinGroup } from '../log/kafka-assignment.ts'
import { WeirError } from '../model/errors.ts'
import { usesKafka } from '../model/settings-servers.ts'
import { type Loop, startLoop } from './loops.ts'
import type { Shared } from './ports.ts'
import type { Role } from './roles.ts'
import { kafkaClient, topicOf } from './servers.ts'

/** One partition's work: `step` as a loop's, `close` when it is given up. */
export type PartitionWork = { step(signal: AbortSignal): Promise<number>; close(): Promise<void> }

export type Assigned = {
  /** Names of the partitions that are worked on, `<kind>/<dataset>/<partition>`. */
  names(): string[]
  /** Whether this process knows its share: always, but for a Kafka group that it has not joined yet. */
  isKnown(): boolean
  /** Let all look around now. */
  wake(): void
  stop(): Promise<void>
}

const topicGone = (dataset: string, topic: string): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_TOPIC_GONE',
    message: `The topic ${topic} of the dataset ${dataset} is gone.`,
    expected: 'the topic that the stored positions are of',
    got: 'no such topic on the brokers',
    next: 'see speed/…/stopped in docs/cluster.md: a topic of that name that is made now is another log',
  })

type Entry = { work: PartitionWork | null; loop: Loop | null }

/**
 * Runs `open`'s work for each partition of this process; an `open` that fails is an alarm, and tried again. A partition that a rebalance gives
 * back to the same process goes on with what it had open: rebuilding a worker may mean reading a whole window of ids.
 */
export const workOnAssigned = async (
  { options, ports, alarms }: Shared,
  role: Role,
  kind: string,
  open: (dataset: string, partition: number) => Promise<PartitionWork>,
): Promise<Assigned> => {
  const { settings, datasets } = options.project
  const entries = new Map<string, Entry>()
  let known = false

  const start = (dataset: string, partition: number): void => {
    const name = `${kind}/${dataset}/${partition}`
    const entry: Entry = entries.get(name) ?? { work: null, loop: null }
    entries.set(name, entry)
    entry.loop ??= startLoop({
      name,
      alarms,
      step: async (signal) => {
        entry.work ??= await open(dataset, partition)
        return entry.work.step(signal)
      },
    })
  }
  const pause = async (): Promise<void> => {
    await Promise.all(
      [...entries.values()].map(async (entry) => {
        await entry.loop?.stop()
        entry.loop = null
      }),
    )
  }
  const drop = async (name: string): Promise<void> => {
    const entry = entries.get(name)
    entries.delete(name)
    await entry?.loop?.stop()
    await entry?.work?.close()
    alarms.clear(name)
  }
  const take = async (share: Record<string, number[]>): Promise<void> => {
    const wanted = Object.entries(share).flatMap(([dataset, partitions]) => partitions.map((p) => ({ dataset, p })))
    const names = new Set(wanted.map(({ dataset, p }) => `${kind}/${dataset}/${p}`))
    await Promise.all([...entries.keys()].filter((name) => !names.has(name)).map(drop))
    for (const { dataset, p } of wanted) start(dataset, p)
    known = true
  }

  const all = async (): Promise<Record<string, number[]>> =>
    Object.fromEntries(await Promise.all(datasets.map(async ({ name }) => [name, await ports.log.partitions(name)])))

  /** A topic that is gone has no partition here that could raise an alarm of its own. */
  const watchTopics = async (): Promise<void> => {
    for (const { name } of datasets) {
      const source = `${kind}/${name}`
      try {
        if ((await ports.log.partitions(name)).length === 0) throw topicGone(name, topicOf(settings)(name))
        alarms.clear(source)
      } catch (error) {
        alarms.raise(source, error)
      }
    }
  }

  let leave = async (): Promise<void> => undefined
  if (usesKafka(settings)) {
    const source = `${kind}/group`
    const group = await joinGroup({
      ...(await kafkaClient(settings)),
      groupId: `${settings.kafka.group}.${role}`,
      datasets: datasets.map((d) => d.name),
      topicOf: topicOf(settings),
      onAssigned: async (share) => {
        await take(share)
        alarms.clear(source)
        await watchTopics()
      },
      onRevoked: pause,
      onError: (error) => alarms.raise(source, error),
    })
    leave = group.close
  } else await take(await all())

  return {
    names: () => [...entries.keys()],
    isKnown: () => known,
    wake: () => {
      for (const { loop } of entries.values()) loop?.wake()
    },
    stop: async () => {
      await pause()
      await leave()
      await Promise.all([...entries.keys()].map(drop))
    },
  }
}
