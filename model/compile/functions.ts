/**
 * The functions a view may call: deterministic ones only, each total (never throws, whatever the arguments) or partial.
 * Invariant: a result depends on the arguments alone, not on clock, session, row order or thread; test/golden/functions.json
 * holds a value of each, so that an engine that changes one is noticed.
 */
import { BOOLEAN, commonType, DOUBLE, plain, VARCHAR, type ValueType, valueType } from './value-type.ts'

export type Argument = {
  type: ValueType
  constant: boolean /** text of a VARCHAR constant */
  text?: string /** value of an integer constant */
  integer?: bigint
}

/** `casts`: types that arguments are cast to, so that the engine casts nothing by itself. */
export type Typed = { type: ValueType; casts?: (ValueType | null)[]; partial?: string }

export type FunctionRule = {
  /** How to call it, for error messages. */
  usage: string
  /** Null: these arguments do not fit. */
  apply: (args: Argument[]) => Typed | null
}

type Slot = 'text' | 'const text' | 'const int' | 'double' | 'time' | 'json' | 'any' | 'int'

const fits = (slot: Slot, a: Argument): boolean => {
  const { kind } = a.type
  switch (slot) {
    case 'text':
      return kind === 'VARCHAR' || kind === 'NULL'
    case 'const text':
      return a.text !== undefined
    case 'const int':
      return a.integer !== undefined && a.integer >= -1_000_000n && a.integer <= 1_000_000n
    case 'double':
      return kind === 'DOUBLE' || kind === 'INTEGER' || kind === 'DECIMAL'
    case 'int':
      return kind === 'INTEGER'
    case 'time':
      return kind === 'TIMESTAMPTZ' || kind === 'TIMESTAMP' || kind === 'DATE'
    case 'json':
      return kind === 'JSON'
    case 'any':
      return kind !== 'INTERVAL'
  }
}

/** Dates far beyond year 9999 (from a cast of text; columns have none) break calendar functions. */
const endless = (args: Argument[]): string | undefined =>
  args.some((a) => a.type.kind === 'DATE' && !a.type.bounded && !a.constant)
    ? 'a date may lie beyond the calendar'
    : undefined

/** Fixed slots, of which the last `optional` may be missing. */
const rule = (
  usage: string,
  slots: Slot[],
  type: ValueType,
  options: { optional?: number; partial?: string } = {},
): FunctionRule => ({
  usage,
  apply: (args) => {
    const least = slots.length - (options.optional ?? 0)
    if (args.length < least || args.length > slots.length) return null
    if (!args.every((a, i) => fits(slots[i]!, a))) return null
    return {
      type,
      partial: options.partial ?? endless(args),
      casts: args.map((_, i) => (slots[i] === 'double' ? DOUBLE : null)),
    }
  },
})

const BIGINT = valueType('BIGINT')!
const INTEGER = valueType('INTEGER')!
const small = (sql: string, lo: bigint, hi: bigint): ValueType => ({ ...valueType(sql)!, lo, hi })

/** Rounding of exact numbers stays exact; doubles stay doubles. */
const rounding = (name: string, digits: boolean): FunctionRule => ({
  usage: digits ? `${name}(number) or ${name}(number, <constant digits>)` : `${name}(number)`,
  apply: (args) => {
    const [x, n] = args
    if (!x || args.length > (digits ? 2 : 1)) return null
    if (n && !(n.integer !== undefined && n.integer >= 0n && n.integer <= 15n)) return null
    const to = Number(n?.integer ?? 0n)
    if (x.type.kind === 'DOUBLE') return { type: DOUBLE }
    if (x.type.kind !== 'DECIMAL' || x.type.scale === 0 || to >= x.type.scale) return null
    // The engine keeps the width, so there is room for the carry of 9.9 → 10.
    const full = valueType(`DECIMAL(${/\((\d+),/.exec(x.type.sql)![1]},${to})`)!
    const factor = 10n ** BigInt(x.type.scale - to)
    return { type: { ...full, lo: x.type.lo / factor - 1n, hi: x.type.hi / factor + 1n } }
  },
})

