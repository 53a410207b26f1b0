/**
 * The tree of DuckDB's `json_serialize_sql`, read and written without loss.
 * Invariant: numbers stay the text that the engine wrote (JSON.parse would break 2^64−1 and wide literals); a normalised
 * tree carries no locations, no schema prefixes and no catalog names, so equal meaning prints as equal text.
 */
import { isLosslessNumber, LosslessNumber, parse, stringify } from 'lossless-json'
import { WeirError } from '../errors.ts'

export type Node = { class: string; type: string; alias?: string; query_location?: unknown; [key: string]: unknown }

export type Select = {
  node: Node
  items: Node[]
  from: Record<string, unknown>
  where: Node | null
  groups: Node[]
  groupAll: boolean
}

/** Where a definition came from: errors name its file, and the line of the node that is wrong. */
export type Source = { sql: string; file?: string }

export type Refusal = { code: string; message: string; expected?: string; got?: string; next: string }

export const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && 'class' in value && 'type' in value

/** JSON text → value; numbers stay text. */
export const readTree = (text: string, source: Source): Record<string, unknown> => {
  try {
    return parse(text) as Record<string, unknown>
  } catch (cause) {
    // DuckDB writes 1e400 as `Infinity`, which is not JSON.
    throw new WeirError({
      code: 'WEIR_MODEL_LITERAL',
      message: 'The view holds a number that is not finite.',
      expected: 'finite numbers',
      next: 'write a number below 1.8e308',
      file: source.file,
      line: 1,
      cause,
    })
  }
}

export const writeTree = (tree: unknown): string => stringify(tree)!

export const digits = (value: unknown): string => (isLosslessNumber(value) ? value.value : String(value))

/** Byte offset of a node in the statement, or of the first node below it that has one. */
const location = (node: unknown): number | null => {
  if (Array.isArray(node)) {
    for (const child of node) {
      const found = location(child)
      if (found !== null) return found
    }
    return null
  }
  if (typeof node !== 'object' || node === null || isLosslessNumber(node)) return null
  const own = (node as Node).query_location
  if (own !== undefined && own !== null && digits(own) !== '18446744073709551615') return Number(digits(own))
  return location(Object.values(node))
}

const placeOf = (source: Source, node: unknown): { line: number; text: string | undefined } => {
  const offset = location(node)
  if (offset === null) return { line: 1, text: undefined }
  const bytes = new TextEncoder().encode(source.sql)
  const before = new TextDecoder().decode(bytes.subarray(0, offset))
  const after = new TextDecoder().decode(bytes.subarray(offset)).split('\n')[0]!.trim()
  return { line: before.split('\n').length, text: after.length > 60 ? `${after.slice(0, 59)}…` : after }
}

/** Never returns: throws the teaching error with file, line, and the text at the node where `got` is not given. */
export const refuse = (source: Source, node: unknown, refusal: Refusal): never => {
  const place = placeOf(source, node)
  throw new WeirError({ got: place.text, ...refusal, file: source.file, line: place.line })
}

/** Walks children first to last, parents before children. */
export const walk = (value: unknown, visit: (node: Node) => void): void => {
  if (Array.isArray(value)) {
    for (const child of value) walk(child, visit)
    return
  }
  if (typeof value !== 'object' || value === null || isLosslessNumber(value)) return
  if (isNode(value)) visit(value)
  for (const child of Object.values(value)) walk(child, visit)
}

/** A copy without locations, schemas and catalogs. */
export const normalise = <T>(value: T): T => {
  if (Array.isArray(value)) return value.map(normalise) as T
  if (typeof value !== 'object' || value === null || isLosslessNumber(value)) return value
  const out: Record<string, unknown> = {}
  for (const [key, child] of Object.entries(value)) {
    if (key === 'query_location') continue
    out[key] = key === 'schema' || key === 'catalog' ? '' : normalise(child)
  }
  return out as T
}

/** Text that is equal for trees of equal meaning: no locations, schemas, or alias at the top. */
export const treeKey = (node: Node): string => writeTree({ ...normalise(node), alias: '' })

export const withAlias = (node: Node, alias: string): Node => ({ ...node, alias })

export const columnNode = (name: string): Node => ({
  class: 'COLUMN_REF',
  type: 'COLUMN_REF',
  alias: '',
  column_names: [name],
})

export const textNode = (text: string): Node => ({
  class: 'CONSTANT',
  type: 'VALUE_CONSTANT',
  alias: '',
  value: { type: { id: 'VARCHAR', type_info: null }, is_null: false, value: text },
})

export const integerNode = (value: number): Node => ({
  class: 'CONSTANT',
  type: 'VALUE_CONSTANT',
  alias: '',
  value: { type: { id: 'INTEGER', type_info: null }, is_null: false, value: new LosslessNumber(String(value)) },
})

const DECIMAL = /^DECIMAL\((\d+),(\d+)\)$/

/** Type text → the tree's form of it. */
export const typeNode = (sql: string): Record<string, unknown> => {
  const decimal = DECIMAL.exec(sql)
  if (decimal)
    return {
      id: 'DECIMAL',
      type_info: {
        type: 'DECIMAL_TYPE_INFO',
        alias: '',
        extension_info: null,
        width: new LosslessNumber(decimal[1]!),
        scale: new LosslessNumber(decimal[2]!),
      },
    }
  return { id: sql === 'TIMESTAMPTZ' ? 'TIMESTAMP WITH TIME ZONE' : sql, type_info: null }
}

/** The tree's form of a type → its text; null for lists, structs and names that the parser does not know. */
export const typeText = (type: unknown): string | null => {
  const { id, type_info: info } = type as { id: string; type_info: Record<string, unknown> | null }
  if (id === 'DECIMAL') return info ? `DECIMAL(${digits(info.width)},${digits(info.scale)})` : 'DECIMAL(18,3)'
  if (id === 'UNBOUND' || info !== null) {
    const name = String(info?.name ?? '').toUpperCase()
    return id === 'UNBOUND' && name === 'JSON' ? 'JSON' : null
  }
  return id === 'TIMESTAMP WITH TIME ZONE' ? 'TIMESTAMPTZ' : id
}

export const castNode = (child: Node, sql: string, tryCast = false): Node => ({
  class: 'CAST',
  type: 'OPERATOR_CAST',
  alias: '',
  child: withAlias(child, ''),
  cast_type: typeNode(sql),
  try_cast: tryCast,
})

export const functionNode = (name: string, children: Node[], operator = false): Node => ({
  class: 'FUNCTION',
  type: 'FUNCTION',
  alias: '',
  function_name: name,
  schema: '',
  children,
  filter: null,
  order_bys: { type: 'ORDER_MODIFIER', orders: [] },
  distinct: false,
  is_operator: operator,
  export_state: false,
  catalog: '',
})

/** A statement of nothing but these items, for printing. */
export const statementOf = (items: Node[]): string =>
  writeTree({
    error: false,
    statements: [
      {
        node: {
          type: 'SELECT_NODE',
          modifiers: [],
          cte_map: { map: [] },
          select_list: items.map(normalise),
          from_table: { type: 'EMPTY', alias: '', sample: null },
          where_clause: null,
          group_expressions: [],
          group_sets: [],
          aggregate_handling: 'STANDARD_HANDLING',
          having: null,
          sample: null,
          qualify: null,
        },
        named_param_map: [],
      },
    ],
  })
