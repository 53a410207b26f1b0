/**
 * Checks a scalar expression and rewrites it so that it cannot throw.
 * Invariant: a checked tree that is not `partial` evaluates without an error on every row, casts nothing implicitly, and
 * reads only what the scope gives it.
 *
 * Rewrites: integer and decimal arithmetic is widened by declared widths; `a / b` becomes a division of doubles that is
 * NULL for a zero divisor; `TRY(x::T)` becomes TRY_CAST; text constants take the type they are compared with.
 */

import { arithmetic } from './arithmetic.ts'
import { intervalNode } from './bucket.ts'
import { type Checked, castTo, type Scope } from './checked.ts'
import { ADVICE, type Argument, FUNCTIONS, type Typed } from './functions.ts'
import { castNode, digits, functionNode, type Node, refuse, typeText, withAlias } from './tree.ts'
import {
  BOOLEAN,
  castBounds,
  castIsTotal,
  commonType,
  integerType,
  plain,
  type ValueType,
  valueType,
} from './value-type.ts'

const textOf = (node: Node): string | undefined => {
  if (node.class !== 'CONSTANT') return undefined
  const value = node.value as { type: { id: string }; is_null: boolean; value: unknown }
  return value.type.id === 'VARCHAR' && !value.is_null ? String(value.value) : undefined
}

const argument = (c: Checked): Argument => ({
  type: c.type,
  constant: c.constant,
  text: textOf(c.tree),
  integer: c.constant && c.type.kind === 'INTEGER' && c.type.lo === c.type.hi ? c.type.lo : undefined,
})

const constantNode = (scope: Scope, node: Node): Checked => {
  const value = node.value as { type: { id: string; type_info: unknown }; is_null: boolean; value: unknown }
  const done = (type: ValueType): Checked => ({ tree: node, type, constant: true })
  if (value.is_null || value.type.id === 'NULL') return done(plain('NULL', '"NULL"'))
  const sql = typeText(value.type)
  const type = sql === null ? null : valueType(sql)
  if (!type)
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_LITERAL',
      message: `A view cannot hold a constant of type ${sql ?? value.type.id}.`,
      expected: 'a number, text, true, false or NULL',
      next: 'write the constant as text and cast it',
    })
  if (type.kind === 'INTEGER') {
    const n = isHuge(value.value)
      ? (BigInt(digits(value.value.upper)) << 64n) + BigInt(digits(value.value.lower))
      : BigInt(digits(value.value))
    return done(integerType(type.sql, n, n))
  }
  if (type.kind === 'DECIMAL') {
    const n = isHuge(value.value)
      ? (BigInt(digits(value.value.upper)) << 64n) + BigInt(digits(value.value.lower))
      : BigInt(digits(value.value))
    return done({ ...type, lo: n, hi: n })
  }
  return done(type)
}

const isHuge = (value: unknown): value is { upper: unknown; lower: unknown } =>
  typeof value === 'object' && value !== null && 'upper' in value

const FORBIDDEN: Record<string, { what: string; next: string }> = {
  SUBQUERY: { what: 'A subquery', next: 'send what it would look up with the event; joins are not there yet' },
  WINDOW: {
    what: 'A window function',
    next: 'compute running values in the query: a measure sums up a set of events, in no order',
  },
  LAMBDA: { what: 'A lambda (or the arrow ->)', next: "for JSON use ->> '<path>'" },
  PARAMETER: { what: 'A parameter', next: 'write the value itself' },
  STAR: { what: '*', next: 'name the columns; count(*) counts events' },
  COLLATE: { what: 'A collation', next: 'use lower(…) or strip_accents(…)' },
  DEFAULT: { what: 'DEFAULT', next: 'write the value itself' },
  POSITIONAL_REFERENCE: { what: 'A column by its number', next: 'write its name' },
}

