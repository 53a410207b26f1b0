/**
 * The local copy of one view version: follows the speed state of every partition, keeps published parts in memory.
 * Invariant: under the reader's lock the copy equals the header that `sync` returned (digest checked) and the parts of one
 * generation; a snapshot opened under the same lock sees exactly that, whatever is changed afterwards.
 */
import type { Engine } from '../engine/engine.ts'
import { loadList } from '../lake/delta-schema.ts'
import { parquetSource } from '../lake/scan.ts'
import { cellColumns } from '../model/cells.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { Header, SpeedStore } from '../model/ports/speed-store.ts'
import { samePosition } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { misfit } from './errors.ts'
import { type Mutex, mutex } from './gate.ts'
import type { Base, PartitionPlan } from './plan.ts'
import { advance, draftOf, epochKey, type LocalEpoch, type LocalPartition } from './speed-draft.ts'
import { openViewTables, type SpeedChange, type ViewTables } from './view-tables.ts'

/** Headers looked at before a moving speed state is given up for now. */
const MAX_ROUNDS = 40

type Part = { id: number; bytes: number; usedAt: number }

export type ViewReader = {
  view: View
  locked: Mutex
  /**
   * Brings the copy of a partition to the stored header, or to a later one than `header`, which was read a moment ago.
   * To be called under the lock. Throws a misfit.
   */
  sync(partition: number, header?: Header | null): Promise<Header | null>
  /** Grows before every change of the tables. */
  changes(): number
  /** Parenthesised SELECT of the plan's cells, valid in a snapshot opened under the same lock. Loads parts while there is room. */
  source(base: Base, files: PartFile[], partitions: PartitionPlan[], room: number): Promise<string>
  /** A statement that makes a transaction take its snapshot. */
  touch: string
  bytes(): number
  close(): Promise<void>
}

