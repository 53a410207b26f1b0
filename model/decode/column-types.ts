/**
 * The column types that events can have, in DuckDB's canonical spelling.
 * Invariant: what `canonicalColumnType` returns is a type of the type table (decode-sql.ts) and prints the same in every room.
 */

/** Type names as written in definitions; DECIMAL stands for DECIMAL(p,s). */
export const COLUMN_TYPES = [
  'VARCHAR',
  'BOOLEAN',
  'TINYINT',
  'SMALLINT',
  'INTEGER',
  'BIGINT',
  'UTINYINT',
  'USMALLINT',
  'UINTEGER',
  'UBIGINT',
  'DOUBLE',
  'DECIMAL',
  'DATE',
  'TIMESTAMPTZ',
  'UUID',
  'JSON',
] as const

const ALIASES: Readonly<Record<string, string>> = {
  TEXT: 'VARCHAR',
  STRING: 'VARCHAR',
  BOOL: 'BOOLEAN',
  INT: 'INTEGER',
  LONG: 'BIGINT',
  NUMERIC: 'DECIMAL',
  'TIMESTAMP WITH TIME ZONE': 'TIMESTAMPTZ',
}

const INTEGER_BITS: Readonly<Record<string, { bits: bigint; signed: boolean }>> = {
  TINYINT: { bits: 8n, signed: true },
  SMALLINT: { bits: 16n, signed: true },
  INTEGER: { bits: 32n, signed: true },
  BIGINT: { bits: 64n, signed: true },
  UTINYINT: { bits: 8n, signed: false },
  USMALLINT: { bits: 16n, signed: false },
  UINTEGER: { bits: 32n, signed: false },
  UBIGINT: { bits: 64n, signed: false },
}

/** Least and greatest value of an integer type, both inclusive; null for other types. */
export const integerRange = (type: string): { min: bigint; max: bigint } | null => {
  const width = INTEGER_BITS[type]
  if (!width) return null
  return width.signed
    ? { min: -(1n << (width.bits - 1n)), max: (1n << (width.bits - 1n)) - 1n }
    : { min: 0n, max: (1n << width.bits) - 1n }
}

/** Precision and scale of a canonical DECIMAL(p,s); null for other types. */
export const decimalParts = (type: string): { precision: number; scale: number } | null => {
  const match = /^DECIMAL\((\d+),(\d+)\)$/.exec(type)
  return match ? { precision: Number(match[1]), scale: Number(match[2]) } : null
}

/**
 * Canonical spelling of a declared type (`decimal(18, 2)` → `DECIMAL(18,2)`, `int` → `INTEGER`), or null when events
 * cannot have it. A DECIMAL says its precision (1–38) and scale (0–precision): there is no default to be surprised by.
 */
export const canonicalColumnType = (text: string): string | null => {
  const match = /^([A-Z][A-Z ]*?)(?:\s*\(\s*(\d{1,2})\s*(?:,\s*(\d{1,2})\s*)?\))?$/.exec(
    text.trim().toUpperCase().replace(/\s+/g, ' '),
  )
  if (!match) return null
  const written = match[1]!
  const name = Object.hasOwn(ALIASES, written) ? ALIASES[written]! : written
  if (!(COLUMN_TYPES as readonly string[]).includes(name)) return null
  if (name !== 'DECIMAL') return match[2] === undefined ? name : null
  if (match[2] === undefined) return null
  const precision = Number(match[2])
  const scale = Number(match[3] ?? '0')
  return precision >= 1 && precision <= 38 && scale <= precision ? `DECIMAL(${precision},${scale})` : null
}
