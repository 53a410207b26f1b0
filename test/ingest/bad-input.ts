/** Seeded malformed events and bodies for the door's fuzz test. Invariant: the n-th of a seed is always the same. */
import { gzipSync } from 'node:zlib'
import { event } from './data.ts'

export type Random = {
  int(from: number, to: number): number
  pick<T>(list: readonly T[]): T
  chance(p: number): boolean
}

export const seeded = (seed: number): Random => {
  let a = seed >>> 0
  const next = (): number => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), a | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (from: number, to: number): number => from + Math.floor(next() * (to - from))
  return { int, pick: (list) => list[int(0, list.length)]!, chance: (p) => next() < p }
}

/** JSON texts (and near misses) that stand for a value. */
const ODD_VALUES = [
  ...['null', 'true', 'false', '0', '-0', '-0.0', '1', '-1', '127', '128', '255', '256', '32767', '32768', '65536'],
  ...['2147483647', '2147483648', '-2147483649', '9223372036854775807', '9223372036854775808', '18446744073709551615'],
  ...['18446744073709551616', '9007199254740993', '1e5', '1E+2', '1e400', '-1e400', '1e-400', '1.5', '1.005', '0.1'],
  ...['1234567890123456.78', '99999999999999999.99', '"1234567890123456.78"', '"1.50"', '" 12 "', '"0x10"', '"1_000"'],
  ...['"yes"', '"t"', '""', '" "', '"NaN"', '"Infinity"', '"-infinity"', '"epoch"', '"infinity"', '"2024-02-30"'],
  ...[
    '"2026-11-25"',
    '"2026-11-25T10:00:00Z"',
    '"2026-11-25 10:00:00+05:30"',
    '"2026-11-25T24:00:00Z"',
    '1764064800000',
  ],
  ...['"2200-01-01T00:00:00Z"', '"1969-12-31T23:59:59.999999Z"', '"290000-01-01"', '"12:00"', '[]', '{}', '[1,"a"]'],
  ...['{"a":{"b":[1,2,{"c":null}]}}', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u00e9"', '"\\x41"', '"\\"'],
  ...['"a\\nb"', '"a\tb"', '"a\u0001b"', '"😀"', '"\u2028"', '"İΑΣ"', "'single'", 'undefined', 'NaN', 'Infinity'],
  ...[
    '-',
    '+1',
    '.5',
    '5.',
    '01',
    '1e',
    '0x1F',
    '1_000',
    '"open',
    '[1',
    '{"a":1',
    ']',
    '}',
    '',
    ' ',
    '/* c */ 1',
    '1 // c',
  ],
  ...['"00000000-0000-0000-0000-000000000000"', '"not-a-uuid"', '"{00000000-0000-0000-0000-000000000000}"'],
]
const ODD_KEYS = [
  '__proto__',
  'constructor',
  '',
  ' ',
  'id',
  'ID',
  'ts',
  'Ts',
  'a\\u0000b',
  '😀',
  '_row',
  '_verdict',
  'x'.repeat(300),
  'id\\u0020',
  '\\u0069d',
]
const ODD_LINES = [
  ...[
    '{}',
    '[]',
    'null',
    '1',
    '"x"',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '{]',
    '[}',
    '{{}}',
    '[[]]',
    '{"a"}',
    '{"a":}',
    '{:1}',
    '{,}',
  ],
  ...[
    "{'id':'1'}",
    '{id:1}',
    '{"id":"1",}',
    '{"id":"1"}}',
    '{"id":"1"} {"id":"2"}',
    '{"id":"1"}{"id":"2"}',
    '{"id":"1"},',
    '\u00a0',
    '\ufeff',
  ],
  ...[
    '\u2028',
    '\0',
    '\0{}',
    '{}\0',
    '<xml/>',
    'id,ts\n1,2',
    'SELECT 1',
    '{"id":"1","ts":"2026-11-25T10:00:00Z"}garbage',
    '\\',
    '"',
    '\u0007',
  ],
  ...[
    '{"\\ud800":1}',
    '{"id":"1" "ts":"x"}',
    '{"id"="1"}',
    '# comment',
    '-----',
    'data: {"id":"1"}',
    '{"$ref":"#"}',
    '\x1f\x8b',
  ],
]

const oddObject = (r: Random, id: string, columns: readonly string[]): string => {
  const fields = [`"id":"${id}"`, `"ts":"2026-11-25T10:00:00Z"`]
  for (let i = r.int(1, 4); i > 0; i--) {
    const key = r.chance(0.8) ? r.pick(columns) : r.pick(ODD_KEYS)
    fields.splice(r.int(0, fields.length + 1), 0, `"${key}":${r.pick(ODD_VALUES)}`)
  }
  return `{${fields.join(r.pick([',', ',', ', ', '\t,', ',\r', ';']))}}`
}

const mangle = (r: Random, bytes: Buffer): Buffer => {
  let out = Buffer.from(bytes)
  for (let i = r.int(1, 4); i > 0 && out.length > 0; i--) {
    const at = r.int(0, out.length)
    const some = Buffer.from(
      r.pick([[r.int(0, 256)], [0xff], [0xc3], [0], [34], [92], [123], [93], [0xed, 0xa0, 0x80], [13], [9]]),
    )
    const how = r.int(0, 4)
    if (how === 0) out = Buffer.concat([out.subarray(0, at), some, out.subarray(at)])
    else if (how === 1) out = Buffer.concat([out.subarray(0, at), out.subarray(at + r.int(1, 5))])
    else if (how === 2) out[at] = some[0]!
    else out = out.subarray(0, at)
  }
  return out
}

/** One event that is most likely bad. It may hold line breaks. */
export const badEvent = (r: Random, id: string, columns: readonly string[]): Buffer => {
  switch (r.int(0, 6)) {
    case 0:
      return Buffer.from(r.pick(ODD_LINES))
    case 1:
      return mangle(r, Buffer.from(event(id, { note: 'ü😀\n' })))
    case 2: {
      const depth = r.pick([3, 63, 64, 65, 200, 5_000])
      const [open, close] = r.pick([
        ['[', ']'],
        ['{"a":', '}'],
        ['[', ''],
        ['{"a":[', ']}'],
      ] as const)
      return Buffer.from(
        event(id, { deep: '@' }).replace(
          '"@"',
          `${open.repeat(depth)}${open.length > 1 ? 1 : ''}${close.repeat(depth)}`,
        ),
      )
    }
    default:
      return Buffer.from(oddObject(r, id, columns))
  }
}

export type BadRequest = {
  headers: Record<string, string>
  body: Buffer
  /** Malformed things in it. */
  inputs: number
  /** Events by an independent count; null where only the door can say (a mangled array, a body refused as a whole). */
  events: number | null
}

const linesIn = (body: Buffer): number =>
  body
    .toString('latin1')
    .replace(/^\xef\xbb\xbf/, '')
    .split('\n')
    .filter((line) => /[^ \t\r]/.test(line)).length

/** A request of events, most of them bad, or of a body that is bad as a whole. */
export const badRequest = (seed: number, columns: readonly string[]): BadRequest => {
  const r = seeded(seed)
  const events = Array.from({ length: r.pick([1, 2, 5, 10, 20]) }, (_, i) =>
    r.chance(0.2) ? Buffer.from(event(`${seed}-${i}`)) : badEvent(r, `${seed}-${i}`, columns),
  )
  const comma = Buffer.from(r.pick([',', ' ,\n', '\n,\t']))
  const form = r.int(0, 10)
  const asLines = Buffer.concat(events.flatMap((e) => [e, Buffer.from(r.pick(['\n', '\n', '\r\n', '\n\n', ' \n']))]))
  const asArray = Buffer.concat([
    Buffer.from('['),
    ...events.flatMap((e, i) => (i ? [comma, e] : [e])),
    Buffer.from(']'),
  ])
  let made: BadRequest
  if (form < 5) {
    const headers = { 'content-type': 'application/x-ndjson' }
    made = { headers, body: asLines, inputs: events.length, events: linesIn(asLines) }
  } else if (form < 7) {
    made = { headers: { 'content-type': 'application/json' }, body: asArray, inputs: events.length, events: null }
  } else if (form === 7) {
    // Arrays of sound texts: then JSON.parse can count them.
    const sound = events.map((e) => (isJson(e) ? e : Buffer.from('null')))
    const body = Buffer.concat([
      Buffer.from('[ '),
      ...sound.flatMap((e, i) => (i ? [comma, e] : [e])),
      Buffer.from('\n]'),
    ])
    made = { headers: { 'content-type': 'application/json' }, body, inputs: events.length, events: events.length }
  } else if (form === 8) {
    const body = mangle(r, r.chance(0.5) ? asArray : asLines)
    made = {
      headers: r.chance(0.5)
        ? {}
        : { 'content-type': r.pick(['text/plain', 'application/json; charset=utf-8', 'x', 'a/b;;']) },
      body,
      inputs: 1,
      events: null,
    }
  } else {
    const body = mangle(r, gzipSync(asLines, { level: 1 }))
    made = {
      headers: { 'content-encoding': r.pick(['gzip', 'x-gzip', 'identity', 'br', 'GZIP', 'gzip, gzip']) },
      body,
      inputs: 1,
      events: null,
    }
  }
  if (form < 8 && r.chance(0.15)) {
    made = {
      ...made,
      headers: { ...made.headers, 'content-encoding': 'gzip' },
      body: gzipSync(made.body, { level: 1 }),
    }
  }
  if (r.chance(0.1)) made.headers['idempotency-key'] = r.pick(['k', ' ', 'ü', 'x'.repeat(300), '"', '%00'])
  return made
}

const isJson = (bytes: Buffer): boolean => {
  try {
    JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    return true
  } catch {
    return false
  }
}