export const openViewReader = async (
  ctx: { engine: Engine; speed: SpeedStore; store: ObjectStore },
  view: View,
): Promise<ViewReader> => {
  const tables: ViewTables = await openViewTables(ctx.engine, view)
  const partitions = new Map<number, LocalPartition>()
  const parts = new Map<string, Part>()
  let epochs = 0
  let partIds = 0
  let uses = 0
  let held = 0

  const forget = async (partition: number): Promise<void> => {
    const local = partitions.get(partition)
    if (local === undefined) return
    // The memory goes first: rows without a name are never read again.
    partitions.delete(partition)
    await tables.changeSpeed(
      [],
      [...local.epochs.values()].map((e) => e.id),
    )
  }

  const adopt = async (partition: number, header: Header, draft: ReturnType<typeof draftOf>): Promise<void> => {
    const local = partitions.get(partition)
    const next: LocalPartition = { position: header.position, epochs: new Map() }
    const changes: SpeedChange[] = []
    for (const [name, e] of draft.epochs) {
      const known = local?.epochs.get(name)
      const id = known?.id ?? epochs++
      next.epochs.set(name, { id, hashes: e.hashes, digest: e.digest } satisfies LocalEpoch)
      if (e.fetched.size > 0 || (known && e.gone.size > 0))
        changes.push({ epoch: id, put: [...e.fetched.values()], gone: [...e.gone] })
    }
    const dropped = [...(local?.epochs ?? [])].filter(([name]) => !next.epochs.has(name)).map(([, e]) => e.id)
    if (changes.length > 0 || dropped.length > 0) await tables.changeSpeed(changes, dropped)
    partitions.set(partition, next)
  }

  const sync: ViewReader['sync'] = async (partition, known) => {
    const key = { dataset: view.dataset, partition }
    const local = partitions.get(partition)
    // Another query may have brought the copy beyond that header meanwhile: it never goes back.
    const usable = known && (local === undefined || known.position.offset >= local.position.offset)
    let header = usable ? known : await ctx.speed.header(key)
    let draft = draftOf(partitions.get(partition))
    let anew = false
    for (let round = 0; round < MAX_ROUNDS; round++) {
      if (header === null || header.views[view.version] === undefined) {
        await forget(partition)
        return header
      }
      if (await advance(ctx.speed, key, view.version, draft, header, anew)) {
        await adopt(partition, header, draft)
        return header
      }
      const next: Header | null = await ctx.speed.header(key)
      const moved = JSON.stringify(next) !== JSON.stringify(header)
      if (!moved) {
        if (anew) {
          await forget(partition)
          const got = header.views[view.version]!.epochs.map((e) => `${e.from.offset}: ${e.blocks} blocks ${e.digest}`)
          throw misfit('DIGEST', view.name, `partition ${partition}: other blocks than ${got.join('; ')}`)
        }
        // Nothing moved and yet it does not fit: the copy or the store is damaged. Once more, from nothing.
        await forget(partition)
        draft = draftOf(undefined)
        anew = true
      }
      header = next
    }
    throw misfit('DIGEST', view.name, `partition ${partition}: the speed state moved on ${MAX_ROUNDS} times`)
  }

  const dropPart = async (keys: string[]): Promise<void> => {
    const gone = keys.flatMap((k) => parts.get(k) ?? [])
    for (const key of keys) parts.delete(key)
    for (const part of gone) held -= part.bytes
    await tables.dropParts(gone.map((p) => p.id))
  }

  /** Which of the files are in memory when this returns; the others are to be read from where they lie. */
  const residentParts = async (base: Base, files: PartFile[], room: number): Promise<Set<string>> => {
    const current = new Set(base.files.map((f) => f.key))
    const wanted = new Set(files.map((f) => f.key))
    const old = [...parts.keys()].filter((k) => !current.has(k))
    if (old.length > 0) await dropPart(old)
    for (const file of files) {
      const known = parts.get(file.key)
      if (known !== undefined) {
        known.usedAt = ++uses
        continue
      }
      const bytes = estimate(file, view)
      if (bytes > room) continue
      const idle = [...parts].filter(([k]) => !wanted.has(k)).sort(([, a], [, b]) => a.usedAt - b.usedAt)
      const evict: string[] = []
      let free = room - held
      for (const [key, part] of idle) {
        if (free >= bytes) break
        evict.push(key)
        free += part.bytes
      }
      if (free < bytes) continue
      if (evict.length > 0) await dropPart(evict)
      const id = partIds++
      await tables.loadPart(id, await ctx.store.localFile(file.key, file))
      parts.set(file.key, { id, bytes, usedAt: ++uses })
      held += bytes
    }
    return new Set(files.filter((f) => parts.has(f.key)).map((f) => f.key))
  }

  const source: ViewReader['source'] = async (base, files, plans, room) => {
    const names = tables.names || 'NULL'
    const resident = await residentParts(base, files, room)
    const sides: string[] = []
    if (resident.size > 0) sides.push(`SELECT ${names} FROM ${tables.batch}`)
    const rest: { path: string; sha256: string }[] = []
    for (const file of files)
      if (!resident.has(file.key)) rest.push({ path: await ctx.store.localFile(file.key, file), sha256: file.sha256 })
    if (rest.length > 0) sides.push(`SELECT ${loadList(cellColumns(view))} FROM ${parquetSource(rest)}`)
    const joined: number[] = []
    for (const plan of plans) {
      const local = partitions.get(plan.partition)
      for (const epoch of plan.epochs) {
        const found = local?.epochs.get(epochKey(epoch.from))
        if (local === undefined || found === undefined || !samePosition(local.position, plan.upper))
          throw misfit('NO_EPOCH', view.name, `partition ${plan.partition}: the copy moved on`)
        joined.push(found.id)
      }
    }
    // Epochs below the cut may still be there, until they are retired.
    if (joined.length > 0) sides.push(`SELECT ${names} FROM ${tables.speed} WHERE _epoch IN (${joined.join(', ')})`)
    if (sides.length === 0) sides.push(`SELECT ${names} FROM ${tables.speed} WHERE false`)
    return `(${sides.join(' UNION ALL ')})`
  }

  return {
    view,
    locked: mutex(),
    sync,
    changes: () => tables.changes(),
    source,
    touch: `SELECT (SELECT count(*) FROM (SELECT 1 FROM ${tables.speed} LIMIT 1)) + (SELECT count(*) FROM (SELECT 1 FROM ${tables.batch} LIMIT 1))`,
    bytes: () => held,
    close: () => tables.close(),
  }
}

/** A generous guess of a part's size in memory. */
const estimate = (file: PartFile, view: View): number =>
  Math.max(file.size * 3, file.rows * cellColumns(view).length * 16) + 4_096
