/** decodeBatch: verdicts with their reasons, numbers of rows, bisection, odd records. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DecodeBatchOptions, decodeBatch } from '../../engine/decode.ts'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import type { Dataset } from '../../model/dataset.ts'

const dataset: Dataset = {
  name: 'orders',
  columns: [
    { name: 'order_id', type: 'VARCHAR', required: false },
    { name: 'ts', type: 'TIMESTAMPTZ', required: false },
    { name: 'amount', type: 'DECIMAL(18,2)', required: true },
    { name: 'n', type: 'INTEGER', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'order_id',
  extra: 'keep',
  partitions: 1,
}

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

const good = (id: string, more = ''): string => `{"order_id":"${id}","ts":"2024-01-01T00:00:00Z","amount":1${more}}`
const record = (text: string | Uint8Array, events = 1) => ({
  bytes: typeof text === 'string' ? Buffer.from(text) : text,
  events,
})
const decode = (records: { bytes: Uint8Array; events: number }[], options: Partial<DecodeBatchOptions> = {}) =>
  decodeBatch(engine, session, dataset, records, { table: 't', ...options })
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()

test('a dead event says what was expected, what came, and keeps its bytes', async () => {
  const lines = [
    good('a'),
    '{"order_id":"b","ts":"2024-01-01T00:00:00Z","amount":1.005}',
    '{"order_id":"c","ts":"2024-01-01T00:00:00Z"}',
    '{"ts":"2024-01-01","amount":1}',
    '{"order_id":"e","ts":"1969-12-31T23:59:59Z","amount":1}',
    '{"order_id":"f","order_id":"f"}',
    '{"order_id":',
    'order',
  ]
  const { rows, dead } = await decode([record(`${lines.join('\n')}\n`, lines.length)])
  expect(rows).toBe(1)
  expect(dead.map((d) => [d.row, d.index, d.code, d.column, d.got])).toEqual([
    [1, 1, 'WEIR_DECODE_TYPE', 'amount', '1.005'],
    [2, 2, 'WEIR_DECODE_MISSING', 'amount', 'nothing'],
    [3, 3, 'WEIR_DECODE_MISSING', 'order_id', 'nothing'],
    [4, 4, 'WEIR_DECODE_EVENT_TIME', 'ts', '"1969-12-31T23:59:59Z"'],
    [5, 5, 'WEIR_DECODE_KEY_TWICE', null, '{"order_id":"f","order_id":"f"}'],
    [6, 6, 'WEIR_DECODE_JSON', null, '{"order_id":'],
    [7, 7, 'WEIR_DECODE_NOT_OBJECT', null, 'order'],
  ])
  for (const d of dead) {
    expect(text(d.raw)).toBe(lines[d.row])
    expect(d.expected).not.toBe('')
  }
})

test('rows carry their numbers and positions past blank, dead and unreadable lines', async () => {
  const records = [
    record(`${good('a')}\n\n \r\n${good('b', ',"n":1.5')}\n${good('c')}`, 3),
    record(`${good('d')}\n`),
    record('{"order_id":\n'),
    record(`${good('e')}\r\n`),
    record(`${good('f')}\n${good('g')}\n`, 2),
  ]
  const positions = { partition: 4, offsets: [7, 8, 9, 12, 13], effectiveMs: [1, 2, 3, 3, 5] }
  const { rows, dead } = await decode(records, { positions, columns: [] })
  expect(rows).toBe(6)
  expect(dead.map((d) => [d.row, d.record, d.index])).toEqual([
    [1, 0, 1],
    [4, 2, 0],
  ])
  const found = await session.rows(
    'SELECT order_id AS id, _row::INT AS r, _record::INT AS o, _partition::INT AS p, _offset::INT AS f, _index::INT AS i, epoch_ms(_append_time)::INT AS ms FROM t ORDER BY r',
  )
  expect(found.map((f) => Object.values(f as object))).toEqual([
    ['a', 0, 0, 4, 7, 0, 1],
    ['c', 2, 0, 4, 7, 2, 1],
    ['d', 3, 1, 4, 8, 0, 2],
    ['e', 5, 3, 4, 12, 0, 3],
    ['f', 6, 4, 4, 13, 0, 5],
    ['g', 7, 4, 4, 13, 1, 5],
  ])
  const columns = await session.rows<{ column_name: string }>('DESCRIBE t')
  expect(columns.map((c) => c.column_name)).toEqual([
    '_row',
    '_record',
    '_partition',
    '_offset',
    '_index',
    '_append_time',
    'order_id',
    'ts',
  ])
})

test('many records in many runs are numbered through a table', async () => {
  const records = Array.from({ length: 300 }, (_, i) =>
    i % 3 === 0 ? record(`${good(`${i}-0`)}\n${good(`${i}-1`)}\n`, 2) : record(`${good(`${i}-0`)}\n`),
  )
  const positions = {
    partition: 0,
    offsets: records.map((_, i) => i * 2),
    effectiveMs: records.map((_, i) => 1_700_000_000_000 + i * i),
  }
  expect(await decode(records, { positions })).toMatchObject({ rows: 400, dead: [] })
  const [wrong] = await session.rows<{ n: string }>(
    `SELECT count(*) AS n FROM t WHERE order_id <> (_record || '-' || _index) OR _offset <> _record * 2
       OR epoch_ms(_append_time) <> 1700000000000 + _record * _record`,
  )
  expect(wrong!.n).toBe('0')
})

test('a document of several lines in a record of one event is one event', async () => {
  const pretty = '{\n  "order_id": "a",\n  "ts": "2024-01-01",\n  "amount": "1.50"\n}\n'
  const { rows, dead } = await decode([
    record(pretty),
    record(pretty.replace('"1.50"', '"x"')),
    record(`${good('b')}\n${good('c')}\n`),
  ])
  expect(rows).toBe(3)
  expect(dead.map((d) => [d.row, d.record, d.code, text(d.raw)])).toEqual([
    [1, 1, 'WEIR_DECODE_TYPE', pretty.replace('"1.50"', '"x"').trimEnd()],
  ])
})

test('bytes that are not text kill their own line only', async () => {
  const bad = Buffer.concat([
    Buffer.from(good('b').slice(0, 14)),
    Buffer.from([0xff]),
    Buffer.from(good('b').slice(14)),
  ])
  const { rows, dead } = await decode([
    record(Buffer.concat([Buffer.from(`${good('a')}\n`), bad, Buffer.from(`\n${good('c')}\n`)]), 3),
  ])
  expect([rows, dead.map((d) => [d.row, d.code, d.raw.length])]).toEqual([2, [[1, 'WEIR_DECODE_UTF8', bad.length]]])
})

test('no events, no rows; a table is there all the same', async () => {
  for (const records of [[], [record('', 0)], [record('\n \n', 0)], [record('nonsense')]]) {
    const { rows } = await decode(records)
    expect(rows).toBe(0)
    expect(await session.rows('SELECT * FROM t')).toEqual([])
  }
})

test('the table is replaced by each batch', async () => {
  await decode([record(`${good('a')}\n`)])
  await decode([record(`${good('b')}\n`)], { extra: true, columns: ['n'] })
  expect(await session.rows('SELECT * EXCLUDE (ts) FROM t')).toEqual([
    { _row: '0', _record: '0', order_id: 'b', n: null, _extra: null },
  ])
})

/** A session that refuses, as unreadable, whatever holds one of the marked events; and counts what it is asked. */
const refusing = (marks: string[], nameable: boolean) => {
  let asked = 0
  const refuse = async (sql: string): Promise<void> => {
    asked++
    const file = /read_json\('([^']+)'/.exec(sql)?.[1]
    if (file === undefined) return
    const { readFile } = await import('node:fs/promises')
    const content = await readFile(file, 'utf8')
    if (marks.some((m) => content.includes(m))) throw new Error('Invalid Input Error: Malformed JSON in file: planted')
  }
  const spy: Session = {
    ...session,
    run: async (sql, o) => {
      await refuse(sql)
      return session.run(sql, o)
    },
    rows: async (sql, o) => {
      await refuse(sql)
      return session.rows(sql, o)
    },
    numbers: async (sql, o) => {
      asked++
      return nameable ? session.numbers(sql, o) : [new Int32Array(0), new Int32Array(0)]
    },
  }
  return { spy, asked: () => asked }
}

