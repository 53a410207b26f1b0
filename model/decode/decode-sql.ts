/**
 * The decoder as SQL: one way only, whatever the batch size, so that the door, the speed layer and the archiver give the
 * same verdict and the same value for the same bytes.
 * Invariant: a row's verdict depends on all declared columns of its own line and on nothing else; `columns` and `extraFile`
 * choose only what is kept. Reading is `read_json` over a file of lines, each of which begins with `{`.
 */
import type { Column, Dataset } from '../dataset.ts'
import { ident, literal } from '../ident.ts'
import { kindOf, readType, valueLayers } from './type-table.ts'

/** Longest line that an event may be, in bytes. */
export const MAX_EVENT_BYTES = 16 * 1024 * 1024

/** Verdict numbers in `_verdict`: 0 is good, else one of the kinds below times 100,000 plus the column's number. */
export const VERDICT = { good: 0, type: 1, missing: 2, eventTime: 3, unknown: 4 } as const
const FACTOR = 100_000

export type Verdict = { kind: keyof typeof VERDICT; column: number }
export const verdictOf = (code: number): Verdict => {
  const number = Math.floor(code / FACTOR)
  const kind = (Object.keys(VERDICT) as (keyof typeof VERDICT)[]).find((k) => VERDICT[k] === number)
  if (kind === undefined) throw new Error(`no verdict has the number ${code}`)
  return { kind, column: code % FACTOR }
}

/**
 * The reader's room for one line, in bytes: it allocates twice as much and fills it anew for each statement, so room for the
 * longest event that may be costs a tenth of the decoding of a batch of short ones. Powers of two from 256 KiB on.
 */
const roomFor = (longest: number): number => {
  let room = 256 * 1024
  while (room < longest + 2 && room < MAX_EVENT_BYTES) room *= 2
  return room
}

/** `read_json` over a file of lines. Not `ignore_errors`, which would turn an unreadable line into a row of NULLs. */
export const readSql = (file: string, columns: { name: string; type: string }[], longest = MAX_EVENT_BYTES): string =>
  `read_json(${literal(file)}, format = 'newline_delimited', records = true, auto_detect = false, compression = 'uncompressed', ` +
  `maximum_object_size = ${roomFor(longest)}, columns = {${columns.map((c) => `${literal(c.name)}: ${literal(c.type)}`).join(', ')}})`

/** Lines of a file as raw JSON text, in order. */
const rawSql = (file: string, longest = MAX_EVENT_BYTES): string =>
  `read_ndjson_objects(${literal(file)}, compression = 'uncompressed', maximum_object_size = ${roomFor(longest)})`

export const isRequired = (dataset: Dataset, column: Column): boolean =>
  column.required || column.name === dataset.eventTime || column.name === dataset.id

export type DecodeOptions = {
  /** Declared columns wanted in the output; id and event time are added. Default all. */
  columns?: string[]
  /** File with one line for each event: the JSON object of its unknown fields. Adds `_extra`, NULL for an empty one. */
  extraFile?: string
  /** No line of the file is longer, in bytes without its line break; default MAX_EVENT_BYTES. */
  longest?: number
}

/** Declared columns that a decoded table has, in the order of the definition. */
export const keptColumns = (dataset: Dataset, columns: string[] | undefined): Column[] =>
  columns === undefined
    ? dataset.columns
    : dataset.columns.filter((c) => columns.includes(c.name) || c.name === dataset.id || c.name === dataset.eventTime)

/**
 * Rows of a file of lines: the wanted columns, `_extra` when asked for, and `_verdict`. Rows come in the order of the lines.
 * Fails as a whole when one line cannot be read (malformed, a declared key twice).
 */
