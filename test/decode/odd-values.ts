/** Odd JSON values and odd lines, from a seed. */
export type Random = () => number

/** mulberry32: a small generator with a 32-bit seed. */
export const randomOf = (seed: number): Random => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const pick = <T>(r: Random, list: readonly T[]): T => list[Math.floor(r() * list.length)]!
const digits = (r: Random, n: number): string => Array.from({ length: n }, () => Math.floor(r() * 10)).join('')

/** Powers at which a type ends. */
export const LIMITS: bigint[] = []
for (const bits of [7, 8, 15, 16, 31, 32, 53, 63, 64, 127, 128]) LIMITS.push(1n << BigInt(bits))
for (const power of [1, 2, 3, 9, 12, 13, 15, 16, 18, 19, 36, 38]) LIMITS.push(10n ** BigInt(power))

/** Text of a number, often one that sits at a limit of some type; not always JSON. */
const numberText = (r: Random): string => {
  switch (Math.floor(r() * 12)) {
    case 0:
    case 1:
    case 2: {
      const limit = pick(r, LIMITS) + BigInt(Math.floor(r() * 5) - 2)
      return `${r() < 0.4 ? '-' : ''}${limit}`
    }
    case 3:
      return `${pick(r, LIMITS)}${pick(r, ['.0', '.5', '.50', '.01', '.009', '.999', '.000', '.1234567', 'e0', 'E-2', 'e+2'])}`
    case 4:
      return `${r() < 0.5 ? '-' : ''}${Math.floor(r() * 10 ** (r() * 6))}.${digits(r, 1 + Math.floor(r() * 6))}`
    case 5:
      return `${r() < 0.5 ? '-' : ''}${1 + Math.floor(r() * 9)}${digits(r, Math.floor(r() * 40))}`
    case 6:
      return `${1 + Math.floor(r() * 9)}.${digits(r, 1 + Math.floor(r() * 40))}`
    case 7:
      return `${pick(r, ['1', '-1', '1.5', '9.99', '123', '0', '0.1'])}${pick(r, ['e', 'E'])}${pick(r, ['', '+', '-'])}${pick(r, ['0', '1', '2', '5', '15', '22', '23', '38', '308', '309', '400', '323', '325', '007'])}`
    case 8:
      return pick(r, [
        '0',
        '-0',
        '-0.0',
        '0.0',
        '0e0',
        '-0e5',
        '1.0',
        '1',
        '-1',
        '1e2',
        '100',
        '0.1',
        '0.10',
        '0.07',
        '1.005',
        '2.675',
        '1.15',
      ])
    case 9:
      return String((r() - 0.5) * 10 ** (r() * 40 - 20))
    case 10:
      return pick(r, [
        ...['01', '-01', '+1', '.5', '1.', '1.e2', '0x10', '1_000', '1e', '1e+', '--1', '- 1', '1 2', '1,5', '٣', '１'],
        ...['NaN', 'Infinity', '-Infinity', 'nan', 'inf', '-inf', '1e400', '-1e400', '1e-400', '5e-324', '2e-324'],
      ])
    default:
      return String(1_600_000_000_000 + Math.floor(r() * 4e11) / pick(r, [1, 1000, 8, 1e6]))
  }
}

