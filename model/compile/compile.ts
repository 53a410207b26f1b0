/**
 * Compiles a view: one SELECT over one dataset becomes partial, merge, present and reference SQL.
 * Invariant: what comes out never throws on a decoded row, depends on the rows alone, and gives the same states however the
 * rows are split; whatever cannot promise that is refused with the place, what was expected and what to write instead.
 */
import { createHash } from 'node:crypto'
import type { Dataset } from '../dataset.ts'
import { WeirError } from '../errors.ts'
import { ident } from '../ident.ts'
import type { SqlTools, View } from '../view.ts'
import { assemble } from './assemble.ts'
import { canonicalTree } from './canonical.ts'
import { dissect } from './dissect.ts'
import { printAll } from './print.ts'
import { readSelect } from './select.ts'
import type { Source } from './tree.ts'

/** Bumped by hand when decoding or a measure changes meaning: every view then has a new version. */
export const SEMANTICS = 1

export type ViewSource = { name: string; sql: string; file?: string; dataset: Dataset }

/** Throws a WeirError that teaches: code, file, line, expected, got, next. */
export const compileView = async ({ name, sql, file, dataset }: ViewSource, tools: SqlTools): Promise<View> => {
  const source: Source = { sql, file }
  const select = readSelect(await inFile(file, () => tools.parse(sql)), source, dataset.name)
  const parts = dissect(source, select, dataset)
  const [canonical, printed] = await Promise.all([
    tools.print(canonicalTree(select, parts, dataset)),
    printAll(parts.trees, tools),
  ])
  const view = assemble(name, dataset, parts, printed)
  await inFile(file, () => bind(parts.expectedTypes(printed), parts.constantSql(printed), dataset, tools))
  const used = new Map(dataset.columns.map((c) => [c.name, c.type]))
  const meaning = [
    SEMANTICS,
    name,
    canonical,
    view.columns.map((c) => [c, used.get(c)]),
    dataset.eventTime,
    dataset.id ?? null,
    dataset.dedupeWindowMs ?? null,
  ]
  const version = createHash('sha256').update(JSON.stringify(meaning)).digest('hex').slice(0, 16)
  return { ...view, version, sql: canonical, file }
}

const inFile = async <T>(file: string | undefined, run: () => Promise<T>): Promise<T> => {
  try {
    return await run()
  } catch (error) {
    if (!(error instanceof WeirError) || file === undefined || error.file !== undefined) throw error
    const { code, message, expected, got, next, line, cause } = error
    throw new WeirError({ code, message, expected, got, next, line: line ?? 1, cause, file })
  }
}

/**
 * Lets the engine bind every expression, over an empty table, and evaluate every constant one once. A type that differs
 * from the compiler's own is a bug of the compiler, never of the definition.
 */
const bind = async (
  expressions: { sql: string; type: string }[],
  constants: string[],
  dataset: Dataset,
  tools: SqlTools,
): Promise<void> => {
  const items = expressions.map((e, i) => `${e.sql} AS _e${i}`)
  // Arguments of a table function are evaluated when it is bound.
  const evaluated = constants.map((c) => `(SELECT 1 FROM range(CASE WHEN (${c}) IS NULL THEN 1 ELSE 1 END))`)
  const columns = [
    ...dataset.columns.map((c) => ({ name: c.name, type: c.type })),
    { name: '_append_time', type: 'TIMESTAMPTZ' },
  ]
  if (items.length === 0 && evaluated.length === 0) return
  const sql = `SELECT ${items.length ? items.join(', ') : '1'} FROM ${[ident(dataset.name), ...evaluated].join(', ')}`
  const found = await tools.describe(sql, { [dataset.name]: columns })
  expressions.forEach((e, i) => {
    const got = found[i]!.type
    if (got !== e.type && e.type !== '"NULL"') throw new Error(`compiler: ${e.sql} is ${got}, expected ${e.type}`)
  })
}
