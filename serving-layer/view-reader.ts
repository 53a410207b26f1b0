/**
 * The local copy of one view version: follows the speed state of every partition, keeps published parts in memory.
 * Invariant: what `capture` gives is one state of the copy: headers (digests checked) and the very rows they speak of, whatever
 * is changed afterwards. Changes are made under the reader's lock; captures need none.
 */
import type { Engine } from '../engine/engine.ts'
import { loadList } from '../lake/delta-schema.ts'
import { localFiles } from '../lake/local-files.ts'
import { parquetSource } from '../lake/scan.ts'
import { cellColumns } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { Header, SpeedStore } from '../model/ports/speed-store.ts'
import { samePosition } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { misfit } from './errors.ts'
import { type Mutex, mutex } from './gate.ts'
import type { Base, PartitionPlan } from './plan.ts'
import { advance, type Draft, draftOf, epochKey, type LocalPartition } from './speed-draft.ts'
import { openViewTables, type Pin, type SpeedChange, type ViewTables } from './view-tables.ts'

/** Headers looked at before a moving speed state is given up for now. */
const MAX_ROUNDS = 40

type Part = { id: number; bytes: number; usedAt: number }

/** One state of the speed side of the copy. To be released. */
export type Capture = {
  /** Header by partition; undefined: the copy has not looked at that one. */
  header(partition: number): Header | null | undefined
  release(): void
  /** For the reader alone. */
  pin: Pin
  partitions: ReadonlyMap<number, LocalPartition>
}

/** Files that are not in memory. */
export type Loaded = { rest: { path: string; sha256: string }[] }

