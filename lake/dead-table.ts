/**
 * `dead/<dataset>`: the log's dead letters, written by the archiver alone.
 * Invariant: each dead event is stored once, keyed by its position: the table keeps, per partition, up to where its letters are
 * complete, in the commit of the letters; a repeat after a crash writes only letters at or after that offset.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Dataset } from '../model/dataset.ts'
import { literal } from '../model/ident.ts'
import { discard, type WrittenFile, writeDataFile } from './data-file.ts'
import type { Action } from './delta-actions.ts'
import { storeList, type TableColumn } from './delta-schema.ts'
import { type DeltaContext, type DeltaTable, openDeltaTable } from './delta-table.ts'
import { LOG_ID } from './events-schema.ts'
import { checkFormat, checkSchema, creation } from './events-table.ts'
import { twentyDigits } from './keys.ts'
import { liveFiles, whollyBelow } from './live-files.ts'
import { type OffsetRange, openFiles, otherLog, scanSql } from './scan.ts'
import { seal, unseal } from './sealed.ts'

export type DeadLetter = {
  /** Offset of the record and index of the event in it. */
  offset: number
  index: number
  /** Effective append time, ms. */
  effectiveMs: number
  code: string
  column: string | null
  expected: string
  got: string
  raw: Uint8Array
  recordId: string
  fingerprint: string
}
export type StoredLetter = Omit<DeadLetter, 'effectiveMs'> & {
  partition: number
  appendTime: string
  status: LetterStatus | null
}
export type LetterStatus = { formatVersion: 1; state: 'replayed' | 'dropped'; at: string; note?: string }
export type LetterPosition = { partition: number; offset: number; index: number }

export type DeadTable = {
  delta: DeltaTable
  /** Stores the letters of records `[…, to)` that are not stored yet. No letters: nothing happens. Safe to repeat. */
  append(append: { partition: number; logId: string; to: number; letters: DeadLetter[] }): Promise<void>
  /** Letters in order of (partition, offset, index), after a position. */
  list(page?: { after?: LetterPosition; limit?: number; partition?: number }): Promise<StoredLetter[]>
  get(position: LetterPosition): Promise<StoredLetter | null>
  count(partition?: number): Promise<number>
  /** Letters of a partition in records below an offset. */
  countBelow(partition: number, offset: number): Promise<number>
  /** Fingerprint and effective time of a record, if it has a letter. */
  recordAt(partition: number, offset: number): Promise<{ fingerprint: string; effectiveMs: number } | null>
  /** Notes that a letter was replayed or dropped; the first note stands. */
  mark(position: LetterPosition, status: Omit<LetterStatus, 'formatVersion'>): Promise<'marked' | 'already'>
}

export const deadColumns: TableColumn[] = [
  { name: '_partition', type: 'BIGINT' },
  { name: '_offset', type: 'BIGINT' },
  { name: '_index', type: 'BIGINT' },
  { name: '_append_time', type: 'TIMESTAMPTZ' },
  { name: 'code', type: 'VARCHAR' },
  { name: 'column', type: 'VARCHAR' },
  { name: 'expected', type: 'VARCHAR' },
  { name: 'got', type: 'VARCHAR' },
  { name: 'raw', type: 'BLOB' },
  { name: '_record_id', type: 'VARCHAR' },
  { name: '_fingerprint', type: 'VARCHAR' },
]
const columns = deadColumns
const EVERYTHING = Number.MAX_SAFE_INTEGER

/** Lone surrogates become U+FFFD, so that DuckDB reads the text. */
const wellFormed = (text: string): string => Buffer.from(text).toString('utf8')

