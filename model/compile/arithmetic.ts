/**
 * Arithmetic over scalars, widened by declared widths.
 * Invariant: where the result is not marked partial, operands are cast so wide that the engine's own operation, whatever
 * rule it has for the result's width, holds every possible value.
 */

import { type Checked, castTo, type Scope } from './checked.ts'
import { castNode, functionNode, integerNode, type Node, refuse } from './tree.ts'
import {
  abs,
  atScale,
  corners,
  DOUBLE,
  decimalType,
  digitsOf,
  HUGE,
  integerFor,
  integerType,
  isExact,
  isNumber,
  max,
  plain,
  type ValueType,
  valueType,
} from './value-type.ts'

const made = (tree: Node, type: ValueType, args: Checked[], why?: string, node?: Node): Checked => {
  const constant = args.every((a) => a.constant)
  const inner = args.find((a) => a.partial)?.partial
  return { tree, type, constant, partial: inner ?? (why && node ? { why, node } : undefined) }
}

export const arithmetic = (scope: Scope, node: Node, written: string, args: Checked[]): Checked => {
  const name = written === 'mod' ? '%' : written === 'divide' ? '//' : written
  const [a, b] = args
  const wrong = (expected: string): never =>
    refuse(scope.source, node, {
      code: 'WEIR_MODEL_TYPE',
      message: `${written} cannot be used with ${args.map((x) => x.type.sql).join(' and ')}.`,
      expected,
      next: 'cast the operands: TRY_CAST(… AS DECIMAL(18,2)), or epoch_ms(…) for times',
    })
  if (a && b && args.length === 2 && (name === '+' || name === '-')) {
    const moved = calendar(node, name, a, b)
    if (moved) return moved
  }
  if (args.some((x) => x.type.kind === 'NULL'))
    return made(castNode(nullNode(args), 'INTEGER'), valueType('INTEGER')!, args)
  if (!args.every((x) => isNumber(x.type))) return wrong('numbers')
  if (args.length === 1 && a && (name === '-' || name === 'abs' || name === '+')) return unary(node, name, a)
  if (args.length !== 2 || !a || !b) return wrong('two numbers')
  if (name === '/') {
    const divisor = castTo(b, DOUBLE)
    const guarded = functionNode('nullif', [divisor.tree, castNode(integerNode(0), 'DOUBLE')])
    return made(functionNode('/', [castTo(a, DOUBLE).tree, guarded], true), DOUBLE, args)
  }
  if (a.type.kind === 'DOUBLE' || b.type.kind === 'DOUBLE') {
    const both = [castTo(a, DOUBLE), castTo(b, DOUBLE)]
    if (name === '//') return wrong('integers: // of doubles is plain division')
    return made(
      functionNode(
        name,
        both.map((x) => x.tree),
        true,
      ),
      DOUBLE,
      args,
    )
  }
  if (a.type.kind === 'INTEGER' && b.type.kind === 'INTEGER') return integers(node, name, a, b)
  if (name === '//' || name === '%') return wrong('integers')
  return decimals(scope, node, name, a, b)
}

const nullNode = (args: Checked[]): Node => args.find((x) => x.type.kind === 'NULL')!.tree

const unary = (node: Node, name: string, a: Checked): Checked => {
  if (name === '+') return a
  const op = name === 'abs' ? 'abs' : '-'
  if (!isExact(a.type)) return made(functionNode(op, [a.tree], op === '-'), a.type, [a])
  const { lo, hi } = a.type
  const far = max(abs(lo), abs(hi))
  const bounds = op === 'abs' ? { lo: 0n, hi: far } : { lo: -hi, hi: -lo }
  if (a.type.kind === 'DECIMAL') return made(functionNode(op, [a.tree], op === '-'), { ...a.type, ...bounds }, [a])
  const sql = integerFor(lo, hi, bounds.lo, bounds.hi)
  const wide = castTo(a, valueType(sql ?? 'HUGEINT')!)
  return made(
    functionNode(op, [wide.tree], op === '-'),
    integerType(sql ?? 'HUGEINT', bounds.lo, bounds.hi),
    [a],
    sql === null ? 'the result may leave HUGEINT' : undefined,
    node,
  )
}

const integers = (node: Node, name: string, a: Checked, b: Checked): Checked => {
  const bounds = integerBounds(name, a.type, b.type)
  const sql = integerFor(
    a.type.lo,
    a.type.hi,
    b.type.lo,
    b.type.hi,
    bounds.lo,
    bounds.hi,
    name === '%' ? -a.type.lo : 0n,
  )
  const wide = valueType(sql ?? 'HUGEINT')!
  const type = integerType(wide.sql, bounds.lo, bounds.hi)
  const tree = functionNode(name, [castTo(a, wide).tree, castTo(b, wide).tree], true)
  const why = `the result may leave HUGEINT (from ${a.type.sql} ${name} ${b.type.sql})`
  return made(tree, sql === null ? { ...wide, ...HUGE } : type, [a, b], sql === null ? why : undefined, node)
}

