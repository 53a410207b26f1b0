/**
 * Takes a view's SELECT apart: bucket, dimensions, measures, arithmetic over measures, WHERE; every expression checked.
 * Invariant: `trees` are in the order in which `Parts` refers to them by index, so that one printing serves all.
 */
import type { ColumnType, Dataset } from '../dataset.ts'
import { type Measure, storedType } from '../measures/measure.ts'
import type { Grain } from '../view.ts'
import { bucketOf } from './bucket.ts'
import { argumentOf, checkCall, isAggregate } from './calls.ts'
import type { Checked, Scope } from './checked.ts'
import { ADVICE } from './functions.ts'
import { checkGroups, type Item } from './groups.ts'
import { checkNames, HIDDEN_TIME, itemName, plainName, unknownName } from './names.ts'
import { wordOutside } from './print.ts'
import { check, checkBoolean } from './scalar.ts'
import { columnNode, type Node, refuse, type Select, type Source, treeKey, walk, writeTree } from './tree.ts'
import { plain, type ValueType, valueType } from './value-type.ts'

export type Dimension = { name: string; type: ColumnType; tree: number }
/** An aggregate call; equal ones are one. */
export type Call = { measure: Measure; name: string; args: { checked: Checked; tree: number }[]; filter: number | null }
export type MeasureItem =
  | { kind: 'call'; name: string; call: number }
  | { kind: 'arithmetic'; name: string; tree: number; calls: number[]; type: ColumnType; cast: boolean; guard: boolean }

export type Parts = {
  items: Item[]
  trees: Node[]
  bucket: { name: string; grain: Grain } | null
  /** Names of key columns in the order of the SELECT. */
  dimensions: Dimension[]
  calls: Call[]
  measures: MeasureItem[]
  where: number | null
  columns: string[]
  needsAppendTime: boolean
  /** Column name that stands for call `i` in arithmetic. */
  leaf: (call: number) => string
  /** Printed expressions over decoded rows with the types that the checker gave them. */
  expectedTypes: (printed: string[]) => { sql: string; type: string }[]
  constantSql: (printed: string[]) => string[]
}

const contains = (node: Node, test: (n: Node) => boolean): boolean => {
  let found = false
  walk(node, (n) => {
    if (test(n)) found = true
  })
  return found
}