/** Checks one expression in a scope. */
export const check = (scope: Scope, node: Node): Checked => {
  switch (node.class) {
    case 'COLUMN_REF':
      return scope.column(node.column_names as string[], node)
    case 'CONSTANT':
      return constantNode(scope, node)
    case 'CAST':
      return checkCast(scope, node)
    case 'FUNCTION':
      return checkFunction(scope, node)
    case 'COMPARISON': {
      const [left, right] = same(scope, node, [check(scope, node.left as Node), check(scope, node.right as Node)])
      return join({ ...node, left: left!.tree, right: right!.tree }, BOOLEAN, [left!, right!])
    }
    case 'BETWEEN': {
      const all = [node.input, node.lower, node.upper].map((n) => check(scope, n as Node))
      const [input, lower, upper] = same(scope, node, all)
      return join({ ...node, input: input!.tree, lower: lower!.tree, upper: upper!.tree }, BOOLEAN, all)
    }
    case 'CONJUNCTION': {
      const all = (node.children as Node[]).map((n) => checkBoolean(scope, n))
      return join({ ...node, children: all.map((c) => c.tree) }, BOOLEAN, all)
    }
    case 'CASE':
      return checkCase(scope, node)
    case 'OPERATOR':
      return checkOperator(scope, node)
  }
  const forbidden = FORBIDDEN[node.class]
  return refuse(scope.source, node, {
    code: 'WEIR_MODEL_EXPRESSION',
    message: `${forbidden?.what ?? `An expression of class ${node.class}`} cannot stand in a view.`,
    expected: 'columns, constants, operators, CASE and functions of the allow-list',
    next: forbidden?.next ?? 'write it with functions of the allow-list',
  })
}

const join = (tree: Node, type: ValueType, parts: Checked[]): Checked => ({
  tree: withAlias(tree, ''),
  type,
  partial: parts.find((p) => p.partial)?.partial,
  constant: parts.every((p) => p.constant),
})

export const checkBoolean = (scope: Scope, node: Node): Checked => {
  const found = check(scope, node)
  if (found.type.kind === 'BOOLEAN') return found
  if (found.type.kind === 'NULL') return castTo(found, BOOLEAN)
  return refuse(scope.source, node, {
    code: 'WEIR_MODEL_TYPE',
    message: `A condition is needed here, not a ${found.type.sql}.`,
    expected: 'an expression that is true or false',
    next: 'compare it with something, for example <> 0',
  })
}

/** Brings all to one type; text constants are read as the type of the others. */
const same = (scope: Scope, node: Node, parts: Checked[]): Checked[] => {
  const typed = parts.filter((p) => textOf(p.tree) === undefined && p.type.kind !== 'NULL')
  const [first] = typed
  const others = first === undefined ? parts : typed
  let type: ValueType | null = others[0]!.type
  for (const other of others.slice(1)) type = type && commonType(type, other.type)
  if (!type || type.kind === 'JSON')
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_TYPE',
      message: `Values of ${[...new Set(parts.map((p) => p.type.sql))].join(' and ')} cannot be compared or mixed.`,
      expected: 'values of one type, or numbers that one exact type holds',
      next: type ? "take text out of the JSON with ->> '<path>'" : 'cast one of them: TRY_CAST(… AS …)',
    })
  const common = type
  return parts.map((p) => {
    if (p.type.kind === 'NULL') return common.kind === 'NULL' ? p : castTo(p, valueType(common.sql)!)
    if (textOf(p.tree) !== undefined && common.kind !== 'VARCHAR') {
      const tree = castNode(p.tree, common.sql)
      scope.constants.push(tree)
      return { tree, type: valueType(common.sql) ?? common, constant: true }
    }
    return castTo(p, common)
  })
}

