/**
 * Planning as plain values: which generation, which epochs, which files. No I/O.
 * Invariant: a plan's epochs go on, position by position, from the generation's cut to the upper; what does not fit is a
 * misfit, never a smaller answer.
 */

import type { LogRange } from '../model/ports/event-log.ts'
import type { PartFile, Pointer } from '../model/ports/publications.ts'
import type { Epoch, Header } from '../model/ports/speed-store.ts'
import { type Cut, genesis, type Position, samePosition } from '../model/position.ts'
import { DAY_US } from '../model/query/grain.ts'
import type { ResolvedQuery } from '../model/query/query.ts'
import { misfit } from './errors.ts'

/** What serves: a published generation, or generation 0 with nothing in it. */
export type Base = { generation: number; cut: Cut; files: PartFile[] }

export type PartitionPlan = {
  partition: number
  cut: Position
  upper: Position
  /** From the cut to the upper; empty when nothing has been applied beyond the cut. */
  epochs: Epoch[]
  counted: number
  watermarkUs: string | null
  /** True when the partition is known to hold no record at all. */
  empty: boolean
  logEndOffset: number
  /** Below it no record ever was the dataset's. */
  logOriginOffset: number
}

export type Plan = {
  view: string
  version: string
  generation: number
  partitions: PartitionPlan[]
  /** Files that may hold buckets of the asked ranges. */
  files: PartFile[]
  /** Files of the generation that cannot. */
  pruned: number
  limits: { rows: number | null; deadlineMs: number }
}

/** The generation that a pointer names; before the first publish: generation 0, cut at the beginning of every partition. */
export const baseOf = (pointer: Pointer | null): Base =>
  pointer === null
    ? { generation: 0, cut: {}, files: [] }
    : { generation: pointer.generation, cut: pointer.cut, files: pointer.files }

/**
 * Joins what one partition has. Throws a misfit.
 * `range` was read after `header`, so a header is never ahead of it unless the log lost its tail.
 */
export const joinPartition = (
  view: { name: string; version: string },
  partition: number,
  base: Base,
  header: Header | null,
  range: LogRange,
): PartitionPlan => {
  const at = `partition ${partition}`
  // A partition that the generation does not know yet enters with cut 0.
  const cut = base.cut[String(partition)] ?? genesis(range.logId)
  if (cut.logId !== range.logId)
    throw misfit('OTHER_LOG', view.name, `${at}: generation of log ${cut.logId}, log ${range.logId}`)
  if (cut.offset > range.endOffset)
    throw misfit('AHEAD', view.name, `${at}: cut ${cut.offset} beyond the log's end ${range.endOffset}`)
  const empty = range.endOffset === 0
  const ends = { logEndOffset: range.endOffset, logOriginOffset: range.originOffset ?? 0 }
  if (header === null)
    return {
      partition,
      cut,
      upper: cut,
      epochs: [],
      counted: 0,
      watermarkUs: null,
      empty,
      ...ends,
    }
  const { position } = header
  if (position.logId !== range.logId)
    throw misfit('OTHER_LOG', view.name, `${at}: speed state of log ${position.logId}, log ${range.logId}`)
  if (position.offset > range.endOffset)
    throw misfit('AHEAD', view.name, `${at}: speed state at ${position.offset}, log ends at ${range.endOffset}`)
  const held = header.views[view.version]
  if (held === undefined) throw misfit('NOT_FED', view.name, `${at}: no speed state of version ${view.version}`)
  const first = held.epochs.findIndex((e) => samePosition(e.from, cut))
  if (first < 0)
    throw misfit('NO_EPOCH', view.name, `${at}: no epoch begins at the cut ${cut.offset}; position ${position.offset}`)
  const epochs = held.epochs.slice(first)
  epochs.forEach((epoch, i) => {
    const end = epochs[i + 1]?.from ?? position
    if (!samePosition(epoch.to, end))
      throw misfit(
        'NO_EPOCH',
        view.name,
        `${at}: epoch ${epoch.from.offset} ends at ${epoch.to.offset}, then ${end.offset}`,
      )
    if (epoch.to.offset < epoch.from.offset)
      throw misfit('NO_EPOCH', view.name, `${at}: epoch ${epoch.from.offset} ends before it begins`)
  })
  return {
    partition,
    cut,
    upper: position,
    epochs,
    counted: header.counted,
    watermarkUs: header.watermarkUs,
    empty,
    ...ends,
  }
}

/** µs of a part's UTC day; null for parts that are not a day. */
const dayOf = (part: string): bigint | null => {
  const ms = /^\d{4,}-\d{2}-\d{2}$/.test(part) ? Date.parse(`${part}T00:00:00Z`) : Number.NaN
  return Number.isNaN(ms) ? null : BigInt(ms) * 1000n
}

type Range = { fromUs: bigint | null; toUs: bigint | null }
const mayHold = (part: string, { fromUs, toUs }: Range): boolean => {
  // Buckets that are NULL are in no range, but in the whole.
  if (part === 'none') return fromUs === null && toUs === null
  const day = dayOf(part)
  return day === null || ((toUs === null || day < toUs) && (fromUs === null || day + DAY_US > fromUs))
}

/** Files whose day may hold buckets of the query's ranges. */
export const pruneFiles = (files: PartFile[], query: ResolvedQuery): PartFile[] => {
  const ranges: Range[] = [query.range, ...(query.previous === null ? [] : [query.previous])]
  return files.filter((f) => f.rows > 0 && ranges.some((r) => mayHold(f.part, r)))
}

export const cutOf = (plan: Plan): Cut => Object.fromEntries(plan.partitions.map((p) => [String(p.partition), p.cut]))
export const upperOf = (plan: Plan): Cut =>
  Object.fromEntries(plan.partitions.map((p) => [String(p.partition), p.upper]))

/** Minimum over partitions; null while a partition that has records has none. */
export const watermarkUs = (plan: Plan): bigint | null => {
  let least: bigint | null = null
  for (const { watermarkUs: mark, empty } of plan.partitions) {
    if (empty) continue
    if (mark === null) return null
    if (least === null || BigInt(mark) < least) least = BigInt(mark)
  }
  return least
}