export const dissect = (source: Source, select: Select, dataset: Dataset): Parts => {
  const tableAlias = String(select.from.alias ?? '')
  const byLower = new Map(dataset.columns.map((c) => [c.name.toLowerCase(), c]))
  const columnOf = (node: Node): string | null => {
    const name = plainName(node, dataset, tableAlias)
    return name === null ? null : (byLower.get(name.toLowerCase())?.name ?? null)
  }
  const items: Item[] = select.items.map((node) => {
    const column = columnOf(node)
    return { node, column, name: itemName(source, node, column), kind: contains(node, isAggregate) ? 'measure' : 'key' }
  })
  checkNames(source, dataset, items)
  markArithmetic(items, byLower)
  checkGroups(source, select, items, columnOf)
  if (!items.some((i) => i.kind === 'measure'))
    refuse(source, select.items, {
      code: 'WEIR_MODEL_VIEW',
      message: 'The view measures nothing.',
      expected: 'at least one measure',
      next: 'add count(*) AS event_count',
    })

  const aliases = new Map(items.map((i) => [i.name.toLowerCase(), i]))
  const trees: Node[] = []
  const types = new Map<number, string>()
  const keep = (c: Checked): number => {
    trees.push(c.tree)
    types.set(trees.length - 1, c.type.sql)
    return trees.length - 1
  }
  const columns = new Set<string>()
  let needsAppendTime = false
  const constants: Node[] = []
  const open = new Set<string>()

  const rowColumn = (names: string[], node: Node): Checked => {
    const name = plainName(node, dataset, tableAlias)
    if (name === null)
      return unknownName(
        source,
        node,
        names.join('.'),
        dataset.columns.map((c) => c.name),
      )
    const column = byLower.get(name.toLowerCase())
    if (column) {
      columns.add(column.name)
      // The decoder takes years 0001 to 9999, or epoch numbers to 9e18 µs: far enough from the ends of the calendar.
      const bounded = column.type === 'TIMESTAMPTZ' || column.type === 'DATE'
      return { tree: columnNode(column.name), type: { ...typeOf(column.type), bounded }, constant: false }
    }
    if (name.toLowerCase() === HIDDEN_TIME) {
      needsAppendTime = true
      return { tree: columnNode(HIDDEN_TIME), type: { ...plain('TIMESTAMPTZ'), bounded: true }, constant: false }
    }
    const item = aliases.get(name.toLowerCase())
    if (item?.kind === 'key' && !open.has(item.name)) {
      open.add(item.name)
      const checked = check(rows, item.node)
      open.delete(item.name)
      return checked
    }
    if (item?.kind === 'measure')
      return refuse(source, node, {
        code: 'WEIR_MODEL_MEASURE',
        message: `The measure ${item.name} cannot be used for single events.`,
        expected: 'columns of the dataset',
        next: 'use it in arithmetic over measures only',
      })
    if (Object.hasOwn(ADVICE, name.toLowerCase())) return notRepeatable(source, node, name.toLowerCase())
    if (name.startsWith('_'))
      return refuse(source, node, {
        code: 'WEIR_MODEL_NAME',
        message: `${name} cannot be used in a view.`,
        expected: `a column of ${dataset.name}, or ${HIDDEN_TIME}`,
        next: `of Weir's own columns only ${HIDDEN_TIME} may be used`,
      })
    return unknownName(source, node, name, [...dataset.columns.map((c) => c.name), HIDDEN_TIME])
  }
  const rows: Scope = {
    source,
    constants,
    column: rowColumn,
    call: (name, node) => {
      if (!isAggregate(node)) return null
      return refuse(source, node, {
        code: 'WEIR_MODEL_MEASURE',
        message: `The aggregate ${name} cannot stand inside another one, a dimension or a condition.`,
        expected: 'an expression over single events',
        next: 'measure it on its own and do arithmetic over measures',
      })
    },
  }
  const total = (checked: Checked): Checked => {
    if (!checked.partial) return checked
    return refuse(source, checked.partial.node, {
      code: 'WEIR_MODEL_PARTIAL',
      message: `One odd event could stop this: ${checked.partial.why}.`,
      expected: 'an expression that has a value, or NULL, for every event',
      next:
        checked.partial.node.class === 'CAST'
          ? 'write TRY_CAST(… AS …): NULL where it fails'
          : 'put it into TRY(…): NULL where it fails',
    })
  }

  const calls: Call[] = []
  const callsByTree = new Map<string, number>()
  const callOf = (node: Node): number => {
    const key = treeKey(node)
    const known = callsByTree.get(key)
    if (known !== undefined) return known
    const { measure, name, args, filter } = checkCall(source, node, rows, total)
    callsByTree.set(key, calls.length)
    calls.push({
      measure,
      name,
      args: args.map((checked) => ({ checked, tree: keep(checked) })),
      filter: filter ? keep(filter) : null,
    })
    return calls.length - 1
  }
  const stem = wordOutside(writeTree(select.items), 'weirleaf')
  const leaf = (call: number): string => `${stem}${call}x`
  const leafChecked = (call: number, used: Set<number>): Checked => {
    used.add(call)
    return { tree: columnNode(leaf(call)), type: leafType(calls[call]!, dataset), constant: false }
  }
  const arithmeticScope = (used: Set<number>, path: Set<string>): Scope => ({
    source,
    constants,
    column: (names, node) => {
      const item = names.length === 1 ? aliases.get(names[0]!.toLowerCase()) : undefined
      if (item?.kind === 'measure' && !path.has(item.name))
        return isAggregate(item.node)
          ? leafChecked(callOf(item.node), used)
          : check(arithmeticScope(used, new Set([...path, item.name])), item.node)
      return refuse(source, node, {
        code: 'WEIR_MODEL_MEASURE',
        message: `${names.join('.')} has no single value for a group.`,
        expected: 'measures by name, aggregates, and constants',
        next: `write first(${names.at(-1)}), max(${names.at(-1)}) or another aggregate of it`,
      })
    },
    call: (_name, node) => (isAggregate(node) ? leafChecked(callOf(node), used) : null),
  })

  let bucket: Parts['bucket'] = null
  const dimensions: Dimension[] = []
  const isEventTime = (node: Node): boolean => columnOf(node) === dataset.eventTime
  for (const item of items.filter((i) => i.kind === 'key')) {
    const grain = bucketOf(source, item.node, isEventTime)
    if (grain) {
      if (bucket)
        refuse(source, item.node, {
          code: 'WEIR_MODEL_BUCKET',
          message: `The view has two buckets, ${bucket.name} and ${item.name}.`,
          expected: 'at most one',
          next: 'keep the finer one: queries ask for coarser grains',
        })
      columns.add(dataset.eventTime)
      bucket = { name: item.name, grain }
      continue
    }
    const checked = total(check(rows, item.node))
    dimensions.push({ name: item.name, type: dimensionType(source, item, checked.type), tree: keep(checked) })
  }
  const measures: MeasureItem[] = []
  for (const item of items.filter((i) => i.kind === 'measure')) {
    if (isAggregate(item.node)) measures.push({ kind: 'call', name: item.name, call: callOf(item.node) })
    else {
      const used = new Set<number>()
      const checked = check(arithmeticScope(used, new Set([item.name])), item.node)
      const type = storedType(checked.type)
      if (!type)
        refuse(source, item.node, {
          code: 'WEIR_MODEL_TYPE',
          message: `${item.name} would be a ${checked.type.sql}.`,
          expected: 'a number, text, BOOLEAN, DATE or TIMESTAMPTZ',
          next: 'cast it',
        })
      trees.push(checked.tree)
      measures.push({
        kind: 'arithmetic',
        name: item.name,
        tree: trees.length - 1,
        calls: [...used],
        type: type!,
        cast: type !== checked.type.sql,
        guard: checked.partial !== undefined,
      })
    }
  }
  const where = select.where ? keep(total(checkBoolean(rows, select.where))) : null
  if (calls.some((c) => c.measure.names.some((n) => n === 'first' || n === 'last'))) columns.add(dataset.eventTime)
  const firstConstant = trees.length
  const all = [...trees, ...constants]
  return {
    items,
    trees: all,
    bucket,
    dimensions,
    calls,
    measures,
    where,
    columns: dataset.columns.map((c) => c.name).filter((c) => columns.has(c)),
    needsAppendTime,
    leaf,
    expectedTypes: (printed) => [...types].map(([tree, type]) => ({ sql: printed[tree]!, type })),
    constantSql: (printed) => printed.slice(firstConstant),
  }
}