const bits = (usage: string): FunctionRule => ({
  usage,
  apply: (args) => {
    if (args.length !== 2 || !args.every((a) => a.type.kind === 'INTEGER')) return null
    const type = commonType(args[0]!.type, args[1]!.type)
    return type ? { type: valueType(type.sql)!, casts: [type, type] } : null
  },
})

const extreme = (name: string): FunctionRule => ({
  usage: `${name}(a, b, …) of one type`,
  apply: (args) => {
    if (args.length < 2) return null
    let type: ValueType | null = args[0]!.type
    for (const a of args.slice(1)) type = type && commonType(type, a.type)
    if (!type || type.kind === 'JSON' || type.kind === 'INTERVAL' || type.kind === 'NULL') return null
    return { type, casts: args.map(() => type) }
  },
})

/** Calendar parts and what they lie between; the engine's years go from −290,308 to 294,247. */
const PARTS: Record<string, ValueType> = {
  ...Object.fromEntries(
    ['year', 'isoyear', 'yearweek', 'decade', 'century', 'era'].map((p) => [
      p,
      small('BIGINT', -30_000_000n, 30_000_000n),
    ]),
  ),
  ...Object.fromEntries(
    [
      'month',
      'day',
      'hour',
      'minute',
      'second',
      'quarter',
      'week',
      'dow',
      'dayofweek',
      'isodow',
      'doy',
      'dayofyear',
    ].map((p) => [p, small('BIGINT', 0n, 366n)]),
  ),
  millisecond: small('BIGINT', 0n, 60_000n),
  microsecond: small('BIGINT', 0n, 60_000_000n),
  epoch: DOUBLE,
}
const TRUNCATIONS = [
  'millisecond',
  'second',
  'minute',
  'hour',
  'day',
  'week',
  'month',
  'quarter',
  'year',
  'decade',
  'century',
]

const datePart: FunctionRule = {
  usage: `date_part('<part>', time) with part one of ${Object.keys(PARTS).join(', ')}`,
  apply: ([part, time, ...rest]) => {
    const type = part?.text === undefined ? undefined : PARTS[part.text.toLowerCase()]
    if (!type || !time || rest.length || !fits('time', time)) return null
    return { type, partial: endless([time]) }
  },
}

const dateTrunc: FunctionRule = {
  usage: `date_trunc('<unit>', time) with unit one of ${TRUNCATIONS.join(', ')}`,
  apply: ([unit, time, ...rest]) => {
    if (unit?.text === undefined || !TRUNCATIONS.includes(unit.text.toLowerCase())) return null
    if (!time || rest.length || !fits('time', time)) return null
    return {
      type: { ...plain(time.type.kind === 'TIMESTAMPTZ' ? 'TIMESTAMPTZ' : 'TIMESTAMP'), bounded: time.type.bounded },
      partial: time.type.bounded ? undefined : 'a time at the end of the calendar cannot be truncated',
    }
  },
}

const timezone: FunctionRule = {
  usage: "timezone('<constant zone>', TIMESTAMPTZ)",
  apply: ([zone, time, ...rest]) => {
    if (zone?.text === undefined || time?.type.kind !== 'TIMESTAMPTZ' || rest.length) return null
    const partial = time.type.bounded ? undefined : 'a time at the end of the calendar has no local time'
    return { type: { ...plain('TIMESTAMP'), bounded: time.type.bounded }, partial }
  },
}

const part = (name: string): FunctionRule => rule(`${name}(time)`, ['time'], PARTS[name]!)
const math = (name: string, partial?: string): FunctionRule => rule(`${name}(number)`, ['double'], DOUBLE, { partial })
const NOT_POSITIVE = 'it throws for zero and negative numbers'
const TEXT = 'text'
const LENGTH = small('BIGINT', 0n, 2n ** 32n)

