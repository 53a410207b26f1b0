/**
 * How DuckDB types are kept in Delta tables. Invariant: `load(store(x)) = x`, and what is stored has a type that every Delta
 * reader understands without a table feature: unsigned and 128-bit integers, UUID, JSON, TIME and nested values would be
 * read wrongly or refused elsewhere, so they are widened or kept as text.
 */
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'

export type StoredType = {
  /** Delta's primitive type name. */
  delta: string
  /** Expression that stores a value. */
  store: (sql: string) => string
  /** Expression that gives the value back, whatever the file's own type. */
  load: (sql: string) => string
}

export type TableColumn = { name: string; type: string }

const plain = (delta: string, type: string): StoredType => ({
  delta,
  store: (sql) => `CAST(${sql} AS ${type})`,
  load: (sql) => `CAST(${sql} AS ${type})`,
})
const widened = (delta: string, stored: string, type: string): StoredType => ({
  delta,
  store: (sql) => `CAST(${sql} AS ${stored})`,
  load: (sql) => `CAST(${sql} AS ${type})`,
})

const types: Record<string, StoredType> = {
  VARCHAR: plain('string', 'VARCHAR'),
  BIGINT: plain('long', 'BIGINT'),
  INTEGER: plain('integer', 'INTEGER'),
  SMALLINT: plain('short', 'SMALLINT'),
  TINYINT: plain('byte', 'TINYINT'),
  DOUBLE: plain('double', 'DOUBLE'),
  FLOAT: plain('float', 'FLOAT'),
  BOOLEAN: plain('boolean', 'BOOLEAN'),
  DATE: plain('date', 'DATE'),
  BLOB: plain('binary', 'BLOB'),
  TIMESTAMPTZ: plain('timestamp', 'TIMESTAMPTZ'),
  'TIMESTAMP WITH TIME ZONE': plain('timestamp', 'TIMESTAMPTZ'),
  // A naive timestamp would force the feature timestampNtz; sessions are UTC, so the cast is exact both ways.
  TIMESTAMP: widened('timestamp', 'TIMESTAMPTZ', 'TIMESTAMP'),
  UTINYINT: widened('short', 'SMALLINT', 'UTINYINT'),
  USMALLINT: widened('integer', 'INTEGER', 'USMALLINT'),
  UINTEGER: widened('long', 'BIGINT', 'UINTEGER'),
  UBIGINT: widened('decimal(20,0)', 'DECIMAL(20,0)', 'UBIGINT'),
  UUID: widened('string', 'VARCHAR', 'UUID'),
  JSON: widened('string', 'VARCHAR', 'JSON'),
  HUGEINT: widened('string', 'VARCHAR', 'HUGEINT'),
  UHUGEINT: widened('string', 'VARCHAR', 'UHUGEINT'),
  TIME: widened('string', 'VARCHAR', 'TIME'),
  INTERVAL: widened('string', 'VARCHAR', 'INTERVAL'),
}

/**
 * Lists, structs and maps are kept as DuckDB's own text, which casts back exactly; JSON would not (decimals inside it are read
 * through a double).
 */
export const isNested = (type: string): boolean => /\[\d*\]$|^(STRUCT|MAP)\(/i.test(type)

/** Throws WEIR_LAKE_TYPE for a type that cannot be stored. */
export const storedType = (type: string): StoredType => {
  const known = types[type.toUpperCase()]
  if (known) return known
  const decimal = /^DECIMAL\((\d+), ?(\d+)\)$/i.exec(type)
  if (decimal) return plain(`decimal(${decimal[1]},${decimal[2]})`, `DECIMAL(${decimal[1]},${decimal[2]})`)
  if (isNested(type)) return widened('string', 'VARCHAR', type)
  if (/^ENUM\(/i.test(type)) return widened('string', 'VARCHAR', type)
  throw new WeirError({
    code: 'WEIR_LAKE_TYPE',
    message: `A column of type ${type} cannot be kept in a table.`,
    expected: 'a scalar type such as VARCHAR, BIGINT, DECIMAL(18,2), TIMESTAMPTZ',
    got: type,
    next: 'choose another type for the column',
  })
}

/** Delta's schemaString: every field nullable, with empty metadata (readers refuse fields without). */
export const schemaString = (columns: TableColumn[]): string =>
  JSON.stringify({
    type: 'struct',
    fields: columns.map((c) => ({ name: c.name, type: storedType(c.type).delta, nullable: true, metadata: {} })),
  })

/** Names and Delta types of a schemaString. */
export const schemaFields = (text: string): { name: string; type: string }[] => {
  const schema = JSON.parse(text) as { fields: { name: string; type: unknown }[] }
  return schema.fields.map((f) => ({
    name: f.name,
    type: typeof f.type === 'string' ? f.type.replace(', ', ',') : JSON.stringify(f.type),
  }))
}

/** SELECT list that stores columns under their names. */
export const storeList = (columns: TableColumn[]): string =>
  columns.map((c) => `${storedType(c.type).store(ident(c.name))} AS ${ident(c.name)}`).join(', ')

/** SELECT list that loads columns under their names. */
export const loadList = (columns: TableColumn[]): string =>
  columns.map((c) => `${storedType(c.type).load(ident(c.name))} AS ${ident(c.name)}`).join(', ')