const typeOf = (sql: string): ValueType => {
  const type = valueType(sql)
  if (!type) throw new Error(`compiler: column type ${sql} is not known`)
  return type
}

const notRepeatable = (source: Source, node: Node, name: string): never =>
  refuse(source, node, {
    code: 'WEIR_MODEL_FUNCTION',
    message: `The function ${name} cannot stand in a view.`,
    expected: 'a function that gives the same value for the same event at any time and on any machine',
    next: ADVICE[name]!,
  })

/** Items that name a measure are arithmetic over measures, however long the chain. */
const markArithmetic = (items: Item[], columns: Map<string, unknown>): void => {
  for (let changed = true; changed; ) {
    changed = false
    const measures = new Set(items.filter((i) => i.kind === 'measure').map((i) => i.name.toLowerCase()))
    for (const item of items) {
      if (item.kind === 'measure') continue
      const refers = contains(item.node, (n) => {
        const names = n.class === 'COLUMN_REF' ? (n.column_names as string[]) : []
        const name = names.length === 1 ? names[0]!.toLowerCase() : ''
        return measures.has(name) && !columns.has(name)
      })
      if (refers) {
        item.kind = 'measure'
        changed = true
      }
    }
  }
}

const DIMENSION_KINDS = ['BOOLEAN', 'INTEGER', 'DECIMAL', 'VARCHAR', 'DATE', 'TIMESTAMPTZ', 'UUID']

const dimensionType = (source: Source, item: Item, type: ValueType): ColumnType => {
  if (DIMENSION_KINDS.includes(type.kind) && type.sql !== 'HUGEINT') return type.sql
  const next =
    type.kind === 'DOUBLE' || type.sql === 'HUGEINT'
      ? 'cast it: TRY_CAST(… AS DECIMAL(18,2)), or make classes with floor and a cast to BIGINT'
      : type.kind === 'JSON'
        ? "take text out with ->> '<path>', or cast to VARCHAR"
        : type.kind === 'TIMESTAMP'
          ? 'cast it to DATE or TIMESTAMPTZ'
          : 'cast it'
  return refuse(source, item.node, {
    code: 'WEIR_MODEL_DIMENSION',
    message: `The dimension ${item.name} would be a ${type.sql}, whose equal values are not always grouped alike.`,
    expected: 'BOOLEAN, integers to BIGINT, DECIMAL, VARCHAR, DATE, TIMESTAMPTZ or UUID',
    next,
  })
}

/** Type of a call's value, from a build with placeholders. */
const leafType = (call: Call, dataset: Dataset): ValueType =>
  call.measure.build({
    name: call.name,
    args: call.args.map(({ checked }) => ({ ...argumentOf(checked), sql: 'x' })),
    filter: null,
    eventTime: dataset.eventTime,
  }).value
