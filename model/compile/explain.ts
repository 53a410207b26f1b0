/** What a view means, as SQL that people can run: `weir check --reference` prints it. */
import { mergeCellsSql, partialSql } from '../cells.ts'
import { ident } from '../ident.ts'
import type { ResolvedQuery } from '../query/query.ts'
import type { View } from '../view.ts'
import { referenceSql } from './reference.ts'

export type ViewExplanation = {
  /** The view in its one spelling. */
  sql: string
  version: string
  /** Decoded rows (`events`) → cells. */
  partial: string
  /** Cells with equal keys (`cells`) → one cell. */
  merge: string
  /** Merged cells (`merged`) → answer columns. */
  present: string
  /** Decoded rows → all of the view, in one pass. */
  reference: string
}

/** The query for all of a view: every measure and dimension at its own grain. */
export const wholeQuery = (view: View): ResolvedQuery => ({
  view: view.name,
  version: view.version,
  measures: view.measures.map((m) => m.name),
  dimensions: view.dimensions.map((d) => d.name),
  bucket:
    view.bucket === null
      ? null
      : { name: view.bucket.name, grain: ownGrain(view.bucket.grain), timeZone: 'UTC', hop: null },
  range: { fromUs: null, toUs: null },
  filters: [],
  orderBy: [],
  limit: null,
  fill: false,
  previous: null,
})

const ownGrain = ({
  us,
  months,
}: NonNullable<View['bucket']>['grain']): NonNullable<ResolvedQuery['bucket']>['grain'] =>
  us === null
    ? { unit: 'month', n: months! }
    : us % 86_400_000_000n === 0n
      ? { unit: 'day', n: Number(us / 86_400_000_000n) }
      : { unit: 'second', n: Number(us / 1_000_000n) }

export const explainView = (view: View): ViewExplanation => {
  const columns = [
    ...(view.bucket === null ? [] : [`_bucket AS ${ident(view.bucket.name)}`]),
    ...view.dimensions.map((d) => ident(d.name)),
    ...view.measures.map((m) => `${m.present} AS ${ident(m.name)}`),
  ]
  return {
    sql: view.sql,
    version: view.version,
    partial: partialSql(view, 'events'),
    merge: mergeCellsSql(view, 'cells'),
    present: `SELECT ${columns.join(', ')} FROM merged`,
    reference: referenceSql(view, wholeQuery(view), 'events'),
  }
}