const integerBounds = (name: string, a: ValueType, b: ValueType): { lo: bigint; hi: bigint } => {
  if (name === '+') return { lo: a.lo + b.lo, hi: a.hi + b.hi }
  if (name === '-') return { lo: a.lo - b.hi, hi: a.hi - b.lo }
  if (name === '*') return corners(a, b, (x, y) => x * y)
  const far = max(abs(a.lo), abs(a.hi))
  return { lo: -far, hi: far }
}

const precisionOf = (t: ValueType): number => Number(/\((\d+),/.exec(t.sql)![1])

/** An exact number as the narrowest DECIMAL of a scale, at least `least` digits wide. */
const asDecimal = (x: Checked, scale: number, least = 1): Checked => {
  const { lo, hi } = atScale(x.type, scale)
  const width = Math.min(38, Math.max(digitsOf(lo, hi), scale, least))
  if (x.type.kind === 'DECIMAL' && x.type.scale === scale && precisionOf(x.type) >= width) return x
  return castTo(x, decimalType(width, scale, lo, hi))
}

const decimals = (scope: Scope, node: Node, name: string, a: Checked, b: Checked): Checked => {
  if (name === '*') {
    const scale = a.type.scale + b.type.scale
    const bounds = corners(a.type, b.type, (x, y) => x * y)
    if (scale > 38)
      return refuse(scope.source, node, {
        code: 'WEIR_MODEL_TYPE',
        message: `The product of ${a.type.sql} and ${b.type.sql} would need ${scale} decimal places.`,
        expected: 'at most 38',
        next: 'round one of them first: CAST(… AS DECIMAL(18,2))',
      })
    let x = asDecimal(a, a.type.scale)
    const y = asDecimal(b, b.type.scale)
    // The engine keeps 18 digits when both fit them, and then checks for overflow: make one side wider.
    if (precisionOf(x.type) <= 18 && precisionOf(y.type) <= 18 && precisionOf(x.type) + precisionOf(y.type) > 18)
      x = castTo(x, { ...decimalType(19, x.type.scale, x.type.lo, x.type.hi) })
    const width = Math.min(38, precisionOf(x.type) + precisionOf(y.type))
    const fits = digitsOf(bounds.lo, bounds.hi) <= 38
    const tree = functionNode('*', [x.tree, y.tree], true)
    const why = `the product of ${a.type.sql} and ${b.type.sql} may need more than 38 digits`
    return made(tree, decimalType(width, scale, bounds.lo, bounds.hi), [a, b], fits ? undefined : why, node)
  }
  const scale = Math.max(a.type.scale, b.type.scale)
  const [x, y] = [atScale(a.type, scale), atScale(b.type, scale)]
  const bounds = name === '+' ? { lo: x.lo + y.lo, hi: x.hi + y.hi } : { lo: x.lo - y.hi, hi: x.hi - y.lo }
  const needed = Math.max(digitsOf(bounds.lo, bounds.hi), digitsOf(x.lo, x.hi), digitsOf(y.lo, y.hi))
  const width = Math.min(38, Math.max(needed, scale))
  const both = [a, b].map((v) => castTo(asDecimal(v, scale, width), decimalType(width, scale, HUGE.lo, HUGE.hi)))
  const result = width === 18 ? 18 : Math.min(38, width + 1)
  const why = `the result of ${a.type.sql} ${name} ${b.type.sql} may need more than 38 digits`
  return made(
    functionNode(
      name,
      both.map((v) => v.tree),
      true,
    ),
    decimalType(result, scale, bounds.lo, bounds.hi),
    [a, b],
    needed > 38 ? why : undefined,
    node,
  )
}

/** Times plus or minus intervals and times; null: not of that kind. */
const calendar = (node: Node, name: string, a: Checked, b: Checked): Checked | null => {
  const time = (t: ValueType): boolean => t.kind === 'TIMESTAMPTZ' || t.kind === 'TIMESTAMP' || t.kind === 'DATE'
  if (!time(a.type) || b.type.kind !== 'INTERVAL') return null
  const type = a.type.kind === 'DATE' ? plain('TIMESTAMP') : plain(a.type.kind)
  return made(functionNode(name, [a.tree, b.tree], true), type, [a, b], 'a time may leave the calendar', node)
}