export const decodeSql = (dataset: Dataset, file: string, options: DecodeOptions = {}): string => {
  const columns = dataset.columns
  const strict = dataset.extra === 'reject'
  const read = readSql(
    file,
    columns.map((c) => ({ name: c.name, type: readType(c) })),
    options.longest,
  )
  const layers = columns.map((c, i) => valueLayers(c, `r${i}`, `h${i}`))
  const raws = columns.map((c, i) =>
    readType(c) === 'JSON' ? `d.${ident(c.name)}::VARCHAR AS r${i}` : `d.${ident(c.name)} AS r${i}`,
  )
  const source = strict ? `${read} d POSITIONAL JOIN ${rawSql(file, options.longest)} o` : `${read} d`
  const l1 = `SELECT ${[...raws, ...(strict ? ['o.json AS raw'] : [])].join(', ')} FROM ${source}`
  const helpers = layers.flatMap((l, i) => (l.helper === null ? [] : [`${l.helper} AS h${i}`]))
  const unknown = strict ? [`${unknownFields(dataset)} AS unknown`] : []
  const l2 = `SELECT *${[...helpers, ...unknown].map((h) => `, ${h}`).join('')} FROM (${l1})`
  const l3 = `SELECT ${[
    ...layers.map((l, i) => `${l.value} AS v${i}`),
    ...columns.flatMap((c, i) => (kindOf(c) === 'any' ? [] : [`r${i}`])),
    ...(strict ? ['unknown'] : []),
  ].join(', ')} FROM (${l2})`
  const keptOnes = keptColumns(dataset, options.columns)
  const kept = keptOnes.map((c) => `v${columns.indexOf(c)} AS ${ident(c.name)}`)
  const decoded = `SELECT ${[...kept, `${verdictSql(dataset, keptOnes)} AS _verdict`].join(', ')} FROM (${l3})`
  if (options.extraFile === undefined) return decoded
  return `SELECT d.*, nullif(e.json::VARCHAR, '{}') AS _extra FROM (${decoded}) d POSITIONAL JOIN ${rawSql(options.extraFile, options.longest)} e`
}

const verdictSql = (dataset: Dataset, kept: Column[]): string => {
  // A column of which neither value nor fit is asked would not be read at all, and a second one of its key not seen.
  const good = dataset.columns.flatMap((c, i) =>
    kindOf(c) === 'any' && !kept.includes(c) ? [`coalesce(strlen(v${i}), 0) >= 0`] : [],
  )
  const misfits: string[] = []
  const misfit = (test: string, kind: keyof typeof VERDICT, i: number): void => {
    misfits.push(`WHEN ${test} THEN ${VERDICT[kind] * FACTOR + i}`)
  }
  for (const [i, column] of dataset.columns.entries()) {
    const required = isRequired(dataset, column)
    const checked = kindOf(column) !== 'any'
    if (checked) misfit(`v${i} IS NULL AND r${i} IS NOT NULL`, 'type', i)
    if (required) misfit(`v${i} IS NULL`, 'missing', i)
    if (required) good.push(`v${i} IS NOT NULL`)
    else if (checked) good.push(`(v${i} IS NOT NULL OR r${i} IS NULL)`)
    if (column.name === dataset.eventTime) {
      const { from, to } = dataset.eventTimeRangeUs
      const inRange = `(v${i} >= make_timestamptz(${from}::BIGINT) AND v${i} < make_timestamptz(${to}::BIGINT))`
      good.push(inRange)
      misfit(`NOT ${inRange}`, 'eventTime', i)
    }
  }
  if (dataset.extra === 'reject') {
    good.push('len(unknown) = 0')
    misfit('len(unknown) > 0', 'unknown', 0)
  }
  return `(CASE WHEN ${good.join(' AND ')} THEN 0 ELSE CASE ${misfits.join(' ')} ELSE 0 END END)::INTEGER`
}

/** Keys of the line that are not declared, in their order. */
const unknownFields = (dataset: Dataset): string =>
  `list_filter(json_keys(raw), lambda k: k NOT IN (${dataset.columns.map((c) => literal(c.name)).join(', ')}))`

/**
 * The lines of a file that cannot be read: `n` INTEGER (line number from 0), `twice` INTEGER (1: a declared key comes twice;
 * 0: not JSON). One query, since the read itself names one line at most. It asks the engine's own parser, which the read uses
 * too: the property test holds the two together.
 */
export const suspectsSql = (dataset: Dataset, file: string): string => {
  const names = dataset.columns.map((c) => literal(c.name)).join(', ')
  const lines = `SELECT unnest(lines) AS line, generate_subscripts(lines, 1) - 1 AS n FROM (SELECT string_split(content, chr(10)) AS lines FROM read_text(${literal(file)}))`
  const parsed = `SELECT n, line, json_valid(line) AS valid FROM (${lines}) WHERE line <> ''`
  const keys = `SELECT n, valid, CASE WHEN valid THEN list_filter(json_keys(line), lambda k: k IN (${names})) END AS keys FROM (${parsed})`
  return `SELECT n::INTEGER AS n, valid::INTEGER AS twice FROM (${keys}) WHERE NOT valid OR len(keys) <> len(list_distinct(keys)) ORDER BY n`
}
