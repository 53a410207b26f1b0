/** A lake in a temporary folder, a dataset, and synthetic archive ranges for it. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { type Lake, type LakeOptions, openLake } from '../../lake/lake.ts'
import type { Dataset } from '../../model/dataset.ts'
import { ident, literal } from '../../model/ident.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { genesis, type Position } from '../../model/position.ts'

export const LOG = 'log-1'
/** 2026-11-24T00:00:00Z */
export const DAY = Date.UTC(2026, 10, 24)
export const DAY_MS = 86_400_000

export const orders = (name = 'orders'): Dataset => ({
  name,
  columns: [
    { name: 'order_id', type: 'VARCHAR', required: true },
    { name: 'ts', type: 'TIMESTAMPTZ', required: true },
    { name: 'amount', type: 'DECIMAL(18,2)', required: false },
    { name: 'big', type: 'BIGINT', required: false },
    { name: 'ref', type: 'UUID', required: false },
    { name: 'score', type: 'DOUBLE', required: false },
    { name: 'day', type: 'DATE', required: false },
    { name: 'ok', type: 'BOOLEAN', required: false },
    { name: 'odd"name', type: 'UBIGINT', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7258118400000000n },
  id: 'order_id',
  dedupeWindowMs: 3_600_000,
  extra: 'keep',
  partitions: 2,
})

export type Fixture = {
  folder: string
  store: ObjectStore
  engine: Engine
  lake: Lake
  dataset: Dataset
  /** Another process's lake on the same folder (own store, own snapshots), perhaps with a wrapped store. */
  other(wrap?: (store: ObjectStore) => ObjectStore, options?: Partial<LakeOptions>): Promise<Lake>
  damage(key: string, change: (bytes: Buffer) => Buffer): Promise<void>
  close(): Promise<void>
}

export const openFixture = async (options: Partial<LakeOptions> = {}): Promise<Fixture> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-lake-'))
  const store = await openFolderStore(folder)
  const engine = await openEngine({ tempDir: tmpdir() })
  return {
    folder,
    store,
    engine,
    lake: openLake({ store, engine, ...options }),
    dataset: orders(),
    other: async (wrap = (s) => s, more = {}) =>
      openLake({ store: wrap(await openFolderStore(folder)), engine, ...options, ...more }),
    damage: async (key, change) => {
      const path = join(folder, key)
      await writeFile(path, change(await readFile(path)))
    },
    close: async () => {
      await engine.close()
      await store.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Deterministic fingerprint of the record before an offset. */
export const position = (offset: number, effectiveMs: number, logId = LOG): Position =>
  offset === 0
    ? genesis(logId)
    : { logId, offset, fingerprint: (0xabcdef0000000000n + BigInt(offset) * 7n).toString(16), effectiveMs }

export type Range = {
  partition?: number
  from: number
  to: number
  /** Effective append time of a record, by offset. Default: DAY + offset seconds. */
  at?: (offset: number) => number
  /** Events per record; 0 gives an empty range. */
  events?: number
  before?: { counted: number; duplicate: number; dead: number }
  dead?: number
  logId?: string
}

export const at = (offset: number): number => DAY + offset * 1000

/** 32 hex digits, no two of its four words alike. */
export const recordIdOf = (partition: number, offset: number): string =>
  [1, 2, 3, 4].map((n) => (n * 0x10000000 + partition * 0x1000 + offset).toString(16)).join('')

/** Appends records `[from, to)`; every 7th event is a duplicate. Returns the outcome and the counters after it. */
export const archive = async (
  lake: Lake,
  dataset: Dataset,
  range: Range,
): Promise<{ outcome: 'archived' | 'stale'; counted: number; duplicate: number; dead: number }> => {
  const { partition = 0, from, to, events = 3, dead = 0, logId = LOG } = range
  const time = range.at ?? at
  const before = range.before ?? { counted: 0, duplicate: 0, dead: 0 }
  const rows: string[] = []
  let duplicate = 0
  for (let o = from; o < to; o++)
    for (let i = 0; i < events; i++) {
      const n = o * events + i
      const twice = n % 7 === 6
      if (twice) duplicate++
      const values = [
        literal(n % 11 === 0 ? `é😀-${n}` : `id-${n}`),
        `make_timestamptz(${(time(o) - (n % 5) * 60_000) * 1000 + 123})`,
        n % 4 === 0 ? 'NULL' : `${n}.07`,
        `${9007199254740993n + BigInt(n)}`,
        `'00000000-0000-4000-8000-${String(n).padStart(12, '0')}'`,
        n % 3 === 0 ? "'nan'::DOUBLE" : `${n}.5`,
        n % 5 === 0 ? 'NULL' : `DATE '2026-11-18'`,
        `${n % 2 === 0}`,
        `18446744073709551615 - ${n}`,
        `${partition}`,
        `${o}`,
        `${i}`,
        `make_timestamptz(${time(o)}::BIGINT * 1000)`,
        literal(recordIdOf(partition, o)),
        literal(position(o + 1, 0).fingerprint),
        `${twice}`,
        n % 6 === 0 ? `'{"x":1}'` : 'NULL',
      ]
      rows.push(`(${values.join(', ')})`)
    }
  const table = `batch_${crypto.randomUUID().replaceAll('-', '')}`
  const columns = [
    ...dataset.columns.map((c) => `${ident(c.name)} ${c.type}`),
    '_partition BIGINT, _offset BIGINT, _index BIGINT, _append_time TIMESTAMPTZ, _record_id VARCHAR, _fingerprint VARCHAR, _duplicate BOOLEAN, _extra VARCHAR',
  ]
  const after = {
    counted: before.counted + rows.length - duplicate,
    duplicate: before.duplicate + duplicate,
    dead: before.dead + dead,
  }
  return lake.engine.withSession(async (session) => {
    await session.run(`CREATE TEMP TABLE ${table} (${columns.join(', ')})`)
    if (rows.length > 0) await session.run(`INSERT INTO ${table} VALUES ${rows.join(', ')}`)
    const outcome = await lake.events(dataset).append({
      partition,
      from: position(from, from === 0 ? 0 : time(from - 1), logId),
      to: position(to, time(to - 1), logId),
      ...after,
      table,
      session,
    })
    return { outcome, ...after }
  })
}