test('what the engine refuses without a name is found by bisection, in few reads', async () => {
  const lines = Array.from({ length: 1_000 }, (_, i) => good(`event-${i}.`))
  const records = [record(`${lines.join('\n')}\n`, lines.length)]
  const { spy, asked } = refusing(['event-617.'], false)
  const { rows, dead } = await decodeBatch(engine, spy, dataset, records, { table: 't' })
  expect([rows, dead.map((d) => d.row)]).toEqual([999, [617]])
  expect(asked()).toBeLessThan(2 * Math.ceil(Math.log2(1_000)) + 10)
})

test('a thousand unreadable lines cost no more queries than one', async () => {
  const lines = Array.from({ length: 2_000 }, (_, i) => (i % 2 ? good(`event-${i}.`) : '{"order_id":"\\ud800"}'))
  const { spy, asked } = refusing([], true)
  const { rows, dead } = await decodeBatch(engine, spy, dataset, [record(`${lines.join('\n')}\n`, 2_000)], {
    table: 't',
  })
  expect([rows, dead.length]).toEqual([1_000, 1_000])
  expect(asked()).toBeLessThan(10)
})

test('an error that is no fault of the events is thrown', async () => {
  const spy: Session = {
    ...session,
    run: async () => {
      throw new Error('Out of Memory Error: failed to allocate')
    },
  }
  await expect(decodeBatch(engine, spy, dataset, [record(`${good('a')}\n`)], { table: 't' })).rejects.toThrow(/Memory/)
})

