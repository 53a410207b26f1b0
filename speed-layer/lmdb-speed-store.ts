/**
 * The embedded speed store, in LMDB; several processes may have it open.
 * Invariant: each call is one transaction that decides everything before its first write, so a header and the blocks it
 * speaks of change together or not at all. Commits are visible at once and flushed behind (docs/decisions/speed-store-sync.md):
 * a power failure takes back whole transactions, newest first, which the worker repairs from the log.
 *
 * Keys: ['h', dataset, partition] → header · ['b', dataset, partition, version, epoch's offset, epoch's name, block id] →
 * block · ['c', dataset, partition, from offset] → changelog entry.
 */
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { open, type RootDatabase, type Transaction } from 'lmdb'
import type { Block, ChangelogEntry, Header, SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import type { Position } from '../model/position.ts'
import { corrupt, writeFailed } from './store-errors.ts'
import {
  CHANGELOG_ENTRIES,
  changeOf,
  checkHeader,
  decideApply,
  decideCut,
  decideInstall,
  decideRetire,
  epochName,
  isExpected,
  withoutVersion,
} from './store-rules.ts'
import { decodeBlock, decodeJson, encodeBlock, encodeJson, type Key } from './stored-values.ts'

export type LmdbSpeedStoreOptions = {
  folder: string
  /** For commands beside a running server: never writes. */
  readOnly?: boolean
}

type Database = RootDatabase<Buffer, Key>

const LAST = '\uffff'
const headerKey = (k: StoreKey): Key => ['h', k.dataset, k.partition]
const changeKey = (k: StoreKey, offset: number): Key => ['c', k.dataset, k.partition, offset]
const blocksKey = (k: StoreKey): Key => ['b', k.dataset, k.partition]
const epochKey = (k: StoreKey, version: string, from: Position): Key => [
  ...blocksKey(k),
  version,
  from.offset,
  epochName(from),
]

/** Opens (or creates) the store in a folder. Throws WEIR_SPEED_CORRUPT, WEIR_SPEED_FORMAT for what it sees at once. */
export const openLmdbSpeedStore = async (options: LmdbSpeedStoreOptions): Promise<SpeedStore> => {
  const { folder } = options
  await mkdir(folder, { recursive: true })
  const db = await openChecked(folder, options.readOnly ?? false)
  let isOpen = true

  const snapshot = <T>(use: (transaction: Transaction) => T): T => {
    db.resetReadTxn()
    const transaction = db.useReadTransaction()
    try {
      return use(transaction)
    } finally {
      transaction.done()
    }
  }
  /** Runs a change in one write transaction; whatever fails inside it leaves the store as it was. */
  const change = async <T>(run: () => T): Promise<T> => {
    let refused: { error: unknown } | undefined
    try {
      // A plain `transaction` keeps what was written before an exception; a child transaction takes it back.
      const result = await db.childTransaction(() => {
        try {
          return run()
        } catch (error) {
          // Refusals are thrown before the first write; anything else must abort the transaction.
          if (!(error instanceof Error && 'code' in error && String(error.code).startsWith('WEIR_'))) throw error
          refused = { error }
          return undefined as T
        }
      })
      if (refused === undefined) return result
    } catch (error) {
      throw writeFailed(await causeOf(error))
    }
    throw refused.error
  }

  /** A header that does not match its checksum is a lost one: null. */
  const readHeader = (k: StoreKey, transaction?: Transaction): Header | null => {
    const bytes = db.get(headerKey(k), transaction === undefined ? undefined : { transaction })
    return bytes === undefined ? null : decodeJson<Header>(headerKey(k), bytes)
  }
  const writeHeader = (k: StoreKey, header: Header): void => void db.put(headerKey(k), encodeJson(headerKey(k), header))
  const removeUnder = (prefix: Key, end: Key, limit = Number.POSITIVE_INFINITY): number => {
    let removed = 0
    for (const key of [...db.getKeys({ start: prefix, end, limit: Math.min(limit, 2 ** 30) })]) {
      void db.remove(key)
      removed++
    }
    return removed
  }
  const putBlocks = (k: StoreKey, version: string, from: Position, blocks: Block[]): void => {
    for (const block of blocks) void db.put([...epochKey(k, version, from), block.id], encodeBlock(block))
  }

  return {
    header: async (k) => snapshot((txn) => readHeader(k, txn)),
    rebuild: async (k, expected, header) => {
      checkHeader(header)
      return change(() => {
        if (!isExpected(readHeader(k), expected)) return 'stale'
        removeUnder(blocksKey(k), [...blocksKey(k), LAST])
        removeUnder(changeKey(k, 0), changeKey(k, Number.POSITIVE_INFINITY))
        writeHeader(k, header)
        return 'applied'
      })
    },
    apply: (k, apply) =>
      change(() => {
        const { outcome, next } = decideApply(readHeader(k), apply)
        if (next === undefined) return outcome
        for (const [version, write] of Object.entries(apply.views)) putBlocks(k, version, write.epoch, write.blocks)
        const entry = changeKey(k, apply.from.offset)
        void db.put(entry, encodeJson(entry, changeOf(apply)))
        const [start, end] = [changeKey(k, Number.POSITIVE_INFINITY), changeKey(k, -1)]
        for (const old of [...db.getKeys({ start, end, reverse: true, offset: CHANGELOG_ENTRIES })]) void db.remove(old)
        writeHeader(k, next)
        return outcome
      }),
    install: (k, at, version, epochs) =>
      change(() => {
        const next = decideInstall(readHeader(k), at, version, epochs)
        if (next === null) return 'stale'
        removeUnder([...blocksKey(k), version], [...blocksKey(k), version, Number.POSITIVE_INFINITY])
        for (const { epoch, blocks } of epochs) putBlocks(k, version, epoch.from, blocks)
        writeHeader(k, next)
        return 'applied'
      }),
    cut: (k, version, desired) =>
      change(() => {
        const { answer, next } = decideCut(readHeader(k), version, desired)
        if (next !== undefined) writeHeader(k, next)
        return answer
      }),
    retire: (k, version, upTo) =>
      change(() => {
        const next = decideRetire(readHeader(k), version, upTo)
        if (next !== null) writeHeader(k, next)
      }),
    sweep: (k, limit) =>
      change(() => {
        const header = readHeader(k)
        if (header === null || Object.values(header.views).every((v) => v.retiring.length === 0)) return true
        let left = limit
        const views = Object.fromEntries(
          Object.entries(header.views).map(([version, view]) => {
            const retiring = view.retiring.filter((from) => {
              const prefix = epochKey(k, version, from)
              if (left > 0) left -= removeUnder(prefix, [...prefix, LAST], left)
              return left <= 0
            })
            return [version, { ...view, retiring }]
          }),
        )
        writeHeader(k, { ...header, views })
        return Object.values(views).every((v) => v.retiring.length === 0)
      }),
    dropVersion: (k, version) =>
      change(() => {
        const header = readHeader(k)
        removeUnder([...blocksKey(k), version], [...blocksKey(k), version, Number.POSITIVE_INFINITY])
        if (header?.views[version] !== undefined) writeHeader(k, withoutVersion(header, version))
      }),
    blocks: async (k, version, epoch, ids) =>
      snapshot((transaction) => {
        const prefix = epochKey(k, version, epoch)
        const keys = ids?.map((id) => [...prefix, id]) ?? [
          ...db.getKeys({ start: prefix, end: [...prefix, LAST], transaction }),
        ]
        return keys.flatMap((key) => {
          const bytes = db.get(key, { transaction })
          const block = bytes === undefined ? null : decodeBlock(String(key[key.length - 1]), bytes)
          return block === null ? [] : [block]
        })
      }),
    changelog: async (k, offset) =>
      snapshot((transaction) => {
        const entries: ChangelogEntry[] = []
        const range = { start: changeKey(k, offset), end: changeKey(k, Number.POSITIVE_INFINITY), transaction }
        for (const { key, value } of db.getRange(range)) {
          const entry = decodeJson<ChangelogEntry>(key, value)
          // A damaged entry ends the list: a follower reads all anew.
          if (entry === null) break
          entries.push(entry)
        }
        return entries
      }),
    close: async () => {
      if (!isOpen) return
      isOpen = false
      await db.close()
    },
  }
}

/** lmdb rejects with a wrapper whose `commitError` is a promise of the cause, and that promise has to be held as well. */
const causeOf = async (error: unknown): Promise<unknown> => {
  if (!(error instanceof Error && 'commitError' in error)) return error
  const cause = Promise.resolve(error.commitError).then(
    () => error,
    (inner: unknown) => inner,
  )
  return Promise.race([cause, new Promise((resolve) => setTimeout(resolve, 100, error))])
}

/** A file that is shorter than its last page would kill the process when that page is touched: refused here. */
const openChecked = async (folder: string, readOnly: boolean): Promise<Database> => {
  let db: Database
  try {
    db = open({
      path: folder,
      encoding: 'binary',
      overlappingSync: true,
      // Every write here is an explicit transaction. lmdb's batch around an event turn would add a promise of its own that
      // nobody holds: on a full disk its rejection, unhandled, would end the process.
      eventTurnBatching: false,
      noSubdir: false,
      readOnly,
    })
  } catch (error) {
    throw corrupt(folder, error instanceof Error ? error.message : String(error), error)
  }
  const { lastPageNumber, pageSize } = db.getStats() as { lastPageNumber?: number; pageSize?: number }
  const size = await stat(join(folder, 'data.mdb')).then(
    (s) => s.size,
    () => Number.POSITIVE_INFINITY,
  )
  const needed = ((lastPageNumber ?? -1) + 1) * (pageSize ?? 0)
  if (size >= needed) return db
  await db.close()
  throw corrupt(folder, `data.mdb has ${size} bytes of ${needed}`)
}
