/**
 * SQL over cells, printed from a compiled view: partial, merge, and the wire form of speed blocks.
 * The layers meet here: speed writes blocks, serving and verify read them.
 * Invariant: unpack(pack(cells)) = cells, and merge is associative and commutative over cells with equal keys.
 */
import { ident, literal } from './ident.ts'
import type { View } from './view.ts'

export const keyColumns = (view: View): { name: string; type: string }[] => [
  ...(view.bucket ? [{ name: '_bucket', type: 'TIMESTAMPTZ' }] : []),
  ...view.dimensions.map((d) => ({ name: d.name, type: d.type })),
]

/** Columns of a cell, in their fixed order. */
export const cellColumns = (view: View): { name: string; type: string }[] => [
  ...keyColumns(view),
  ...view.states.map((s) => ({ name: s.name, type: s.type })),
]

/** Inner projection: decoded columns, bucket and dimensions computed, the view's WHERE applied. */
export const innerSql = (view: View, source: string): string => {
  const computed = [
    ...(view.bucket ? [`${view.bucket.sql} AS _bucket`] : []),
    ...view.dimensions.map((d) => `${d.sql} AS ${ident(`_d:${d.name}`)}`),
  ]
  const where = view.where === null ? '' : ` WHERE ${view.where}`
  return `SELECT *${computed.length ? `, ${computed.join(', ')}` : ''} FROM ${source}${where}`
}

/** Cells of decoded rows. Without bucket and dimensions: one cell, or none when no row passes the filter. */
export const partialSql = (view: View, source: string): string => {
  const keys = [
    ...(view.bucket ? ['_bucket'] : []),
    ...view.dimensions.map((d) => `${ident(`_d:${d.name}`)} AS ${ident(d.name)}`),
  ]
  const groups = [...(view.bucket ? ['_bucket'] : []), ...view.dimensions.map((d) => ident(`_d:${d.name}`))]
  const states = view.states.map((s) => `CAST(${s.partial} AS ${s.type}) AS ${s.name}`)
  return `SELECT ${[...keys, ...states].join(', ')} FROM (${innerSql(view, source)})${
    groups.length ? ` GROUP BY ${groups.join(', ')}` : ' HAVING count(*) > 0'
  }`
}

/** Cells with equal keys merged into one. */
export const mergeCellsSql = (view: View, source: string): string => {
  const keys = keyColumns(view).map((k) => ident(k.name))
  const states = view.states.map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)
  return `SELECT ${[...keys, ...states].join(', ')} FROM ${source}${
    keys.length ? ` GROUP BY ${keys.join(', ')}` : ' HAVING count(*) > 0'
  }`
}

/** DDL body of a cell table. */
export const cellTableColumns = (view: View): string =>
  cellColumns(view)
    .map((c) => `${ident(c.name)} ${c.type}`)
    .join(', ')

/**
 * Wire form of a block: NDJSON, one line per cell, `{"c0":…,"c1":…}` in cell column order. Every value is written by
 * `to_json` of its packed form and read back by `read_json` with the packed type, so digits survive; 38-digit
 * decimals and 128-bit integers travel as text.
 */
const packed = (type: string, sql: string): { type: string; pack: string; unpack: (column: string) => string } => {
  const decimal = /^DECIMAL\((\d+),(\d+)\)$/.exec(type)
  if (decimal) {
    // A cast of text to more than 18 digits takes 8 µs, a hundred times as long: short texts take the way over 18 digits.
    const isLong = Number(decimal[1]) > 18 && Number(decimal[2]) < 18
    const unpack = (c: string): string =>
      isLong
        ? `CASE WHEN strlen(${c}) <= 17 THEN ${c}::DECIMAL(18,${decimal[2]})::${type} ELSE ${c}::${type} END`
        : `${c}::${type}`
    return { type: 'VARCHAR', pack: `${sql}::VARCHAR`, unpack }
  }
  if (type === 'HUGEINT' || type === 'UHUGEINT' || type === 'UBIGINT')
    return { type: 'VARCHAR', pack: `${sql}::VARCHAR`, unpack: (c) => `${c}::${type}` }
  if (type === 'TIMESTAMPTZ' || type === 'TIMESTAMP WITH TIME ZONE')
    return { type: 'BIGINT', pack: `epoch_us(${sql})`, unpack: (c) => `make_timestamptz(${c})` }
  if (
    type === 'BIGINT' ||
    type === 'INTEGER' ||
    type === 'SMALLINT' ||
    type === 'TINYINT' ||
    type === 'UINTEGER' ||
    type === 'BOOLEAN' ||
    type === 'VARCHAR'
  )
    return { type, pack: sql, unpack: (c) => c }
  // Doubles (bits kept through text), dates, uuids, lists and structs: DuckDB's own text form, which casts back exactly.
  if (type === 'DOUBLE') return { type: 'VARCHAR', pack: `${sql}::VARCHAR`, unpack: (c) => `${c}::DOUBLE` }
  // (JSON would not do: DuckDB reads decimals inside it through a double, and from_json of a NULL's structure gives NULL.)
  return { type: 'VARCHAR', pack: `${sql}::VARCHAR`, unpack: (c) => `${c}::${type}` }
}

/** `SELECT _block, string of lines, cell count` for a source that has the cell columns and `_block`. */
export const packSql = (view: View, source: string): string => {
  const fields = cellColumns(view).map((c, i) => `${literal(`c${i}`)}, ${packed(c.type, ident(c.name)).pack}`)
  return `SELECT _block, string_agg(json_object(${fields.join(', ')})::VARCHAR, chr(10)) AS lines, count(*) AS cells FROM ${source} GROUP BY _block`
}

/**
 * Cells of packed lines held in an NDJSON file. `longest`: bytes of the longest line, if the caller knows it: the reader
 * reserves twice that much memory for each query, used or not. `numbered`: the caller has put fields `b` and `e` into each
 * line, numbers of its block and its epoch, which come out as `_block` and `_epoch`.
 */
export const unpackSql = (view: View, file: string, longest = 67_108_864, numbered = false): string => {
  const columns = cellColumns(view)
  const fields = columns.map((c, i) => `${literal(`c${i}`)}: ${literal(packed(c.type, '').type)}`)
  const spec = [...(numbered ? [`'b': 'INTEGER', 'e': 'INTEGER'`] : []), ...fields].join(', ')
  const out = [
    ...columns.map((c, i) => `${packed(c.type, '').unpack(`c${i}`)} AS ${ident(c.name)}`),
    ...(numbered ? ['b AS _block', 'e AS _epoch'] : []),
  ]
  return `SELECT ${out.join(', ')} FROM read_json(${literal(file)}, format = 'newline_delimited', records = true, columns = {${spec}}, maximum_object_size = ${longest})`
}
