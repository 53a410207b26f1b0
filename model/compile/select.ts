/**
 * The shape of a view: one plain SELECT from one dataset with GROUP BY ALL or its equivalent.
 * Invariant: what `readSelect` returns holds every part of the statement; anything else in it was refused.
 */
import { isNode, type Node, readTree, refuse, type Select, type Source } from './tree.ts'

const MODIFIERS: Record<string, { what: string; next: string }> = {
  ORDER_MODIFIER: { what: 'ORDER BY', next: 'leave it out; a query orders with orderBy' },
  LIMIT_MODIFIER: { what: 'LIMIT', next: 'leave it out; a query limits with limit' },
  LIMIT_PERCENT_MODIFIER: { what: 'LIMIT', next: 'leave it out; a query limits with limit' },
  DISTINCT_MODIFIER: { what: 'DISTINCT', next: 'leave it out: GROUP BY ALL gives each group once' },
}

export const readSelect = (tree: string, source: Source, dataset: string): Select => {
  const parsed = readTree(tree, source)
  const statements = parsed.statements as { node: Node; named_param_map?: unknown[] }[]
  const shape = (
    at: unknown,
    message: string,
    next: string,
    expected = 'SELECT … FROM <dataset> [WHERE …] GROUP BY ALL',
  ): never => refuse(source, at, { code: 'WEIR_MODEL_VIEW', message, expected, next })
  if (statements.length !== 1) return shape(statements[1], 'A view is one statement.', 'make a file for each view')
  const node = statements[0]!.node
  if (node.type !== 'SELECT_NODE')
    return shape(node, 'A view is one plain SELECT.', 'leave out UNION, VALUES and the like')
  for (const modifier of node.modifiers as { type: string }[]) {
    const known = MODIFIERS[modifier.type]
    return shape(
      modifier,
      `${known?.what ?? modifier.type} does not belong into a view.`,
      known?.next ?? 'leave it out',
    )
  }
  if ((node.cte_map as { map: unknown[] }).map.length > 0)
    return shape(node.cte_map, 'WITH does not belong into a view.', 'write it as one SELECT')
  if (node.having)
    return shape(node.having, 'HAVING does not belong into a view.', 'leave it out; queries filter on dimensions')
  if (node.qualify) return shape(node.qualify, 'QUALIFY does not belong into a view.', 'leave it out')
  if (node.sample) return shape(node, 'A sample is not repeatable.', 'leave it out')
  const from = node.from_table as Record<string, unknown>
  if (from.type !== 'BASE_TABLE')
    return shape(
      from,
      from.type === 'JOIN'
        ? 'A view reads one dataset: joins are not there yet.'
        : 'A view reads FROM exactly one dataset.',
      'name one dataset after FROM, and send what it would be joined with in the event',
    )
  if (from.sample) return shape(from, 'A sample is not repeatable.', 'leave it out')
  if (from.at_clause || (Array.isArray(from.column_name_alias) && from.column_name_alias.length > 0))
    return shape(from, 'The dataset is named plainly.', 'leave out AT and column aliases')
  const schema = String(from.schema_name ?? '')
  if (String(from.table_name).toLowerCase() !== dataset.toLowerCase() || !['', 'main'].includes(schema))
    return shape(from, `The view reads ${from.table_name}, not the dataset ${dataset}.`, `write FROM ${dataset}`)
  const items = node.select_list as Node[]
  const star = items.find((i) => i.class === 'STAR')
  if (star)
    return shape(star, 'SELECT * does not say what is grouped and what is measured.', 'name dimensions and measures')
  const groupAll = node.aggregate_handling === 'FORCE_AGGREGATES'
  const groups = node.group_expressions as Node[]
  const sets = node.group_sets as unknown[][]
  if (sets.length > 1 || (sets.length === 1 && sets[0]!.length !== groups.length))
    return shape(
      groups,
      'GROUPING SETS, CUBE and ROLLUP do not belong into a view.',
      'leave them out: a query asks for any part of the dimensions',
    )
  return { node, items, from, where: isNode(node.where_clause) ? node.where_clause : null, groups, groupAll }
}