export const openDeadTable = (context: DeltaContext, dataset: Dataset): DeadTable => {
  const { store, engine } = context
  const root = `dead/${dataset.name}`
  const delta = openDeltaTable(context, root)
  const appId = (partition: number): string => `dead-letters/${dataset.name}/${partition}`
  const statusKey = (p: LetterPosition): string =>
    `dead-status/${dataset.name}/${p.partition}/${twentyDigits(p.offset)}-${p.index}.json`

  const complete = async (partition: number, logId?: string): Promise<number> => {
    const snapshot = await delta.snapshot()
    if (snapshot === null) return 0
    checkFormat(root, snapshot)
    checkSchema(root, snapshot, columns)
    const stored = snapshot.metaData.configuration[LOG_ID] ?? ''
    if (logId !== undefined && stored !== logId) throw otherLog(dataset.name, stored, logId)
    return snapshot.txns.get(appId(partition)) ?? 0
  }

  const writeLetters = async (partition: number, to: number, letters: DeadLetter[]): Promise<WrittenFile | null> => {
    const lines = letters.map((l) =>
      JSON.stringify({
        p: partition,
        o: l.offset,
        i: l.index,
        t: Math.trunc(l.effectiveMs),
        c: l.code,
        col: l.column,
        e: wellFormed(l.expected),
        g: wellFormed(l.got),
        raw: Buffer.from(l.raw).toString('base64'),
        r: l.recordId,
        f: l.fingerprint,
      }),
    )
    const json = join(engine.scratchDir, `dead-${crypto.randomUUID()}.ndjson`)
    try {
      await writeFile(json, lines.join('\n'))
      // The reader reserves twice this much memory, used or not.
      const longest = lines.reduce((n, line) => Math.max(n, Buffer.byteLength(line)), 65_536)
      const source = `SELECT p AS _partition, o AS _offset, i AS _index, make_timestamptz(t * 1000) AS _append_time, c AS code, col AS "column", e AS expected, g AS got, from_base64(raw) AS raw, r AS _record_id, f AS _fingerprint
        FROM read_json(${literal(json)}, format = 'newline_delimited', records = true, maximum_object_size = ${longest + 1},
          columns = {p: 'BIGINT', o: 'BIGINT', i: 'BIGINT', t: 'BIGINT', c: 'VARCHAR', col: 'VARCHAR', e: 'VARCHAR', g: 'VARCHAR', raw: 'VARCHAR', r: 'VARCHAR', f: 'VARCHAR'})`
      return await engine.withSession((session) =>
        writeDataFile(store, session, {
          root,
          folder: '',
          name: `p${partition}-${letters[0]!.offset}-${to}`,
          select: `SELECT ${storeList(columns)} FROM (${source}) ORDER BY _offset, _index`,
          columns,
          partitionValues: {},
          tags: { partition: String(partition), from: String(letters[0]!.offset), to: String(to) },
          dataChange: true,
          nowMs: context.now(),
        }),
      )
    } finally {
      await rm(json, { force: true })
    }
  }

  const rowsOf = async <T>(ranges: OffsetRange[], select: string, where?: string, tail = ''): Promise<T[]> => {
    const snapshot = await delta.snapshot()
    if (snapshot === null) return []
    const files = await openFiles(store, liveFiles(root, snapshot), ranges)
    if (files.length === 0) return []
    return engine.withSession((session) =>
      session.rows<T>(`SELECT ${select} FROM ${scanSql(files, columns, ranges, where)} ${tail}`),
    )
  }

  const allPartitions = async (): Promise<OffsetRange[]> => {
    const snapshot = await delta.snapshot()
    const prefix = `dead-letters/${dataset.name}/`
    return [...(snapshot?.txns.keys() ?? [])]
      .filter((id) => id.startsWith(prefix))
      .map((id) => ({ partition: Number(id.slice(prefix.length)), from: 0, to: EVERYTHING }))
  }

  type Raw = {
    p: string
    o: string
    i: string
    t: string
    code: string
    column: string | null
    expected: string
    got: string
    raw: string
    r: string
    f: string
  }
  const letters = async (ranges: OffsetRange[], where: string | undefined, limit: number): Promise<StoredLetter[]> => {
    const rows = await rowsOf<Raw>(
      ranges,
      `_partition AS p, _offset AS o, _index AS i, strftime(_append_time AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS t, code, "column", expected, got, to_base64(raw) AS raw, _record_id AS r, _fingerprint AS f`,
      where,
      `ORDER BY _partition, _offset, _index LIMIT ${Math.trunc(limit)}`,
    )
    const out: StoredLetter[] = []
    for (const row of rows) {
      const at = { partition: Number(row.p), offset: Number(row.o), index: Number(row.i) }
      const bytes = await store.get(statusKey(at))
      out.push({
        ...at,
        appendTime: row.t,
        code: row.code,
        column: row.column,
        expected: row.expected,
        got: row.got,
        raw: Buffer.from(row.raw, 'base64'),
        recordId: row.r,
        fingerprint: row.f,
        status: bytes === null ? null : unseal<LetterStatus>(bytes, statusKey(at)),
      })
    }
    return out
  }

  return {
    delta,
    append: async ({ partition, logId, to, letters: all }) => {
      for (;;) {
        const stored = await complete(partition, logId)
        const fresh = all.filter((l) => l.offset >= stored).sort((a, b) => a.offset - b.offset || a.index - b.index)
        if (fresh.length === 0) return
        const file = await writeLetters(partition, to, fresh)
        if (file === null) return
        const nowMs = context.now()
        const committed = await delta.commit('WRITE', (snapshot) => {
          if ((snapshot?.txns.get(appId(partition)) ?? 0) !== stored) return null
          return [
            ...(snapshot === null ? creation(root, columns, [], { [LOG_ID]: logId }, nowMs) : []),
            { txn: { appId: appId(partition), version: to, lastUpdated: Math.trunc(nowMs) } },
            { add: file.add },
          ] satisfies Action[]
        })
        if (committed !== null) return
        await discard(store, [file]) // another archiver was quicker: look again what is left to write
      }
    },
    list: async ({ after, limit = 100, partition } = {}) => {
      const ranges = (await allPartitions()).filter(
        (r) => (partition === undefined || r.partition === partition) && (!after || r.partition >= after.partition),
      )
      const where = after && `(_partition, _offset, _index) > (${after.partition}, ${after.offset}, ${after.index})`
      return letters(ranges, where, limit)
    },
    get: async (p) =>
      (
        await letters(
          [{ partition: p.partition, from: p.offset, to: p.offset + 1 }],
          `_index = ${Math.trunc(p.index)}`,
          1,
        )
      )[0] ?? null,
    count: async (partition) => {
      let total = 0
      for (const range of await allPartitions())
        if (partition === undefined || range.partition === partition)
          total += await countBelow(range.partition, EVERYTHING)
      return total
    },
    countBelow: (partition, offset) => countBelow(partition, offset),
    recordAt: async (partition, offset) => {
      const [row] = await rowsOf<{ f: string; t: string }>(
        [{ partition, from: offset, to: offset + 1 }],
        '_fingerprint AS f, epoch_ms(_append_time) AS t',
        undefined,
        'LIMIT 1',
      )
      return row ? { fingerprint: row.f, effectiveMs: Number(row.t) } : null
    },
    mark: async (position, status) =>
      (await store.putIfAbsent(statusKey(position), seal({ formatVersion: 1, ...status }))) === 'written'
        ? 'marked'
        : 'already',
  }

  async function countBelow(partition: number, offset: number): Promise<number> {
    const snapshot = await delta.snapshot()
    if (snapshot === null) return 0
    const live = liveFiles(root, snapshot)
    const whole = live.filter((f) => whollyBelow(f, partition, offset) && f.rows !== null)
    const range = { partition, from: 0, to: offset }
    const rest = await openFiles(
      store,
      live.filter((f) => !whole.includes(f)),
      [range],
    )
    const counted = whole.reduce((n, f) => n + f.rows!, 0)
    if (rest.length === 0) return counted
    const [row] = await engine.withSession((session) =>
      session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${scanSql(rest, columns, [range])}`),
    )
    return counted + Number(row!.n)
  }
}
