/**
 * Property: whatever the batch, the split, and the mode (door, speed layer, archiver), the decoder gives each odd value the
 * verdict and the value of an independent reading of the type table (reading.ts).
 * WEIR_DECODER_VALUES raises the number of odd values; WEIR_SEED replays a seed.
 */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type DecodeBatchOptions, decodeBatch } from '../../engine/decode.ts'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import type { Column, Dataset } from '../../model/dataset.ts'
import { ident } from '../../model/ident.ts'
import { CORPUS } from './corpus.ts'
import { type Field, oddLine, type Random, randomOf } from './odd-values.ts'
import { parseJson, type Reading, readEvent, sameNode, type Value } from './reading.ts'

const VALUES = Number(process.env.WEIR_DECODER_VALUES ?? 100_000)
const SEED = Number(process.env.WEIR_SEED ?? 20_261_125)

// Long enough for a busy machine; alone it takes about 12 s.
vi.setConfig({ testTimeout: 240_000 })

const column = (name: string, type: string, more: Partial<Column> = {}): Column => ({
  name,
  type,
  required: false,
  ...more,
})

const columns: Column[] = [
  column('v', 'VARCHAR'),
  column('boolean', 'BOOLEAN'),
  column('i8', 'TINYINT'),
  column('i16', 'SMALLINT'),
  column('i32', 'INTEGER'),
  column('i64', 'BIGINT'),
  column('id', 'VARCHAR'),
  column('u8', 'UTINYINT'),
  column('u16', 'USMALLINT'),
  column('u32', 'UINTEGER'),
  column('u64', 'UBIGINT'),
  column('x', 'DOUBLE'),
  column('d18', 'DECIMAL(18,2)', { required: true }),
  column('d38', 'DECIMAL(38,10)'),
  column('d9', 'DECIMAL(9,0)'),
  column('d3', 'DECIMAL(3,3)'),
  column('ts', 'TIMESTAMPTZ'),
  column('day', 'DATE'),
  column('other', 'TIMESTAMPTZ'),
  column('s', 'TIMESTAMPTZ', { unit: 's' }),
  column('ms', 'TIMESTAMPTZ', { unit: 'ms' }),
  column('us', 'TIMESTAMPTZ', { unit: 'us' }),
  column('u', 'UUID'),
  column('j', 'JSON'),
]
const GOOD: Record<string, string> = { id: '"a"', ts: '"2024-05-31T13:45:00.123Z"', d18: '1.25' }
const fields: Field[] = columns.map((c) => ({ name: c.name, good: GOOD[c.name] ?? 'null' }))

const datasetOf = (extra: 'keep' | 'reject', from = 0n): Dataset => ({
  name: 'odd',
  columns,
  eventTime: 'ts',
  eventTimeRangeUs: { from, to: 7_258_118_400_000_000n },
  id: 'id',
  extra,
  partitions: 1,
})

let engine: Engine
let session: Session
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
  session = await engine.session()
})
afterAll(async () => {
  session.close()
  await engine.close()
})

type Event = { bytes: Uint8Array; reading: Reading }

const eventsOf = (r: Random, dataset: Dataset, values: number, oddness: number): Event[] => {
  const count = { odd: 0 }
  const events: Event[] = []
  while (count.odd < values) {
    const bytes = oddLine(r, fields, oddness, count)
    events.push({ bytes, reading: readEvent(dataset, bytes) })
  }
  return events
}

/** Records of random sizes up to `most` events, with the odd blank line between. */
const recordsOf = (r: Random, events: Event[], most: number) => {
  const records: { bytes: Uint8Array; events: number }[] = []
  for (let i = 0; i < events.length; ) {
    const n = Math.min(events.length - i, 1 + Math.floor(r() * most))
    const parts: Uint8Array[] = []
    for (const event of events.slice(i, i + n)) parts.push(event.bytes, Buffer.from(r() < 0.02 ? '\n \r\n\n' : '\n'))
    if (r() < 0.2) parts.pop()
    records.push({ bytes: Buffer.concat(parts), events: n })
    i += n
  }
  return records
}

const sqlOf = (c: Column): string => {
  const name = ident(c.name)
  if (c.type === 'TIMESTAMPTZ') return `epoch_us(${name})::VARCHAR AS ${name}`
  return `${name}::VARCHAR AS ${name}`
}