export const FUNCTIONS: Readonly<Record<string, FunctionRule>> = {
  lower: rule('lower(text)', [TEXT], VARCHAR),
  upper: rule('upper(text)', [TEXT], VARCHAR),
  trim: rule('trim(text [, characters])', [TEXT, TEXT], VARCHAR, { optional: 1 }),
  ltrim: rule('ltrim(text [, characters])', [TEXT, TEXT], VARCHAR, { optional: 1 }),
  rtrim: rule('rtrim(text [, characters])', [TEXT, TEXT], VARCHAR, { optional: 1 }),
  length: rule('length(text)', [TEXT], LENGTH),
  reverse: rule('reverse(text)', [TEXT], VARCHAR),
  strip_accents: rule('strip_accents(text)', [TEXT], VARCHAR),
  replace: rule('replace(text, from, to)', [TEXT, TEXT, TEXT], VARCHAR),
  contains: rule('contains(text, part)', [TEXT, TEXT], BOOLEAN),
  starts_with: rule('starts_with(text, start)', [TEXT, TEXT], BOOLEAN),
  ends_with: rule('ends_with(text, end)', [TEXT, TEXT], BOOLEAN),
  prefix: rule('prefix(text, start)', [TEXT, TEXT], BOOLEAN),
  suffix: rule('suffix(text, end)', [TEXT, TEXT], BOOLEAN),
  '~~': rule("text LIKE 'pattern'", [TEXT, TEXT], BOOLEAN),
  '!~~': rule("text NOT LIKE 'pattern'", [TEXT, TEXT], BOOLEAN),
  '~~*': rule("text ILIKE 'pattern'", [TEXT, TEXT], BOOLEAN),
  '!~~*': rule("text NOT ILIKE 'pattern'", [TEXT, TEXT], BOOLEAN),
  left: rule('left(text, <constant>)', [TEXT, 'const int'], VARCHAR),
  right: rule('right(text, <constant>)', [TEXT, 'const int'], VARCHAR),
  substring: rule(
    'substring(text, <constant start> [, <constant length>])',
    [TEXT, 'const int', 'const int'],
    VARCHAR,
    { optional: 1 },
  ),
  substr: rule('substr(text, <constant start> [, <constant length>])', [TEXT, 'const int', 'const int'], VARCHAR, {
    optional: 1,
  }),
  split_part: rule('split_part(text, separator, <constant>)', [TEXT, TEXT, 'const int'], VARCHAR),
  '||': rule('text || text', [TEXT, TEXT], VARCHAR),
  concat: {
    usage: 'concat(value, …)',
    apply: (args) =>
      args.length > 0 && args.every((a) => fits('any', a)) ? { type: VARCHAR, casts: args.map(() => VARCHAR) } : null,
  },
  instr: rule('instr(text, part)', [TEXT, TEXT], LENGTH),
  strpos: rule('strpos(text, part)', [TEXT, TEXT], LENGTH),
  position: rule('position(part IN text)', [TEXT, TEXT], LENGTH),
  ascii: rule('ascii(text)', [TEXT], INTEGER),
  unicode: rule('unicode(text)', [TEXT], INTEGER),
  md5: rule('md5(text)', [TEXT], VARCHAR),
  sha256: rule('sha256(text)', [TEXT], VARCHAR),
  regexp_matches: rule(
    "regexp_matches(text, '<constant pattern>' [, '<options>'])",
    [TEXT, 'const text', 'const text'],
    BOOLEAN,
    { optional: 1 },
  ),
  regexp_full_match: rule(
    "regexp_full_match(text, '<constant pattern>' [, '<options>'])",
    [TEXT, 'const text', 'const text'],
    BOOLEAN,
    { optional: 1 },
  ),
  regexp_extract: rule(
    "regexp_extract(text, '<constant pattern>' [, <constant group>])",
    [TEXT, 'const text', 'const int'],
    VARCHAR,
    { optional: 1 },
  ),
  regexp_replace: rule(
    "regexp_replace(text, '<constant pattern>', '<constant text>' [, '<options>'])",
    [TEXT, 'const text', 'const text', 'const text'],
    VARCHAR,
    { optional: 1 },
  ),
  '->>': rule("json ->> '<constant path>'", ['json', 'const text'], VARCHAR),
  json_extract_string: rule("json_extract_string(json, '<constant path>')", ['json', 'const text'], VARCHAR),
  json_type: rule('json_type(json)', ['json'], VARCHAR),
  json_array_length: rule('json_array_length(json)', ['json'], valueType('UBIGINT')!),
  json_valid: rule('json_valid(text)', [TEXT], BOOLEAN),
  floor: rounding('floor', false),
  ceil: rounding('ceil', false),
  trunc: rounding('trunc', false),
  round: rounding('round', true),
  sign: rule('sign(number)', ['double'], small('TINYINT', -1n, 1n)),
  exp: math('exp'),
  cbrt: math('cbrt'),
  pow: rule('pow(number, number)', ['double', 'double'], DOUBLE),
  power: rule('power(number, number)', ['double', 'double'], DOUBLE),
  atan: math('atan'),
  degrees: math('degrees'),
  radians: math('radians'),
  sqrt: math('sqrt', 'it throws for negative numbers'),
  ln: math('ln', NOT_POSITIVE),
  log: math('log', NOT_POSITIVE),
  log2: math('log2', NOT_POSITIVE),
  log10: math('log10', NOT_POSITIVE),
  sin: math('sin', 'it throws for infinity'),
  cos: math('cos', 'it throws for infinity'),
  tan: math('tan', 'it throws for infinity'),
  asin: math('asin', 'it throws outside [-1, 1]'),
  acos: math('acos', 'it throws outside [-1, 1]'),
  isnan: rule('isnan(number)', ['double'], BOOLEAN),
  isinf: rule('isinf(number)', ['double'], BOOLEAN),
  isfinite: rule('isfinite(number)', ['double'], BOOLEAN),
  '&': bits('integer & integer'),
  '|': bits('integer | integer'),
  xor: bits('xor(integer, integer)'),
  bit_count: rule('bit_count(integer)', ['int'], small('TINYINT', -128n, 127n)),
  greatest: extreme('greatest'),
  least: extreme('least'),
  date_part: datePart,
  datepart: datePart,
  date_trunc: dateTrunc,
  datetrunc: dateTrunc,
  timezone,
  year: part('year'),
  quarter: part('quarter'),
  month: part('month'),
  week: part('week'),
  day: part('day'),
  dayofweek: part('dayofweek'),
  isodow: part('isodow'),
  dayofyear: part('dayofyear'),
  hour: part('hour'),
  minute: part('minute'),
  second: part('second'),
  epoch_ms: rule('epoch_ms(time)', ['time'], small('BIGINT', -(2n ** 54n), 2n ** 54n)),
  epoch_us: rule('epoch_us(time)', ['time'], BIGINT),
  epoch: rule('epoch(time)', ['time'], DOUBLE),
  dayname: rule('dayname(time)', ['time'], VARCHAR),
  monthname: rule('monthname(time)', ['time'], VARCHAR),
  strftime: rule("strftime(time, '<constant format>')", ['time', 'const text'], VARCHAR),
}