const checkCast = (scope: Scope, node: Node): Checked => {
  const child = check(scope, node.child as Node)
  const sql = typeText(node.cast_type)
  const type = sql === null ? null : valueType(sql)
  if (!type || type.kind === 'JSON' || (type.kind === 'INTERVAL' && !child.constant))
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_TYPE',
      message: `A view cannot cast to ${sql ?? 'this type'}.`,
      expected: 'BOOLEAN, TINYINT to HUGEINT, DECIMAL(p,s), DOUBLE, VARCHAR, DATE, TIMESTAMPTZ, TIMESTAMP or UUID',
      next: sql === 'FLOAT' ? 'use DOUBLE' : 'choose one of these types',
    })
  if (child.type.kind === 'JSON' && type.kind !== 'VARCHAR')
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_TYPE',
      message: `JSON cannot be cast to ${type.sql} as it is.`,
      expected: "text taken out of it, then TRY_CAST(column ->> '<path>' AS type)",
      next: "use ->> '<path>' first",
    })
  // The engine (1.5.6) reads a text without a zone in the zone that a text before it named: rows would depend on each other.
  if (child.type.kind === 'VARCHAR' && type.kind === 'TIMESTAMPTZ' && !child.constant)
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_TYPE',
      message: 'Text cannot be cast to TIMESTAMPTZ in a view.',
      expected: 'a time whose reading does not depend on other rows',
      next: 'declare the column as TIMESTAMPTZ in the dataset, or write TRY_CAST(… AS TIMESTAMP), which takes UTC times',
    })
  const tree = withAlias({ ...node, child: child.tree }, '')
  const total = node.try_cast === true || castIsTotal(child.type, type)
  const bounded = child.type.bounded && ['DATE', 'TIMESTAMP', 'TIMESTAMPTZ'].includes(type.kind)
  const result: Checked = {
    tree: child.type.sql === type.sql ? withAlias(child.tree, '') : tree,
    type: bounded ? { ...type, bounded } : total ? castBounds(child.type, type) : type,
    partial: child.partial,
    constant: child.constant,
  }
  if (total || child.partial) return result
  if (child.constant) {
    scope.constants.push(result.tree)
    return result
  }
  return { ...result, partial: { why: `not every ${child.type.sql} can be cast to ${type.sql}`, node } }
}

const checkCase = (scope: Scope, node: Node): Checked => {
  const checks = node.case_checks as { when_expr: Node; then_expr: Node }[]
  const whens = checks.map((c) => checkBoolean(scope, c.when_expr))
  const values = same(scope, node, [
    ...checks.map((c) => check(scope, c.then_expr)),
    check(scope, node.else_expr as Node),
  ])
  const tree = {
    ...node,
    case_checks: whens.map((w, i) => ({ when_expr: w.tree, then_expr: values[i]!.tree })),
    else_expr: values.at(-1)!.tree,
  }
  return join(
    tree,
    values.map((v) => v.type).reduce((a, b) => commonType(a, b) ?? a),
    [...whens, ...values],
  )
}

const checkOperator = (scope: Scope, node: Node): Checked => {
  const children = node.children as Node[]
  switch (node.type) {
    case 'OPERATOR_NOT': {
      const child = checkBoolean(scope, children[0]!)
      return join({ ...node, children: [child.tree] }, BOOLEAN, [child])
    }
    case 'OPERATOR_IS_NULL':
    case 'OPERATOR_IS_NOT_NULL': {
      const child = check(scope, children[0]!)
      return join({ ...node, children: [child.tree] }, BOOLEAN, [child])
    }
    case 'COMPARE_IN':
    case 'COMPARE_NOT_IN': {
      const all = same(
        scope,
        node,
        children.map((c) => check(scope, c)),
      )
      return join({ ...node, children: all.map((c) => c.tree) }, BOOLEAN, all)
    }
    case 'OPERATOR_COALESCE': {
      const all = same(
        scope,
        node,
        children.map((c) => check(scope, c)),
      )
      return join(
        { ...node, children: all.map((c) => c.tree) },
        all.map((c) => c.type).reduce((a, b) => commonType(a, b) ?? a),
        all,
      )
    }
    case 'OPERATOR_TRY': {
      const child = check(scope, children[0]!)
      if (!child.partial) return child
      // One cast that may fail is a TRY_CAST: 25 times faster on bad rows.
      const only = child.tree.class === 'CAST' && child.partial.node === children[0]
      const tree = only ? { ...child.tree, try_cast: true } : { ...node, children: [child.tree] }
      return { tree: withAlias(tree, ''), type: child.type, constant: child.constant }
    }
  }
  return refuse(scope.source, node, {
    code: 'WEIR_MODEL_EXPRESSION',
    message: `The operator ${node.type} cannot stand in a view.`,
    expected: 'AND, OR, NOT, IS NULL, IN, COALESCE, TRY and comparisons',
    next: 'write it with these',
  })
}