const unscaledOf = (text: string, scale: number): bigint => {
  const [whole, fraction = ''] = text.split('.')
  const digits = BigInt(`${whole!.replace('-', '') || '0'}${fraction.padEnd(scale, '0')}`)
  return text.startsWith('-') ? -digits : digits
}

const isSame = (c: Column, value: Value | null, got: string | null): boolean => {
  if (value === null || got === null) return value === null && got === null
  switch (value.is) {
    case 'integer':
    case 'micros':
      return BigInt(got) === value.value
    case 'decimal':
      return unscaledOf(got, Number(/,(\d+)\)/.exec(c.type)![1])) === value.unscaled
    case 'double':
      return Object.is(Number(got), value.value)
    case 'boolean':
      return got === String(value.value)
    case 'text':
      return got === value.value
    case 'json':
      return sameNode(parseJson(got), value.node)
  }
}

const show = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1').slice(0, 400)

/** `judge`: verdicts only, as the door asks for them. */
type Mode = Omit<DecodeBatchOptions, 'table'> & { judge?: boolean }

/** Decodes and compares with the readings; returns the differences in words. */
const differences = async (
  dataset: Dataset,
  events: Event[],
  records: { bytes: Uint8Array; events: number }[],
  options: Mode,
): Promise<string[]> => {
  const { judge, ...rest } = options
  const { rows, dead } = await decodeBatch(engine, session, dataset, records, judge ? {} : { table: 't', ...rest })
  if (judge) {
    const wanted = events.map(({ reading: r }, n) =>
      r.kind === 'good' ? '' : `${n} ${r.code} ${r.kind === 'dead' ? r.column : null}`,
    )
    const got = events.map(() => '')
    for (const d of dead) got[d.row] = `${d.row} ${d.code} ${d.column}`
    return wanted.flatMap((w, n) => (w === got[n] ? [] : [`want ${w}, got ${got[n]}: ${show(events[n]!.bytes)}`]))
  }
  const kept = columns.filter(
    (c) => options.columns === undefined || options.columns.includes(c.name) || c.name === 'id' || c.name === 'ts',
  )
  const extra = options.extra ? ', _extra' : ''
  const got = await session.columns(`SELECT _row, _record, ${kept.map(sqlOf).join(', ')}${extra} FROM t ORDER BY _row`)
  const found: string[] = []
  const deadAt = new Map(dead.map((d) => [d.row, d]))
  const owners: number[] = records.flatMap((record, o) => Array.from({ length: record.events }, () => o))
  if (rows + dead.length !== events.length) found.push(`${rows} rows + ${dead.length} dead of ${events.length} events`)
  let at = 0
  for (const [n, { bytes, reading }] of events.entries()) {
    const d = deadAt.get(n)
    const here = Number((got[0] as bigint[])[at] ?? -1n) === n
    if (reading.kind !== 'good') {
      const want = `${reading.code} ${reading.kind === 'dead' ? reading.column : null}`
      const is = d ? `${d.code} ${d.column}` : here ? 'good' : 'lost'
      if (is !== want) found.push(`${n}: want ${want}, got ${is} (${d?.got}): ${show(bytes)}`)
      if (d && d.record !== owners[n]) found.push(`${n}: dead in record ${d.record}, not ${owners[n]}`)
      if (here) at++
      continue
    }
    if (!here) {
      found.push(`${n}: want good, got ${d?.code} ${d?.column} ${d?.got}: ${show(bytes)}`)
      continue
    }
    if (Number((got[1] as bigint[])[at]) !== owners[n]) found.push(`${n}: in record ${got[1]![at]}, not ${owners[n]}`)
    for (const [k, c] of kept.entries()) {
      const value = reading.values[columns.indexOf(c)] ?? null
      const text = got[k + 2]![at] as string | null
      if (!isSame(c, value, text))
        found.push(
          `${n}: ${c.name} want ${JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v))}, got ${text}: ${show(bytes)}`,
        )
    }
    if (options.extra && got.at(-1)![at] !== reading.extra)
      found.push(`${n}: _extra want ${reading.extra}, got ${got.at(-1)![at]}: ${show(bytes)}`)
    at++
  }
  return found
}

const check = async (...args: Parameters<typeof differences>): Promise<void> => {
  const found = await differences(...args)
  expect(found.slice(0, 20), `seed ${SEED}`).toEqual([])
}

