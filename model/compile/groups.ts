/** GROUP BY of a view: ALL, or a list that is the same. Invariant: exactly the items that are no measures are grouped. */
import { digits, type Node, refuse, type Select, type Source, treeKey } from './tree.ts'

/** One item of the SELECT. `column`: the dataset's column that it plainly is. */
export type Item = { node: Node; name: string; column: string | null; kind: 'key' | 'measure' }

export const checkGroups = (
  source: Source,
  select: Select,
  items: Item[],
  columnOf: (n: Node) => string | null,
): void => {
  if (select.groupAll) return
  const keys = items.filter((i) => i.kind === 'key')
  const wrong = (at: unknown, message: string): never =>
    refuse(source, at, {
      code: 'WEIR_MODEL_VIEW',
      message,
      expected: `GROUP BY ALL${keys.length ? `, or GROUP BY ${keys.map((k) => k.name).join(', ')}` : ''}`,
      next: 'write GROUP BY ALL',
    })
  const grouped = new Set<Item>()
  for (const group of select.groups) {
    const value = group.class === 'CONSTANT' ? (group.value as { value: unknown }).value : undefined
    const byNumber = value !== undefined ? items[Number(digits(value)) - 1] : undefined
    const names = group.class === 'COLUMN_REF' ? (group.column_names as string[]) : []
    const byName = names.length === 1 ? items.find((i) => i.name.toLowerCase() === names[0]!.toLowerCase()) : undefined
    const byColumn = columnOf(group)
    const found =
      byNumber ??
      byName ??
      items.find((i) => (byColumn !== null && i.column === byColumn) || treeKey(i.node) === treeKey(group))
    if (!found) wrong(group, 'GROUP BY names something that is not in the SELECT.')
    else if (found.kind === 'measure') wrong(group, `GROUP BY names the measure ${found.name}.`)
    else grouped.add(found)
  }
  const missing = keys.find((k) => !grouped.has(k))
  if (missing) wrong(missing.node, `${missing.name} is neither grouped nor measured.`)
}
