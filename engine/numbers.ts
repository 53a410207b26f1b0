/**
 * Number columns between JavaScript and DuckDB in bulk: typed arrays, no value by value conversion.
 * Invariant: what comes out is exactly the engine's column, and never a NULL read as a number.
 */
import {
  DOUBLE,
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBDoubleVector,
  DuckDBUHugeIntVector,
} from '@duckdb/node-api'
import { ident } from '../model/ident.ts'

/** INTEGER, UINTEGER, BIGINT, UBIGINT and DOUBLE columns; UHUGEINT as a Uint32Array of four words a row, lowest first. */
export type Numbers = Int32Array | Uint32Array | BigInt64Array | BigUint64Array | Float64Array

/** The vector classes keep their column as a typed array; its name is private to them, so this is checked. */
type NumberVector = { items?: unknown; dataView?: unknown; validity?: { itemValid(i: number): boolean } }

const isNumbers = (items: unknown): items is Numbers =>
  items instanceof Int32Array ||
  items instanceof Uint32Array ||
  items instanceof BigInt64Array ||
  items instanceof BigUint64Array ||
  items instanceof Float64Array

/** Columns of a query's result. Throws for a NULL and for other types: both are mistakes of the caller. */
export const readNumbers = async (
  connection: DuckDBConnection,
  sql: string,
  ...params: Parameters<DuckDBConnection['run']> extends [string, ...infer Rest] ? Rest : never
): Promise<Numbers[]> => {
  const result = await connection.run(sql, ...params)
  const chunks = await result.fetchAllChunks()
  let rows = 0
  for (const chunk of chunks) rows += chunk.rowCount
  const names = result.columnNames()
  const out: Numbers[] = []
  let at = 0
  for (const chunk of chunks) {
    for (let c = 0; c < chunk.columnCount; c++) {
      const vector = chunk.getColumnVector(c)
      const { items: own, dataView, validity } = vector as unknown as NumberVector
      const wide = vector instanceof DuckDBUHugeIntVector && dataView instanceof DataView
      const items = wide ? new Uint32Array(dataView.buffer, dataView.byteOffset, dataView.byteLength / 4) : own
      if (!isNumbers(items) || validity === undefined) throw new Error(`column ${names[c]} is not a number column`)
      const per = wide ? 4 : 1
      for (let i = 0; i < chunk.rowCount; i++)
        if (!validity.itemValid(i)) throw new Error(`column ${names[c]} has a NULL`)
      out[c] ??= new (items.constructor as new (length: number) => Numbers)(rows * per)
      ;(out[c] as Float64Array).set(items as Float64Array, at * per)
    }
    at += chunk.rowCount
  }
  return rows === 0 ? names.map(() => new Int32Array(0)) : out
}

const CHUNK = 2048

/** Creates or replaces a temporary table of DOUBLE columns. All arrays have one length. */
export const fillTable = async (
  connection: DuckDBConnection,
  table: string,
  columns: Record<string, Float64Array>,
): Promise<void> => {
  const names = Object.keys(columns)
  const arrays = Object.values(columns)
  const rows = arrays[0]?.length ?? 0
  await connection.run(
    `CREATE OR REPLACE TEMP TABLE ${ident(table)} (${names.map((n) => `${ident(n)} DOUBLE`).join(', ')})`,
  )
  const appender = await connection.createAppender(table, 'main', 'temp')
  for (let from = 0; from < rows; from += CHUNK) {
    const size = Math.min(CHUNK, rows - from)
    const chunk = DuckDBDataChunk.create(
      arrays.map(() => DOUBLE),
      size,
    )
    for (const [c, values] of arrays.entries()) {
      const vector = chunk.getColumnVector(c) as DuckDBDoubleVector
      for (let i = 0; i < size; i++) vector.setItem(i, values[from + i]!)
      vector.flush()
    }
    appender.appendDataChunk(chunk)
  }
  appender.closeSync()
}