export type ViewReader = {
  view: View
  locked: Mutex
  /**
   * Brings the copy of a partition to the stored header, or to a later one than `header`, which was read a moment ago.
   * To be called under the lock. Throws a misfit.
   */
  sync(partition: number, header?: Header | null): Promise<Header | null>
  /** When the copy of a partition was last compared with the store, and to what it came. */
  state(partition: number): { header: Header | null; lookedAt: number } | undefined
  capture(): Capture
  /** Grows before every change of the parts in memory. */
  changes(): number
  /** Brings parts into memory while there is room. To be called under the lock. */
  load(base: Base, files: PartFile[], room: number): Promise<Loaded>
  /** Without a lock: whether the parts in memory are of this generation alone, the files among them, and nobody changes them. */
  isLoaded(base: Base, files: PartFile[]): boolean
  /** Parenthesised SELECT of the plan's cells: these columns, or all. */
  source(
    capture: Capture,
    plan: { files: PartFile[]; partitions: PartitionPlan[] },
    loaded: Loaded,
    columns: string[],
  ): string
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
  let blocks = 0
  let epochs = 0
  let partIds = 0
  let uses = 0
  let held = 0
  let loading = false

  /** Rows and what is said about them change in one step: a capture has both from before or both from after. */
  const replace = async (partition: number, next: LocalPartition, change: SpeedChange): Promise<void> => {
    if (change.put.length + change.gone.length === 0) {
      partitions.set(partition, next)
      return
    }
    const { publish } = await tables.changeSpeed(change)
    publish()
    partitions.set(partition, next)
    await tables.tidySpeed()
  }

  const numbersOf = (local: LocalPartition | undefined, keep: (epoch: string) => boolean): number[] =>
    [...(local?.epochs ?? [])].flatMap(([name, epoch]) => (keep(name) ? [] : [...epoch.numbers.values()]))

  /** There is nothing to copy, or what is there is not to be believed. */
  const forget = async (partition: number, header: Header | null, lookedAt: number): Promise<void> => {
    const gone = numbersOf(partitions.get(partition), () => false)
    await replace(partition, { header, epochs: new Map(), lookedAt }, { put: [], gone })
  }

  const adopt = async (partition: number, header: Header, draft: Draft, lookedAt: number): Promise<void> => {
    const local = partitions.get(partition)
    const next: LocalPartition = { header, epochs: new Map(), lookedAt }
    const change: SpeedChange = { put: [], gone: numbersOf(local, (name) => draft.epochs.has(name)) }
    for (const [name, { hashes, digest, fetched, gone }] of draft.epochs) {
      const known = local?.epochs.get(name)
      const id = known?.id ?? epochs++
      const numbers = new Map(known?.numbers)
      for (const block of [...gone, ...fetched.keys()]) {
        const old = numbers.get(block)
        if (old !== undefined) change.gone.push(old)
        numbers.delete(block)
      }
      for (const [name, block] of fetched) {
        const number = blocks++
        numbers.set(name, number)
        change.put.push({ number, epoch: id, block })
      }
      next.epochs.set(name, { id, hashes, digest, numbers })
    }
    await replace(partition, next, change)
  }

  const sync: ViewReader['sync'] = async (partition, known) => {
    const key = { dataset: view.dataset, partition }
    const position = partitions.get(partition)?.header?.position
    let lookedAt = performance.now()
    // Another query may have brought the copy beyond that header meanwhile: it never goes back.
    const usable = known && (position === undefined || known.position.offset >= position.offset)
    let header = usable ? known : await ctx.speed.header(key)
    let draft = draftOf(partitions.get(partition))
    let anew = false
    for (let round = 0; round < MAX_ROUNDS; round++) {
      if (header === null || header.views[view.version] === undefined) {
        await forget(partition, header, lookedAt)
        return header
      }
      if (await advance(ctx.speed, key, view.version, draft, header, anew)) {
        await adopt(partition, header, draft, lookedAt)
        return header
      }
      lookedAt = performance.now()
      const next: Header | null = await ctx.speed.header(key)
      const moved = JSON.stringify(next) !== JSON.stringify(header)
      if (!moved) {
        // A copy of nothing at no time: nobody answers from it.
        await forget(partition, null, Number.NEGATIVE_INFINITY)
        if (anew) {
          const got = header.views[view.version]!.epochs.map((e) => `${e.from.offset}: ${e.blocks} blocks ${e.digest}`)
          throw misfit('DIGEST', view.name, `partition ${partition}: other blocks than ${got.join('; ')}`)
        }
        // Nothing moved and yet it does not fit: the copy or the store is damaged. Once more, from nothing.
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

  const load: ViewReader['load'] = async (base, files, room) => {
    loading = true
    try {
      // Fetched together, where they are far; what follows then finds them here.
      await localFiles(
        ctx.store,
        files.filter((file) => !parts.has(file.key)),
      )
      const resident = await residentParts(base, files, room)
      const rest = files.filter((file) => !resident.has(file.key))
      return { rest: (await localFiles(ctx.store, rest)).map(({ path, sha256 }) => ({ path, sha256 })) }
    } finally {
      loading = false
    }
  }

  const isLoaded: ViewReader['isLoaded'] = (base, files) => {
    if (loading || !files.every((f) => parts.has(f.key))) return false
    if (parts.size === 0) return true
    const current = new Set(base.files.map((f) => f.key))
    for (const key of parts.keys()) if (!current.has(key)) return false
    for (const file of files) parts.get(file.key)!.usedAt = ++uses
    return true
  }

  const source: ViewReader['source'] = (capture, plan, { rest }, columns) => {
    const names = columns.map(ident).join(', ') || 'NULL'
    const sides: string[] = []
    if (plan.files.length > rest.length) sides.push(`SELECT ${names} FROM ${tables.batch}`)
    if (rest.length > 0) {
      const wanted = cellColumns(view).filter((c) => columns.includes(c.name))
      sides.push(`SELECT ${wanted.length === 0 ? 'NULL' : loadList(wanted)} FROM ${parquetSource(rest)}`)
    }
    const joined: number[] = []
    for (const { partition, upper, epochs } of plan.partitions) {
      const local = capture.partitions.get(partition)
      for (const epoch of epochs) {
        const position = local?.header?.position
        const found = local?.epochs.get(epochKey(epoch.from))
        if (found === undefined || position === undefined || !samePosition(position, upper))
          throw misfit('NO_EPOCH', view.name, `partition ${partition}: the copy moved on`)
        joined.push(found.id)
      }
    }
    if (joined.length > 0) {
      // Epochs below the cut may still be there, until they are retired.
      const all = [...capture.partitions.values()].reduce((sum, local) => sum + local.epochs.size, 0)
      const only = all === joined.length ? '' : ` AND _epoch IN (${joined.join(', ')})`
      sides.push(`SELECT ${names} FROM ${tables.speed} WHERE ${tables.at(capture.pin.version)}${only}`)
    }
    if (sides.length === 0) sides.push(`SELECT ${names} FROM ${tables.speed} WHERE false`)
    return `(${sides.join(' UNION ALL ')})`
  }

  return {
    view,
    locked: mutex(),
    sync,
    state: (partition) => partitions.get(partition),
    capture: () => {
      const pin = tables.pin()
      const now = new Map(partitions)
      return { header: (p) => now.get(p)?.header, release: pin.release, pin, partitions: now }
    },
    changes: () => tables.changes(),
    load,
    isLoaded,
    source,
    touch: `SELECT (SELECT count(*) FROM (SELECT 1 FROM ${tables.speed} LIMIT 1)) + (SELECT count(*) FROM (SELECT 1 FROM ${tables.batch} LIMIT 1))`,
    bytes: () => held,
    close: () => tables.close(),
  }
}

/** A generous guess of a part's size in memory. */
const estimate = (file: PartFile, view: View): number =>
  Math.max(file.size * 3, file.rows * cellColumns(view).length * 16) + 4_096
