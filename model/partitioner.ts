/**
 * The partition of a key, as Kafka's own producers choose it: MurmurHash2 (32 bits, Kafka's seed) of its bytes, without its sign,
 * modulo the number of partitions. Java's and kafkajs' default partitioner and librdkafka's `murmur2_random` agree. Pure.
 * Invariant: the same text goes to the same partition for ever (docs/decisions/partitioning.md).
 */

const SEED = 0x9747b28c
const M = 0x5bd1e995

/** As a signed number. Source: org.apache.kafka.common.utils.Utils.murmur2. */
export const murmur2 = (key: Uint8Array): number => {
  const length = key.byteLength
  let h = SEED ^ length
  let i = 0
  for (; i + 4 <= length; i += 4) {
    let k = Math.imul(key[i]! | (key[i + 1]! << 8) | (key[i + 2]! << 16) | (key[i + 3]! << 24), M)
    k = Math.imul(k ^ (k >>> 24), M)
    h = Math.imul(h, M) ^ k
  }
  const left = length - i
  if (left === 3) h ^= key[i + 2]! << 16
  if (left >= 2) h ^= key[i + 1]! << 8
  if (left >= 1) h = Math.imul(h ^ key[i]!, M)
  h = Math.imul(h ^ (h >>> 13), M)
  return h ^ (h >>> 15)
}

/** Texts are hashed as UTF-8. */
export const partitionOf = (key: string | Uint8Array, partitions: number): number =>
  (murmur2(typeof key === 'string' ? Buffer.from(key) : key) & 0x7fffffff) % partitions
