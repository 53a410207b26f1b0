/**
 * The one spelling of a view: what is hashed, registered and compiled again.
 * Invariant: printing is a fixed point (the canonical text compiles to itself), and comments, white space, letter case of
 * names, qualifiers and the way GROUP BY is written do not change it.
 */
import type { Dataset } from '../dataset.ts'
import { intervalNode } from './bucket.ts'
import type { Parts } from './dissect.ts'
import { plainName } from './names.ts'
import { isNode, type Node, normalise, type Select, writeTree } from './tree.ts'

export const canonicalTree = (select: Select, parts: Parts, dataset: Dataset): string => {
  const columns = new Map(dataset.columns.map((c) => [c.name.toLowerCase(), c.name]))
  const names = new Map(parts.items.map((i) => [i.name.toLowerCase(), i.name]))
  const tableAlias = String(select.from.alias ?? '')
  const spell = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(spell)
    if (typeof value !== 'object' || value === null || 'isLosslessNumber' in value) return value
    if (isNode(value)) {
      if (value.class === 'COLUMN_REF') {
        const name = plainName(value, dataset, tableAlias)!
        const lower = name.toLowerCase()
        return { ...value, column_names: [columns.get(lower) ?? names.get(lower) ?? lower] }
      }
      const interval = value.class === 'FUNCTION' || value.class === 'CAST' ? intervalNode(value) : null
      if (interval) return { ...interval, alias: value.alias ?? '' }
      if (value.class === 'FUNCTION') {
        const lower = String(value.function_name).toLowerCase()
        return { ...spellFields(value), function_name: lower }
      }
    }
    return spellFields(value as Record<string, unknown>)
  }
  const spellFields = (value: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(value).map(([k, v]) => [k, spell(v)]))
  const items = parts.items.map((item) => ({
    ...(spell(normalise(item.node)) as Node),
    alias: item.column !== null && item.name === item.column ? '' : item.name,
  }))
  const node = {
    ...normalise(select.node),
    select_list: items,
    from_table: { ...normalise(select.from), alias: '', schema_name: '', catalog_name: '', table_name: dataset.name },
    where_clause: select.where ? spell(normalise(select.where)) : null,
    group_expressions: [],
    group_sets: [],
    aggregate_handling: 'FORCE_AGGREGATES',
  }
  return writeTree({ error: false, statements: [{ node, named_param_map: [] }] })
}
