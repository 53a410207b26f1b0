/**
 * The Delta format rules (mistakes that other readers punish), checkpoints, foreign writers, and an independent reader.
 * Each rule was measured against delta-rs and Spark; here they are checked on the bytes.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Snapshot } from '../../lake/delta-snapshot.ts'
import { type CopyStats, statsText } from '../../lake/delta-stats.ts'
import { archive, at, type Fixture, openFixture, position } from './support.ts'

let f: Fixture
beforeEach(async () => {
  f = await openFixture()
})
afterEach(() => f.close())

const logKey = (n: number) => `events/orders/_delta_log/${String(n).padStart(20, '0')}.json`
type Line = Record<string, Record<string, unknown>>
const entry = async (n: number): Promise<Line[]> => {
  const text = Buffer.from((await f.store.get(logKey(n)))!).toString()
  expect(text.endsWith('\n')).toBe(true)
  return text
    .split('\n')
    .filter(Boolean)
    .map((l) => JSON.parse(l) as Line)
}
const buffer = async (key: string): Promise<ArrayBuffer> => {
  const bytes = await readFile(join(f.folder, key))
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer
}
const fill = async (commits: number): Promise<void> => {
  let state = { counted: 0, duplicate: 0, dead: 0 }
  for (let n = 0; n < commits; n++)
    state = await archive(f.lake, f.dataset, { from: n * 2, to: n * 2 + 2, before: state, events: n % 4 === 3 ? 0 : 3 })
}
const plain = (s: Snapshot | null) =>
  s && { ...s, txns: [...s.txns], files: [...s.files], tombstones: [...s.tombstones] }

describe('entries', () => {
  it('hold every field that the strictest reader asks for, as integers and strings', async () => {
    await fill(2)
    const lines = await entry(0)
    const one = (name: string) => lines.filter((l) => l[name]).map((l) => l[name]!)
    expect(one('protocol')).toEqual([{ minReaderVersion: 1, minWriterVersion: 2 }])
    const [meta] = one('metaData')
    expect(meta).toMatchObject({ format: { provider: 'parquet', options: {} }, partitionColumns: ['_append_date'] })
    expect(meta!.configuration).toMatchObject({ 'weir.logId': 'log-1' })
    const schema = JSON.parse(meta!.schemaString as string) as { fields: Record<string, unknown>[] }
    for (const field of schema.fields) expect(Object.keys(field)).toEqual(['name', 'type', 'nullable', 'metadata'])
    expect(Object.fromEntries(schema.fields.map((x) => [x.name, x.type]))).toMatchObject({
      order_id: 'string',
      ts: 'timestamp',
      amount: 'decimal(18,2)',
      big: 'long',
      ref: 'string',
      'odd"name': 'decimal(20,0)',
      _append_date: 'date',
    })
    for (const add of [...one('add'), ...(await entry(1)).flatMap((l) => (l.add ? [l.add] : []))]) {
      expect(add.dataChange).toBe(true)
      expect(Number.isInteger(add.size) && Number.isInteger(add.modificationTime)).toBe(true)
      expect(add.partitionValues).toEqual({ _append_date: '2026-11-24' })
      expect(add.path).toMatch(/^_append_date=2026-11-24\/p0-\d+-\d+-[0-9a-f-]{36}\.parquet$/)
      const stats = JSON.parse(add.stats as string) as Record<string, Record<string, unknown>>
      expect(stats.numRecords).toBe(6)
      expect(stats.minValues).not.toHaveProperty('_append_date')
      for (const dropped of ['ok', 'score']) expect(stats.minValues).not.toHaveProperty(dropped)
      expect(stats.nullCount).toHaveProperty('ok', 0)
      expect(add.stats).toMatch(/"big":900719925474099[3-9]/) // digits verbatim above 2^53
      expect(stats.minValues!.ts).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    }
    // One txn per appId, one action per path.
    const ids = one('txn').map((t) => t.appId)
    expect(new Set(ids).size).toBe(ids.length)
    expect(one('txn').every((t) => Number.isInteger(t.version) && Number.isInteger(t.lastUpdated))).toBe(true)
  })

  it('round maxima up and cut strings safely', () => {
    const copied = (min: string, max: string, nan?: string): CopyStats => ({
      filename: 'x',
      count: '1',
      column_statistics: [
        {
          key: '"c"',
          value: Object.entries({ min, max, null_count: '0', ...(nan ? { has_nan: nan } : {}) }).map(
            ([key, value]) => ({
              key,
              value,
            }),
          ),
        },
      ],
    })
    const bounds = (type: string, min: string, max: string, nan?: string) => {
      const s = JSON.parse(statsText(copied(min, max, nan), [{ name: 'c', type }])) as {
        minValues: { c?: unknown }
        maxValues: { c?: unknown }
      }
      return [s.minValues.c, s.maxValues.c]
    }
    const time = '2026-11-19 00:00:00.123456+00'
    expect(bounds('TIMESTAMPTZ', time, time)).toEqual(['2026-11-19T00:00:00.123Z', '2026-11-19T00:00:00.124Z'])
    expect(bounds('TIMESTAMPTZ', '2026-11-19 00:00:00+00', 'infinity')).toEqual(['2026-11-19T00:00:00.000Z', undefined])
    expect(bounds('TIMESTAMPTZ', '2026-11-19 00:00:00+09', time)[0]).toBeUndefined()
    const long = '😀'.repeat(40)
    expect(bounds('VARCHAR', long, long)).toEqual(['😀'.repeat(32), `${'😀'.repeat(32)}\u{10FFFF}`])
    expect(bounds('VARCHAR', 'a', `${'a'.repeat(32)}\u{10FFFF}`)).toEqual(['a', undefined])
    expect(bounds('DOUBLE', '1.5', 'inf')).toEqual([1.5, undefined])
    expect(bounds('DOUBLE', '1.5', '2', 'true')).toEqual([undefined, undefined])
    expect(bounds('BOOLEAN', '0', '1')).toEqual([undefined, undefined])
    expect(bounds('BLOB', '61', '61')).toEqual([undefined, undefined])
  })
})

describe('checkpoints', () => {
  it('are written every 10 commits; starting from one equals a full replay and the incremental snapshot', async () => {
    await fill(23)
    const names = (await f.store.list('events/orders/_delta_log/')).map((o) => o.key.split('/').at(-1))
    expect(names.filter((n) => n!.includes('checkpoint'))).toEqual([
      '00000000000000000010.checkpoint.parquet',
      '00000000000000000020.checkpoint.parquet',
      '_last_checkpoint',
    ])
    const incremental = await f.lake.events(f.dataset).delta.snapshot()
    const fromCheckpoint = await (await f.other()).events(f.dataset).delta.snapshot()
    await f.store.delete('events/orders/_delta_log/_last_checkpoint')
    const full = await (await f.other()).events(f.dataset).delta.snapshot()
    expect(full!.version).toBe(22)
    const sorted = (s: Snapshot | null) => {
      const p = plain(s)!
      const strip = (x: [string, unknown]) => [x[0], { ...(x[1] as object), dataChange: undefined }]
      return { ...p, txns: p.txns.sort(), files: p.files.map(strip).sort() }
    }
    expect(sorted(fromCheckpoint)).toEqual(sorted(full))
    expect(sorted(incremental)).toEqual(sorted(full))
  })

  it('start the table without the older entries, and a damaged one is not believed', async () => {
    await fill(21)
    const before = await f.lake.events(f.dataset).archived(0)
    await f.damage('events/orders/_delta_log/00000000000000000020.checkpoint.parquet', (b) => {
      b[Math.floor(b.length / 2)]! ^= 1
      return b
    })
    // Falls back to checkpoint 10 and the entries after it.
    for (let n = 0; n < 10; n++) await f.store.delete(logKey(n))
    const other = await f.other()
    expect(await other.events(f.dataset).archived(0)).toEqual(before)
    expect(await other.events(f.dataset).files()).toHaveLength(16)
    // Position and counters survive: the archiver goes on.
    const next = await archive(other, f.dataset, { from: 42, to: 43, before: before! })
    expect(next.outcome).toBe('archived')
  })

  it('are readable without DuckDB, with the columns of the protocol', async () => {
    await fill(11)
    const file = await buffer('events/orders/_delta_log/00000000000000000010.checkpoint.parquet')
    const rows = await parquetReadObjects({ file, compressors })
    expect(rows.filter((r) => r.protocol)).toHaveLength(1)
    expect(rows.filter((r) => r.metaData)).toHaveLength(1)
    expect(rows.filter((r) => r.add)).toHaveLength(9)
    expect((rows.find((r) => r.add) as { add: { dataChange: boolean } }).add.dataChange).toBe(false)
    const hint = JSON.parse(Buffer.from((await f.store.get('events/orders/_delta_log/_last_checkpoint'))!).toString())
    expect(hint).toMatchObject({ version: 10, size: rows.length, numOfAddFiles: 9 })
  })
})

describe('foreign writers', () => {
  const append = async (n: number, lines: object[]) =>
    f.store.putIfAbsent(logKey(n), Buffer.from(`${lines.map((l) => JSON.stringify(l)).join('\n')}\n`))

  it('are read tolerantly: unknown actions, null fields, missing tags, other path encodings', async () => {
    await fill(1)
    const [file] = await f.lake.events(f.dataset).files()
    const other = {
      ...file!.add,
      path: file!.add.path.replace('=', '%3D'),
      tags: null,
      baseRowId: null,
      stats: 'broken{',
    }
    await append(1, [
      { commitInfo: { operation: 'WRITE' } },
      { add: other },
      { domainMetadata: { domain: 'x' } },
      { cdc: null },
    ])
    await append(2, [{ commitInfo: { operation: 'VACUUM END' } }])
    const files = await f.lake.events(f.dataset).files()
    expect(files).toHaveLength(1)
    expect(files[0]).toMatchObject({ key: file!.key, sha256: undefined, partition: undefined })
    // Untagged: unverified, never pruned, still cut by exact offsets.
    const scan = await f.lake.scan(f.dataset, { below: { '0': position(1, at(0)) }, duplicates: true })
    expect(await f.engine.withSession((s) => s.rows(`SELECT count(*) AS n FROM ${scan.sql}`))).toEqual([{ n: '3' }])
    const more = await archive(f.lake, f.dataset, {
      from: 2,
      to: 3,
      before: (await f.lake.events(f.dataset).archived(0))!,
    })
    expect(more.outcome).toBe('archived')
  })

  it('are refused when the table needs features that are not understood', async () => {
    await fill(1)
    const features = {
      minReaderVersion: 3,
      minWriterVersion: 7,
      readerFeatures: ['deletionVectors'],
      writerFeatures: ['deletionVectors'],
    }
    await append(1, [{ protocol: features }])
    await expect(f.lake.events(f.dataset).files()).rejects.toMatchObject({ code: 'WEIR_LAKE_PROTOCOL' })
  })

  it('may set constraints: then reading goes on and writing is refused', async () => {
    await fill(1)
    await append(1, [{ protocol: { minReaderVersion: 1, minWriterVersion: 7, writerFeatures: ['checkConstraints'] } }])
    const state = (await f.lake.events(f.dataset).archived(0))!
    await expect(archive(f.lake, f.dataset, { from: 2, to: 3, before: state })).rejects.toMatchObject({
      code: 'WEIR_LAKE_PROTOCOL',
    })
  })
})

it('hyparquet reads the same counts, sums and minima as the table states', async () => {
  await fill(3)
  const files = await f.lake.events(f.dataset).files()
  let count = 0
  let sum = 0
  let least = Number.POSITIVE_INFINITY
  for (const file of files) {
    const data = await buffer(file.key)
    const metadata = await parquetMetadataAsync(data)
    expect(Number(metadata.num_rows)).toBe(file.rows)
    const element = metadata.schema.find((s) => s.name === 'ts')
    expect(element).toMatchObject({
      type: 'INT64',
      logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
    })
    for (const row of await parquetReadObjects({ file: data, compressors })) {
      count++
      sum += Math.round(Number(row.amount ?? 0) * 100)
      least = Math.min(least, Number(row._offset))
    }
  }
  const scan = await f.lake.scan(f.dataset, { below: { '0': position(6, at(5)) }, duplicates: true })
  const [duck] = await f.engine.withSession((s) =>
    s.rows(`SELECT count(*) AS n, (sum(amount) * 100)::BIGINT AS sum, min(_offset) AS least FROM ${scan.sql}`),
  )
  expect(duck).toEqual({ n: String(count), sum: String(sum), least: String(least) })
  expect(count).toBe(18)
})
