/**
 * Verdicts over a group of requests: one run of the decoder's own SQL. Invariant: what passes here is what the decoder
 * finds good in the log, for the very same lines are decoded by the very same statement.
 */
import { decodeBatch } from '../engine/decode.ts'
import type { Engine, Session } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import { partitionOf } from '../model/partitioner.ts'
import type { NewRecord } from '../model/ports/event-log.ts'
import type { Framed } from './lines.ts'
import type { Rejection } from './outcome.ts'
import { keyColumns, keySql } from './partition.ts'
import { type Chunk, type RecordLimits, type RequestKey, recordsByPartition, recordsOfChunks } from './records.ts'

export type Asked = {
  framed: Framed
  chunks: Chunk[]
  key: RequestKey
  /** Where events without key and id go. */
  turn: number
}

export type Rejected = Rejection & { raw: Uint8Array }

export type Verdict = {
  accepted: number
  /** By index. */
  rejected: Rejected[]
  records: Map<number, NewRecord[]>
}

const TABLE = 'door_batch'

/** One verdict per asked request, in order. Throws only when the engine fails. */
export const decide = async (
  engine: Engine,
  session: Session,
  dataset: Dataset,
  partitions: number,
  asked: Asked[],
  limits: RecordLimits,
): Promise<Verdict[]> => {
  const chunks = asked.flatMap((a) => a.chunks)
  if (chunks.length === 0) return asked.map((a) => verdictOf(a, [], new Map()))
  // A table is wanted only for the partitions' sake; with one partition the verdicts are enough.
  const sql = partitions > 1 ? keySql(dataset, TABLE) : null
  const kept = sql === null ? {} : { table: TABLE, columns: keyColumns(dataset) }
  const { dead } = await decodeBatch(engine, session, dataset, chunks, kept)
  const deadOf = groupBy(dead, (d) => d.record)
  const placed = sql === null ? null : ((await session.columns(sql)) as [number[], (string | null)[]])

  let chunkBase = 0
  let rowBase = 0
  let placedAt = 0
  return asked.map((a) => {
    const deadLines = new Map<number, number[]>()
    const rejected: Rejected[] = []
    a.chunks.forEach((chunk, number) => {
      const found = deadOf.get(chunkBase + number)
      if (found === undefined) return
      deadLines.set(
        number,
        found.map((d) => d.index).sort((x, y) => x - y),
      )
      for (const d of found) {
        const line = chunk.first + d.index
        const what = d.column === null ? '' : `${d.column}: `
        const reason = `${what}expected ${d.expected}, got ${d.got}`
        rejected.push({ index: a.framed.index?.[line] ?? line, code: d.code, reason, raw: d.raw })
      }
    })
    const lines = a.framed.ends.length
    const records =
      partitions === 1 || placed === null
        ? wholeRequest(dataset.name, partitions === 1 ? 0 : a.turn % partitions, a, deadLines)
        : scattered(dataset.name, a, limits, (into) => {
            for (; placedAt < placed[0].length && placed[0][placedAt]! < rowBase + lines; placedAt++) {
              const text = placed[1][placedAt]!
              into[placed[0][placedAt]! - rowBase] = text === null ? a.turn % partitions : partitionOf(text, partitions)
            }
          })
    chunkBase += a.chunks.length
    rowBase += lines
    return verdictOf(a, rejected, records)
  })
}

const verdictOf = (a: Asked, dead: Rejected[], records: Map<number, NewRecord[]>): Verdict => ({
  accepted: a.framed.ends.length - dead.length,
  rejected: [...a.framed.rejects, ...dead].sort((x, y) => x.index - y.index),
  records,
})

const wholeRequest = (dataset: string, partition: number, a: Asked, dead: Map<number, number[]>) => {
  const records = recordsOfChunks(dataset, partition, a.key, a.chunks, dead)
  return new Map(records.length === 0 ? [] : [[partition, records]])
}

const scattered = (dataset: string, a: Asked, limits: RecordLimits, fill: (into: Int32Array) => void) => {
  // Lines without a row in the table are dead: they keep −1 and go nowhere.
  const partitionOf = new Int32Array(a.framed.ends.length).fill(-1)
  fill(partitionOf)
  return recordsByPartition(dataset, a.key, a.framed.bytes, a.framed.ends, partitionOf, limits)
}

const groupBy = <T>(items: T[], keyOf: (item: T) => number): Map<number, T[]> => {
  const groups = new Map<number, T[]>()
  for (const item of items) {
    const known = groups.get(keyOf(item))
    if (known === undefined) groups.set(keyOf(item), [item])
    else known.push(item)
  }
  return groups
}
