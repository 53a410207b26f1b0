/**
 * Live files of a table as plain values, and which of them a range of records can lie in.
 * Invariant: pruning may keep a file too many, never one too few: an absent or foreign tag means "may hold anything".
 */
import { type AddFile, decodePath } from './delta-actions.ts'
import type { Snapshot } from './delta-snapshot.ts'
import { readStats } from './delta-stats.ts'

export type LiveFile = {
  key: string
  size: number
  /** Undefined: rewritten by another engine, so unverified. */
  sha256: string | undefined
  rows: number | null
  /** Undefined when another engine rewrote it. */
  partition: number | undefined
  from: number
  to: number
  appendDate: string | null
  counted: number | undefined
  duplicate: number | undefined
  watermarkUs: number | null | undefined
  add: AddFile
}

const integer = (text: string | undefined): number | undefined =>
  text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined

export const liveFile = (root: string, add: AddFile): LiveFile => {
  const tags = add.tags ?? {}
  const from = integer(tags.from)
  const to = integer(tags.to)
  // Tags stay true only as a whole: another engine's rewrite drops them all.
  const own = tags.sha256 !== undefined && from !== undefined && to !== undefined
  return {
    key: `${root}/${decodePath(add.path)}`,
    size: add.size,
    sha256: tags.sha256,
    rows: readStats(add.stats)?.rows ?? null,
    partition: own ? integer(tags.partition) : undefined,
    from: own ? from : 0,
    to: own ? to : Number.POSITIVE_INFINITY,
    appendDate: add.partitionValues._append_date ?? null,
    counted: own ? integer(tags.counted) : undefined,
    duplicate: own ? integer(tags.duplicate) : undefined,
    watermarkUs: own ? (integer(tags.watermarkUs) ?? null) : undefined,
    add,
  }
}

/** Lists of snapshots that somebody holds: one commit is asked for its files several times. Actions, and so these, never change. */
const lists = new WeakMap<Snapshot, LiveFile[]>()
const single = new WeakMap<AddFile, LiveFile>()

/** All live files, ordered by partition, first offset, key. The list is shared: nobody changes it. */
export const liveFiles = (root: string, snapshot: Snapshot): LiveFile[] => {
  const known = lists.get(snapshot)
  if (known !== undefined) return known
  const list = [...snapshot.files.values()]
    .map((add) => {
      const file = single.get(add) ?? liveFile(root, add)
      single.set(add, file)
      return file
    })
    .sort((a, b) => (a.partition ?? -1) - (b.partition ?? -1) || a.from - b.from || (a.key < b.key ? -1 : 1))
  lists.set(snapshot, list)
  return list
}

/** Whether a file may hold records of `[from, to)` of a partition. */
export const mayHold = (file: LiveFile, partition: number, from: number, to: number): boolean =>
  file.partition === undefined || (file.partition === partition && file.from < to && file.to > from)

/** Whether all of a file lies in records below `offset` of the partition. */
export const whollyBelow = (file: LiveFile, partition: number, offset: number): boolean =>
  file.partition === partition && file.to <= offset