/** Functions that people try, and what to write instead. */
export const ADVICE: Readonly<Record<string, string>> = {
  now: 'use _append_time, the time at which the event entered the log, or the event time column',
  current_timestamp: 'use _append_time, the time at which the event entered the log, or the event time column',
  current_date: 'use CAST(_append_time AS DATE), the day on which the event entered the log',
  current_time: 'use _append_time, the time at which the event entered the log',
  localtimestamp: 'use _append_time, the time at which the event entered the log',
  today: 'use CAST(_append_time AS DATE), the day on which the event entered the log',
  transaction_timestamp: 'use _append_time, the time at which the event entered the log',
  get_current_timestamp: 'use _append_time, the time at which the event entered the log',
  random: 'leave it out, or derive a stable number from the event: ascii(md5(<its id>))',
  setseed: 'leave it out',
  uuid: 'leave it out: use a column of the event',
  gen_random_uuid: 'leave it out: use a column of the event',
  nextval: 'leave it out: use a column of the event',
  hash: 'use md5(…): hash() is not the same in every release of DuckDB',
  time_bucket:
    "use date_trunc('<unit>', …); time_bucket makes the view's bucket and takes the event time column itself",
  strptime: 'use TRY_CAST(… AS TIMESTAMP)',
  date_diff: 'subtract epoch_ms(…) of both times',
  datediff: 'subtract epoch_ms(…) of both times',
  age: 'subtract epoch_ms(…) of both times',
  struct_pack: 'name each value in a column of its own',
  row: 'name each value in a column of its own',
  list_value: 'name each value in a column of its own',
  unnest: 'send one event per element: a view does not multiply events',
  json_extract: "use ->> '<path>', which gives text",
}
