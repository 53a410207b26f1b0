/** Aggregate calls of a view. Invariant: a call that passes is a measure of Weir with arguments that it can keep exactly. */
import { MEASURES, measureNamed, REFUSED_AGGREGATES } from '../measures/index.ts'
import type { Measure } from '../measures/measure.ts'
import type { Checked, Scope } from './checked.ts'
import { check, checkBoolean, hasOrder } from './scalar.ts'
import { type Node, refuse, type Source } from './tree.ts'
import type { ValueType } from './value-type.ts'

const AGGREGATES = new Set([...MEASURES.flatMap((m) => m.names), ...Object.keys(REFUSED_AGGREGATES)])

export const isAggregate = (node: Node): boolean =>
  node.class === 'FUNCTION' &&
  (AGGREGATES.has(String(node.function_name).toLowerCase()) || node.distinct === true || Boolean(node.filter))

export const argumentOf = (checked: Checked): { type: ValueType; constant: boolean; number?: string } => ({
  type: checked.type,
  constant: checked.constant,
  number: numberText(checked),
})

/** Text of an exact constant: 0.95. */
const numberText = ({ constant, type }: Checked): string | undefined => {
  if (!constant || (type.kind !== 'INTEGER' && type.kind !== 'DECIMAL') || type.lo !== type.hi || type.lo < 0n)
    return undefined
  const text = type.lo.toString().padStart(type.scale + 1, '0')
  return type.scale === 0 ? text : `${text.slice(0, -type.scale)}.${text.slice(-type.scale)}`
}

export const checkCall = (
  source: Source,
  node: Node,
  rows: Scope,
  total: (c: Checked) => Checked,
): { measure: Measure; name: string; args: Checked[]; filter: Checked | null } => {
  const name = String(node.function_name).toLowerCase()
  const measure = measureNamed(name)
  const wrong = (message: string, expected: string, next: string): never =>
    refuse(source, node, { code: 'WEIR_MODEL_MEASURE', message, expected, next })
  if (!measure)
    return wrong(
      `The aggregate ${name} cannot stand in a view: it cannot be merged, or depends on the order of rows.`,
      `one of ${MEASURES.flatMap((m) => m.names)
        .filter((n) => n !== 'count_star')
        .join(', ')}`,
      REFUSED_AGGREGATES[name] ?? 'use one of these',
    )
  if (node.distinct === true)
    return wrong(
      `${name}(DISTINCT …) cannot be merged from parts.`,
      measure.usage,
      name === 'count' ? 'use approx_count_distinct(x): exact up to 256, then within 1.6 %' : 'leave DISTINCT out',
    )
  if (hasOrder(node))
    return wrong(
      `${name} takes no ORDER BY: events have no order but their time.`,
      measure.usage,
      'leave it out; first(x) and last(x) go by event time',
    )
  const args = (node.children as Node[]).map((c) => total(check(rows, c)))
  const problem = measure.check(name, args.map(argumentOf))
  if (problem) return wrong(problem.message, problem.expected, problem.next)
  return { measure, name, args, filter: node.filter ? total(checkBoolean(rows, node.filter as Node)) : null }
}
