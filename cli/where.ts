/**
 * `--where "country = 'DE' AND NOT (a > 3 OR b IS NULL)"` → filters of the query API. The engine parses; this walks its
 * tree and allows only what the API has. Invariant: nothing of the text reaches a server but names and plain values.
 */
import { WeirError } from '../model/errors.ts'
import type { Filter, FilterOp, Scalar } from '../model/query/query.ts'

type Node = {
  class: string
  type: string
  children?: Node[]
  left?: Node
  right?: Node
  input?: Node
  lower?: Node
  upper?: Node
  child?: Node
  column_names?: string[]
  function_name?: string
  is_operator?: boolean
  cast_type?: { id: string }
  value?: { type: { id: string; type_info: { scale?: number } | null }; is_null: boolean; value?: unknown }
}

const COMPARISONS: Record<string, FilterOp> = {
  COMPARE_EQUAL: '=',
  COMPARE_NOTEQUAL: '!=',
  COMPARE_LESSTHAN: '<',
  COMPARE_LESSTHANOREQUALTO: '<=',
  COMPARE_GREATERTHAN: '>',
  COMPARE_GREATERTHANOREQUALTO: '>=',
}
const MIRRORED: Record<string, FilterOp> = { '=': '=', '!=': '!=', '<': '>', '<=': '>=', '>': '<', '>=': '<=' }

const refuse = (got: string): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_WHERE',
    message: 'This condition is more than the query API takes.',
    expected:
      "a column compared with a value (= != < <= > >=), IN, NOT IN, BETWEEN, IS NULL, IS NOT NULL, contains(column, 'x'), starts_with(column, 'x'), with AND, OR, NOT",
    got,
    next: "for example: --where \"country IN ('DE', 'FR') AND status != 'cancelled'\"",
  })

const describe = (node: Node): string => node.function_name ?? node.type.toLowerCase()

const columnOf = (node: Node): string => {
  if (node.class !== 'COLUMN_REF' || node.column_names?.length !== 1) throw refuse(describe(node))
  return node.column_names[0]!
}

/** Decimals come unscaled: 25 with scale 1 is 2.5; their digits travel as text. */
const decimalText = (unscaled: string, scale: number): string => {
  if (scale === 0) return unscaled
  const digits = unscaled.replace('-', '').padStart(scale + 1, '0')
  return `${unscaled.startsWith('-') ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

const literalOf = (node: Node): Scalar => {
  if (node.class === 'CAST' && node.cast_type?.id === 'BOOLEAN' && node.child?.value)
    return String(node.child.value.value).startsWith('t')
  if (node.class === 'CAST' && /TIMESTAMP|DATE/.test(node.cast_type?.id ?? '') && node.child)
    return literalOf(node.child)
  if (node.class !== 'CONSTANT' || !node.value) throw refuse(describe(node))
  if (node.value.is_null) throw refuse('a comparison with NULL; write IS NULL')
  const { value, type } = node.value
  if (typeof value === 'object') throw refuse('a number of more than 64 bits; write it in quotes')
  if (type.id === 'DECIMAL') return decimalText(String(value), type.type_info?.scale ?? 0)
  if (typeof value === 'number') return Number.isSafeInteger(value) || type.id === 'DOUBLE' ? value : String(value)
  return typeof value === 'boolean' ? value : String(value)
}

const isColumn = (node: Node | undefined): boolean => node?.class === 'COLUMN_REF'

const comparison = (node: Node): Filter => {
  const op = COMPARISONS[node.type]
  if (op === undefined || !node.left || !node.right) throw refuse(describe(node))
  if (isColumn(node.left)) return { column: columnOf(node.left), op, value: literalOf(node.right) }
  return { column: columnOf(node.right), op: MIRRORED[op]!, value: literalOf(node.left) }
}

const operator = (node: Node): Filter => {
  const [first, ...rest] = node.children ?? []
  if (!first) throw refuse(describe(node))
  switch (node.type) {
    case 'OPERATOR_NOT':
      return { not: filterOf(first) }
    case 'OPERATOR_IS_NULL':
      return { column: columnOf(first), op: 'isNull' }
    case 'OPERATOR_IS_NOT_NULL':
      return { column: columnOf(first), op: 'isNotNull' }
    case 'COMPARE_IN':
      return { column: columnOf(first), op: 'in', value: rest.map(literalOf) }
    case 'COMPARE_NOT_IN':
      return { column: columnOf(first), op: 'notIn', value: rest.map(literalOf) }
    default:
      throw refuse(describe(node))
  }
}

const call = (node: Node): Filter => {
  const [column, value] = node.children ?? []
  const op = { contains: 'contains', starts_with: 'startsWith', '^@': 'startsWith' }[node.function_name ?? '']
  if (op === undefined || !column || !value || node.children?.length !== 2) throw refuse(describe(node))
  return { column: columnOf(column), op: op as FilterOp, value: literalOf(value) }
}

const filterOf = (node: Node): Filter => {
  switch (node.class) {
    case 'CONJUNCTION': {
      const all = (node.children ?? []).map(filterOf)
      return node.type === 'CONJUNCTION_OR' ? { or: all } : { and: all }
    }
    case 'COMPARISON':
      return comparison(node)
    case 'OPERATOR':
      return operator(node)
    case 'BETWEEN': {
      if (!node.input || !node.lower || !node.upper) throw refuse(describe(node))
      const column = columnOf(node.input)
      const both: Filter[] = [
        { column, op: '>=', value: literalOf(node.lower) },
        { column, op: '<=', value: literalOf(node.upper) },
      ]
      return node.type === 'COMPARE_BETWEEN' ? { and: both } : { not: { and: both } }
    }
    case 'FUNCTION':
      return call(node)
    case 'COLUMN_REF':
      return { column: columnOf(node), op: '=', value: true }
    default:
      throw refuse(describe(node))
  }
}

/** Integers beyond 2^53 keep their digits: they are quoted before the tree is read as JSON. */
const quoteBig = (tree: string): string => tree.replace(/("value":)(-?\d{16,})(?=[,}])/g, '$1"$2"')

type Statement = { node: { type: string; where_clause: Node | null } & Record<string, unknown> }

/** Filters (a list is AND) of a condition. `parse`: `SqlTools.parse`. Throws WEIR_CLI_WHERE, WEIR_MODEL_SQL. */
export const parseWhere = async (text: string, parse: (sql: string) => Promise<string>): Promise<Filter[]> => {
  const tree = JSON.parse(quoteBig(await parse(`SELECT 1 FROM t WHERE (${text}\n)`))) as { statements: Statement[] }
  const { statements } = tree
  const node = statements[0]?.node
  const list = (key: string): unknown[] => (node?.[key] as unknown[] | undefined) ?? []
  const bare =
    statements.length === 1 &&
    node?.type === 'SELECT_NODE' &&
    list('modifiers').length + list('group_expressions').length === 0 &&
    !node.having &&
    !node.qualify &&
    !node.sample
  if (!bare || !node?.where_clause) throw refuse('more than a condition')
  const filter = filterOf(node.where_clause)
  return 'and' in filter ? filter.and : [filter]
}