test('at most one scratch file stays, for the next batch', async () => {
  const { readdir } = await import('node:fs/promises')
  for (let i = 0; i < 5; i++) await decode([record(`${good('a')}\n{"\n`, 2)], { extra: true })
  await Promise.all(
    [1, 2, 3].map(() =>
      engine.withSession((s) => decodeBatch(engine, s, dataset, [record(good('a'))], { table: 't' })),
    ),
  )
  expect((await readdir(engine.scratchDir)).length).toBeLessThanOrEqual(1)
})

test('a file written over in place, with the same size in the same millisecond, is read anew', async () => {
  for (let i = 100; i < 200; i++) {
    await decode([record(`${good(`event-${i}`)}\n`)])
    expect(await session.rows('SELECT order_id AS id FROM t')).toEqual([{ id: `event-${i}` }])
  }
})

test('a time with the name of a zone changes no other time in the batch', async () => {
  const zone = '{"order_id":"z","ts":"2024-01-01 00:00:00 America/New_York","amount":1}'
  const plain = '{"order_id":"p","ts":"2024-01-01","amount":1}'
  const { dead } = await decode([record(`${plain}\n${zone}\n${plain}\n`, 3)])
  expect(dead.map((d) => d.row)).toEqual([1])
  expect(await session.rows('SELECT epoch(ts)::INT AS s FROM t')).toEqual([{ s: 1_704_067_200 }, { s: 1_704_067_200 }])
})

test('events of every length up to the longest are read, in order, by one thread and by several', async () => {
  // Around each size of the reader's room, and short ones between, which share its buffers.
  const sizes = [18, 19, 20, 21].flatMap((k) => [-3, -2, -1, 0, 1].map((d) => 2 ** k + d))
  const lines = sizes.flatMap((size, i) => {
    const head = good(`long-${i}`).slice(0, -1)
    const more = `,"n":${2 * i + 1},"note":"`
    const long = `${head}${more}${'x'.repeat(size - head.length - more.length - 2)}"}`
    expect(long.length).toBe(size)
    return [good(`short-${i}`, `,"n":${2 * i}`), long]
  })
  for (const threads of [1, 4]) {
    const many = await openEngine({ threads })
    const own = await many.session()
    // Together, and each long one with one short one: then it is its own length that decides.
    const pairs = sizes.map((_, i) => lines.slice(2 * i, 2 * i + 2))
    for (const some of [lines, ...pairs]) {
      const at = lines.indexOf(some[0]!)
      const batch = [record(`${some.join('\n')}\n`, some.length)]
      const { rows, dead } = await decodeBatch(many, own, dataset, batch, { table: 't', extra: true })
      expect([rows, dead.length]).toEqual([some.length, 0])
      const [kept] = await own.rows<{ n: number[]; notes: number[] }>(
        `SELECT list(n ORDER BY _row) AS n, list(coalesce(strlen(_extra), 0) ORDER BY _row) AS notes FROM t`,
      )
      expect(kept!.n).toEqual(some.map((_, i) => at + i))
      expect(kept!.notes.map(Number).filter((n) => n > 0).length).toBe(some.length / 2)
      expect((await decodeBatch(many, own, dataset, batch, {})).dead).toEqual([])
    }
    own.close()
    await many.close()
  }
})