const two = (n: number): string => String(n).padStart(2, '0')
const dateText = (r: Random): string => {
  const year = pick(r, [
    '2024',
    '2023',
    '1900',
    '2000',
    '1969',
    '1970',
    '2199',
    '2200',
    '0001',
    '0000',
    '9999',
    '10000',
    '24',
    '-001',
    '+2024',
    '２０２４',
  ])
  const usual = r() < 0.7
  return `${usual ? pick(r, ['2024', '2023', '2100']) : year}-${two(usual ? 1 + Math.floor(r() * 12) : Math.floor(r() * 15))}-${two(usual ? 1 + Math.floor(r() * 31) : Math.floor(r() * 33))}`
}
const timeText = (r: Random): string => {
  const usual = r() < 0.7
  const hour = usual ? two(Math.floor(r() * 24)) : pick(r, ['24', '25', '1', ' 1', '00', '-1', '+1', '99', '1 ', '٠١'])
  const minute = usual ? two(Math.floor(r() * 60)) : pick(r, ['60', '5', '00', '59', ' 5', '99'])
  const second =
    r() < 0.15 ? '' : `:${usual ? two(Math.floor(r() * 60)) : pick(r, ['60', '61', '00', '5', ' 5', '00', '59'])}`
  const fraction =
    r() < 0.5
      ? ''
      : pick(r, [
          '.',
          '.0',
          '.1',
          '.123',
          '.123456',
          '.999999',
          '.1234567',
          '.9999999',
          '.123456789',
          '.1234567890',
          ',5',
          '.00 ',
          '.12x',
          '.000',
          '.000000',
          '. 12',
          '.-12',
          '.+12345',
        ])
  const zone =
    r() < 0.4
      ? 'Z'
      : pick(r, [
          '',
          'z',
          ' Z',
          '+00',
          '+00:00',
          '-00:00',
          '+05:30',
          '-0330',
          '+14:00',
          '-12:00',
          '+23:59',
          '+24:00',
          '+05:60',
          '+5',
          '+5:00',
          '+050',
          '-15:59',
          ' UTC',
          ' NZ',
          ' America/New_York',
          '+01:00:00',
          'ZZ',
          'GMT',
          '−01:00',
          ' +01:00',
          '[UTC]',
        ])
  return `${dateText(r)}${r() < 0.85 ? 'T' : pick(r, [' ', 't', '  ', '_', '', 'T ', '\t'])}${hour}:${minute}${second}${fraction}${zone}`
}

const uuidText = (r: Random): string => {
  const hex = (n: number): string =>
    Array.from({ length: n }, () => '0123456789abcdefABCDEF'[Math.floor(r() * 22)]!).join('')
  const good = [8, 4, 4, 4, 12].map(hex).join('-')
  return r() < 0.5
    ? good
    : pick(r, [
        good.replaceAll('-', ''),
        `{${good}}`,
        good.slice(1),
        `${good}0`,
        `${good.slice(0, 35)}g`,
        good.replace('-', '_'),
        ` ${good}`,
        `${good.slice(0, 9)}-${good.slice(9, 35)}`,
      ])
}

const SIGNS = [
  'a',
  'Z',
  'é',
  'ß',
  'İ',
  'Σ',
  '中',
  '～',
  '😀',
  '👨‍👩‍👧',
  '\u0301',
  '\u200b',
  '\ufeff',
  '\u2028',
  '\uffff',
  '\u0000',
  '\u001f',
  '\u007f',
  '"',
  '\\',
  '/',
  '\n',
  '\t',
  ' ',
  "'",
  '$',
  '%',
  '_',
  '{',
  '}',
]
const unicodeText = (r: Random): string => Array.from({ length: Math.floor(r() * 8) }, () => pick(r, SIGNS)).join('')

/** A JSON string with some signs escaped that need not be. */
const quote = (r: Random, text: string): string => {
  if (r() < 0.8) return JSON.stringify(text)
  let out = ''
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    out +=
      unit < 32 || text[i] === '"' || text[i] === '\\' || r() < 0.4
        ? `\\u${unit.toString(16).padStart(4, '0')}`
        : text[i]!
  }
  // A surrogate pair half escaped would not be text any more.
  return `"${!/[\ud800-\udfff]/u.test(out) ? out : text.replace(/[\s\S]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`
}

/** A string that some type may take. */
const stringText = (r: Random): string => {
  const text = pick(r, [numberText, numberText, dateText, timeText, timeText, timeText, uuidText, unicodeText])(r)
  if (r() < 0.06)
    return pick(r, [` ${text}`, `${text} `, `${text}\n`, `"${text}"`, `${text}\u0000`, text.toUpperCase()])
  if (r() < 0.04)
    return pick(r, [
      '',
      ' ',
      'true',
      'false',
      'TRUE',
      't',
      'yes',
      'no',
      '0',
      '1',
      'null',
      'epoch',
      'infinity',
      '-infinity',
      'today',
      'now',
      'NaN',
      'Infinity',
      '{}',
      '[]',
      '1970-01-01 (BC)',
    ])
  return text
}

