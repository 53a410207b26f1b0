/** Puts a view together from checked parts and their printed text. Invariant: equal states are one state. */
import type { Dataset } from '../dataset.ts'
import { ident } from '../ident.ts'
import type { BuiltMeasure } from '../measures/measure.ts'
import type { StateColumn, View, ViewMeasure } from '../view.ts'
import { bucketSql } from './bucket.ts'
import { argumentOf } from './calls.ts'
import type { Parts } from './dissect.ts'

export const assemble = (name: string, dataset: Dataset, parts: Parts, printed: string[]): View => {
  const eventTime = ident(dataset.eventTime)
  const states: StateColumn[] = []
  const built = parts.calls.map((call): { measure: BuiltMeasure; columns: string[] } => {
    const measure = call.measure.build({
      name: call.name,
      args: call.args.map(({ checked, tree }) => ({ ...argumentOf(checked), sql: printed[tree]! })),
      filter: call.filter === null ? null : printed[call.filter]!,
      eventTime,
    })
    const columns = measure.states.map((spec) => {
      const known = states.find((s) => s.type === spec.type && s.partial === spec.partial)
      if (known) return known.name
      const column = `_s${states.length}`
      states.push({
        name: column,
        type: spec.type,
        partial: spec.partial,
        merge: spec.merge(column),
        heavy: spec.heavy,
      })
      return column
    })
    return { measure, columns }
  })
  const presented = (call: number): string => built[call]!.measure.present(built[call]!.columns)
  const sqlType = (type: string): string => (type === 'COUNT' ? 'BIGINT' : type)
  const measures = parts.measures.map((item): ViewMeasure => {
    if (item.kind === 'call') {
      const { measure, columns } = built[item.call]!
      return {
        name: item.name,
        type: measure.type,
        approximate: measure.approximate !== null,
        states: columns,
        present: presented(item.call),
        reference: measure.reference,
      }
    }
    const fill = (value: (call: number) => string): string => {
      const body = item.calls.reduce((sql, c) => sql.replaceAll(parts.leaf(c), value(c)), printed[item.tree]!)
      const typed = item.cast ? `CAST(${body} AS ${item.type})` : body
      return item.guard ? `TRY(${typed})` : typed
    }
    const typedAs = (call: number, sql: string): string => `CAST(${sql} AS ${sqlType(built[call]!.measure.type)})`
    const fields = item.calls.map((c) => `_a${c} := ${typedAs(c, built[c]!.measure.reference)}`)
    return {
      name: item.name,
      type: item.type,
      approximate: item.calls.some((c) => built[c]!.measure.approximate !== null),
      states: [...new Set(item.calls.flatMap((c) => built[c]!.columns))],
      present: fill((c) => typedAs(c, presented(c))),
      // TRY takes no aggregates: they are computed first, and the expression sees their values.
      reference: `list_transform([struct_pack(${fields.join(', ')})], lambda _lt: ${fill((c) => `_lt._a${c}`)})[1]`,
    }
  })
  return {
    name,
    dataset: dataset.name,
    version: '',
    sql: '',
    bucket: parts.bucket && {
      ...parts.bucket,
      sql: bucketSql(parts.bucket.grain, eventTime),
      column: dataset.eventTime,
    },
    dimensions: parts.dimensions.map((d) => ({ name: d.name, type: d.type, sql: printed[d.tree]! })),
    states,
    measures,
    where: parts.where === null ? null : printed[parts.where]!,
    columns: parts.columns,
    needsPosition: built.some((b) => b.measure.needsPosition),
    needsAppendTime: parts.needsAppendTime,
  }
}
