/**
 * Names of a view: what a select item is called, and what a name in an expression means.
 * Invariant: no name has two meanings, whatever its case: aliases differ from the dataset, its columns (unless the item *is*
 * that column) and each other, and do not begin with an underscore, which is kept for Weir's own columns.
 */
import type { Dataset } from '../dataset.ts'
import { nearest } from '../project-yaml.ts'
import { type Node, refuse, type Source } from './tree.ts'

export const HIDDEN_TIME = '_append_time'

/** Plain column name of a reference to the dataset (`ts`, `orders.ts`, `o.ts`, `main.orders.ts`); null: something else. */
export const plainName = (node: Node, dataset: Dataset, alias: string): string | null => {
  if (node.class !== 'COLUMN_REF') return null
  const names = node.column_names as string[]
  const last = names.at(-1)!
  if (names.length === 1) return last
  const tables = [dataset.name.toLowerCase(), alias.toLowerCase()].filter((t) => t !== '')
  const owner = names.slice(0, -1).map((n) => n.toLowerCase())
  const fits =
    owner.length === 1
      ? tables.includes(owner[0]!)
      : owner.length === 2 && owner[0] === 'main' && tables.includes(owner[1]!)
  return fits ? last : null
}

/** The name of a select item. */
export const itemName = (source: Source, item: Node, column: string | null): string => {
  if (item.alias) return item.alias
  if (column !== null) return column
  return refuse(source, item, {
    code: 'WEIR_MODEL_NAME',
    message: 'This needs a name.',
    expected: '<expression> AS <name>',
    next: 'add AS and a name',
  })
}

/** Checks the names of all items against each other and against the dataset. */
export const checkNames = (
  source: Source,
  dataset: Dataset,
  items: { node: Node; name: string; column: string | null }[],
): void => {
  const wrong = (node: Node, message: string, expected: string, next: string): never =>
    refuse(source, node, { code: 'WEIR_MODEL_NAME', message, expected, next })
  const seen = new Map<string, string>()
  for (const { node, name, column } of items) {
    const lower = name.toLowerCase()
    if (!/^[A-Za-z][A-Za-z0-9_]{0,62}$/.test(name))
      wrong(
        node,
        `${name} cannot name a column of a view.`,
        'a letter, then letters, digits or _, at most 63',
        name.startsWith('_') ? 'drop the underscore: those names are kept for Weir' : 'choose another name',
      )
    if (lower === dataset.name.toLowerCase())
      wrong(node, `${name} is the name of the dataset.`, 'a name of its own', 'choose another name')
    const owner = dataset.columns.find((c) => c.name.toLowerCase() === lower)
    if (owner && column?.toLowerCase() !== lower)
      wrong(
        node,
        `${name} is a column of ${dataset.name}, and this is not that column.`,
        'a name that no column has',
        `for example AS ${name}_${suffixFor(node)}`,
      )
    if (seen.has(lower)) wrong(node, `${name} is used twice.`, 'a name for each column of the view', 'rename one')
    seen.set(lower, name)
  }
}

const suffixFor = (node: Node): string =>
  node.class === 'FUNCTION' && /^[a-z_]+$/.test(String(node.function_name))
    ? String(node.function_name).replace('_star', '')
    : 'value'

export const unknownName = (source: Source, node: Node, name: string, known: string[]): never => {
  const near = nearest(name, known)
  return refuse(source, node, {
    code: 'WEIR_MODEL_NAME',
    message: `There is no column ${name}.`,
    expected: `one of ${known.join(', ')}`,
    got: name,
    next: near ? `did you mean ${near}?` : 'declare the column in the dataset, or correct the name',
  })
}
