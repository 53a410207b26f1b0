/** What members of a group tell each other, in Kafka's own layout ("consumer" protocol, version 0), and who gets what. Pure. */
import { newReader, newWriter } from './kafka-wire.ts'

type Share = Map<string, number[]>

export const encodeSubscription = (topics: string[]): Buffer => {
  const w = newWriter()
  w.int16(0).array(topics, (topic) => w.string(topic))
  return w.bytes(new Uint8Array()).done()
}

export const encodeAssignment = (share: Share): Buffer => {
  const w = newWriter()
  w.int16(0).array([...share], ([topic, partitions]) => {
    w.string(topic).array(partitions, (p) => w.int32(p))
  })
  return w.bytes(new Uint8Array()).done()
}

export const decodeAssignment = (bytes: Buffer): Share => {
  const share: Share = new Map()
  if (bytes.byteLength === 0) return share
  const r = newReader(bytes)
  r.int16()
  r.array(() =>
    share.set(
      r.string() ?? '',
      r.array(() => r.int32()).sort((a, b) => a - b),
    ),
  )
  return share
}

/**
 * Deals the partitions out, topic by topic, going on with the next member where the topic before ended: shares differ by one
 * at most, and members beyond the number of partitions get none.
 */
export const spread = (members: string[], partitions: Share): Map<string, Share> => {
  const shares = new Map<string, Share>(members.map((member) => [member, new Map()]))
  if (members.length === 0) return shares
  let turn = 0
  for (const [topic, all] of [...partitions].sort(([a], [b]) => (a < b ? -1 : 1))) {
    for (const partition of all) {
      const share = shares.get(members[turn++ % members.length]!)!
      share.set(topic, [...(share.get(topic) ?? []), partition])
    }
  }
  return shares
}