/** JSON text of any kind of value; now and then not JSON. */
export const oddValue = (r: Random, depth = 0): string => {
  const kind = r()
  if (kind < 0.34) return numberText(r)
  if (kind < 0.84) return quote(r, stringText(r))
  if (kind < 0.89) return pick(r, ['true', 'false', 'null'])
  if (kind < 0.91)
    return pick(r, [
      'tru',
      'True',
      'nul',
      "'a'",
      '"a',
      '"\\x"',
      '"\\ud800"',
      '"\\udc00"',
      '"\\ud800\\u0041"',
      '"\u0001"',
      '"a\tb"',
      '',
      '/*c*/1',
      '"\\u12"',
      'undefined',
      '"\\ud83d\\ude00"',
    ])
  if (depth > 2) return '1'
  if (kind < 0.955)
    return `[${Array.from({ length: Math.floor(r() * 4) }, () => oddValue(r, depth + 1)).join(',')}${r() < 0.05 ? ',' : ''}]`
  const keys = ['a', 'b', 'a', 'é', '']
  return `{${Array.from({ length: Math.floor(r() * 4) }, () => `${JSON.stringify(pick(r, keys))}:${oddValue(r, depth + 1)}`).join(',')}}`
}

/** Blanks between tokens. */
const gap = (r: Random): string => (r() < 0.93 ? '' : pick(r, [' ', '\t', '\r', '  ']))

const decoder = new TextEncoder()

export type Field = { name: string; good: string }

/**
 * One line without its line break: fields in any order, mostly good, some odd. `oddness`: how many fields are odd on average.
 * Counts the odd values in `count`.
 */
export const oddLine = (r: Random, fields: Field[], oddness: number, count: { odd: number }): Uint8Array => {
  if (r() < 0.004)
    return decoder.encode(
      pick(r, [
        '[]',
        '5',
        'null',
        '"x"',
        '{',
        '}',
        '{}',
        '{}{}',
        '{"a":1} x',
        '\ufeff{}',
        'true',
        '{,}',
        '{"a"}',
        '{"a":}',
        '[{}]',
        ' {} ',
        '{}\u0000',
      ]),
    )
  const parts: string[] = []
  const shuffled = r() < 0.3 ? [...fields].sort(() => r() - 0.5) : fields
  for (const field of shuffled) {
    const odd = r() < oddness / fields.length
    if (!odd && r() < 0.5) {
      if (r() < 0.03) continue
      parts.push(`"${field.name}"${gap(r)}:${gap(r)}${r() < 0.01 ? 'null' : field.good}`)
      continue
    }
    if (!odd) {
      parts.push(`"${field.name}":${field.good}`)
      continue
    }
    count.odd++
    parts.push(`${gap(r)}"${field.name}":${gap(r)}${oddValue(r)}${gap(r)}`)
    if (r() < 0.004) parts.push(`"${field.name}":1`)
  }
  if (r() < 0.15)
    parts.push(`${pick(r, ['"extra"', '"Id"', '"a.b"', '"x/~y"', '"\\u0065xtra"', '""', '"$.z"'])}:${oddValue(r)}`)
  let line = `${gap(r)}{${gap(r)}${parts.join(`${gap(r)},`)}${r() < 0.005 ? ',' : ''}}${gap(r)}`
  if (r() < 0.002) line = line.slice(0, Math.floor(r() * line.length)).trim() || '{'
  const bytes = decoder.encode(line)
  if (r() < 0.003 && bytes.length > 3)
    bytes[1 + Math.floor(r() * (bytes.length - 2))] = pick(r, [0xff, 0xc0, 0x80, 0xed, 0xf5, 0x00])
  return bytes
}