test('each value of the corpus in each column', async () => {
  const r = randomOf(SEED + 2)
  const dataset = datasetOf('keep', -9_000_000_000_000_000_000n)
  const events = columns.flatMap((c) =>
    CORPUS.map((value) => {
      const others = fields.filter((f) => f.name !== c.name && f.good !== 'null')
      const bytes = Buffer.from(`{${others.map((f) => `"${f.name}":${f.good},`).join('')}"${c.name}":${value}}`)
      return { bytes, reading: readEvent(dataset, bytes) }
    }),
  )
  await check(dataset, events, recordsOf(r, events, 100), {})
  // The readable ones alone too: then no other query names what the first read might have overlooked.
  const readable = events.filter((e) => e.reading.kind !== 'unreadable')
  await check(dataset, readable, recordsOf(r, readable, 100), { columns: [] })
  await check(dataset, readable, recordsOf(r, readable, 100), { judge: true })
  for (const [i, c] of columns.entries()) {
    const own = events.slice(i * CORPUS.length, (i + 1) * CORPUS.length)
    const taken = own.filter(({ reading: q }) => q.kind === 'good' && q.values[i] !== null).length
    const refused = own.filter(({ reading: q }) => q.kind === 'dead' && q.code === 'WEIR_DECODE_TYPE').length
    expect(taken, c.name).toBeGreaterThan(1)
    if (c.type !== 'VARCHAR' && c.type !== 'JSON') expect(refused, c.name).toBeGreaterThan(20)
  }
})

test(`${VALUES} odd values: batches of thousands`, async () => {
  const r = randomOf(SEED)
  const dataset = datasetOf('keep')
  for (let done = 0; done < VALUES; done += 20_000) {
    const events = eventsOf(r, dataset, Math.min(20_000, VALUES - done), 1.2)
    const modes: Mode[] = [{}, { columns: ['i32', 'd18', 'j'] }, { extra: true }, { judge: true }]
    await check(dataset, events, recordsOf(r, events, done % 40_000 === 0 ? 1_000 : 3), modes[(done / 20_000) % 4]!)
  }
})

test('the same events in small batches and alone, in every mode', async () => {
  const r = randomOf(SEED + 1)
  for (const dataset of [datasetOf('keep'), datasetOf('reject'), datasetOf('keep', -62_135_596_800_000_000n)]) {
    const events = eventsOf(r, dataset, 250, 1)
    for (let i = 0; i < events.length; ) {
      const n = r() < 0.6 ? 1 : 2 + Math.floor(r() * 30)
      const some = events.slice(i, i + n)
      const mode = r()
      const records = recordsOf(r, some, 4)
      const positions = { partition: 0, offsets: records.map((_, k) => k), effectiveMs: records.map(() => 5) }
      await check(dataset, some, records, {
        ...(mode < 0.5 ? { columns: ['x'] } : {}),
        ...(mode > 0.7 ? { extra: true } : {}),
        ...(mode > 0.4 ? { positions } : {}),
        judge: mode > 0.3 && mode < 0.4,
      })
      i += n
    }
  }
})

test('a declared column twice is seen in every mode, whatever else is in the batch', async () => {
  const dataset = datasetOf('keep')
  for (const c of columns) {
    const bytes = Buffer.from(
      `{${[...fields, fields.find((f) => f.name === c.name)!].map((f) => `"${f.name}":${f.good}`).join(',')}}`,
    )
    const events = [{ bytes, reading: readEvent(dataset, bytes) }]
    expect(events[0]!.reading).toEqual({ kind: 'unreadable', code: 'WEIR_DECODE_KEY_TWICE' })
    for (const mode of [{}, { columns: [] }, { columns: ['v'] }, { columns: [], extra: true }, { judge: true }])
      await check(dataset, events, [{ bytes, events: 1 }], mode)
  }
})

test('the comparison sees a wrong verdict and a wrong value', async () => {
  const dataset = datasetOf('keep')
  const line = (text: string) => Buffer.from(`{"id":"a","ts":"2024-01-01","d18":1,${text}}`)
  const [good, bad] = [line('"i8":1'), line('"i8":1.5')]
  const events = [
    { bytes: good, reading: readEvent(dataset, bad) },
    { bytes: bad, reading: readEvent(dataset, good) },
    { bytes: line('"i8":2'), reading: readEvent(dataset, good) },
  ]
  const records = [{ bytes: Buffer.concat(events.flatMap((e) => [e.bytes, Buffer.from('\n')])), events: 3 }]
  expect(await differences(dataset, events, records, {})).toHaveLength(3)
})