const checkFunction = (scope: Scope, node: Node): Checked => {
  const name = String(node.function_name).toLowerCase()
  const known = scope.call?.(name, node)
  if (known) return known
  const interval = intervalNode(node)
  if (interval) return { tree: interval, type: plain('INTERVAL'), constant: true }
  const args = (node.children as Node[]).map((c) => check(scope, c))
  if (['+', '-', '*', '/', '//', '%', 'mod', 'abs', 'divide'].includes(name)) return arithmetic(scope, node, name, args)
  if (name === 'ifnull' || name === 'nullif') return nullFunction(scope, node, name, args)
  const rule = FUNCTIONS[name]
  if (!rule || !Object.hasOwn(FUNCTIONS, name))
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_FUNCTION',
      message: `The function ${name} cannot stand in a view.`,
      expected: 'a function that gives the same value for the same event at any time and on any machine',
      next: ADVICE[name] ?? nearestFunction(name),
    })
  if (node.distinct === true || node.filter || hasOrder(node))
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_FUNCTION',
      message: `${name} is no aggregate: it takes no DISTINCT, FILTER or ORDER BY.`,
      expected: rule.usage,
      next: 'leave them out',
    })
  let typed: Typed | null = rule.apply(args.map(argument))
  let given = args
  if (!typed) {
    // Text constants where another type is wanted are the caller's to cast: say how the function is called.
    typed = refuse(scope.source, node, {
      code: 'WEIR_MODEL_FUNCTION',
      message: `${name} cannot be called with (${args.map((a) => a.type.sql).join(', ')}).`,
      expected: rule.usage,
      next: 'cast the arguments, or make them constant where <constant> is asked',
    })
  }
  given = args.map((a, i) => {
    const cast = typed.casts?.[i]
    return cast ? castTo(a, cast) : a
  })
  const called = join(
    {
      ...functionNode(
        name,
        given.map((a) => a.tree),
        node.is_operator === true,
      ),
    },
    typed.type,
    given,
  )
  if (called.constant) scope.constants.push(called.tree)
  if (called.partial || !typed.partial || called.constant) return called
  return { ...called, partial: { why: `${name}: ${typed.partial}`, node } }
}

export const hasOrder = (node: Node): boolean => {
  const orders = (node.order_bys as { orders?: unknown[] } | null)?.orders
  return Array.isArray(orders) && orders.length > 0
}

const nullFunction = (scope: Scope, node: Node, name: string, args: Checked[]): Checked => {
  if (args.length !== 2)
    return refuse(scope.source, node, {
      code: 'WEIR_MODEL_FUNCTION',
      message: `${name} takes two arguments.`,
      expected: `${name}(a, b)`,
      next: 'give it two',
    })
  const both = same(scope, node, args)
  const type = name === 'nullif' ? both[0]!.type : (commonType(both[0]!.type, both[1]!.type) ?? both[0]!.type)
  const tree =
    name === 'nullif'
      ? functionNode(
          'nullif',
          both.map((c) => c.tree),
        )
      : { class: 'OPERATOR', type: 'OPERATOR_COALESCE', alias: '', children: both.map((c) => c.tree) }
  return join(tree, type, both)
}

const nearestFunction = (name: string): string => {
  const start = Object.keys(FUNCTIONS).filter(
    (f) => /^[a-z]/.test(f) && (f.startsWith(name.slice(0, 3)) || name.startsWith(f)),
  )
  return start.length ? `one of these may do: ${start.slice(0, 6).join(', ')}` : 'see docs/definitions.md for the list'
}
