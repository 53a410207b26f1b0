/**
 * How much of one measure comes from the batch side, for people who want to see both layers at work.
 * Invariant: it reads the very generation that an answer names, or says nothing.
 */
import { cellsOf } from '../batch-layer/parts.ts'
import { mergeCellsSql } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { Answer } from '../model/query/query.ts'
import type { View } from '../model/view.ts'
import type { Ports } from './ports.ts'

/** The measure over batch cells whose bucket starts at or after `fromIso`; null when the generation has moved on. */
export const batchShare = async (
  ports: Ports,
  view: View,
  measure: string,
  answer: Answer,
  fromIso: string,
): Promise<number | null> => {
  if (answer.asOf.generation === '0') return 0
  const current = await ports.publications.current(view.name, view.version)
  if (current === null || current === 'dropped' || String(current.pointer.generation) !== answer.asOf.generation)
    return null
  const found = view.measures.find((m) => m.name === measure)
  if (!found || !view.bucket) return null
  const { store } = ports
  const day = fromIso.slice(0, 10)
  const files = current.pointer.files.filter((f) => !/^\d{4}-/.test(f.part) || f.part >= day)
  if (files.length === 0) return 0
  const cells = await cellsOf(store, view, files)
  const whole = mergeCellsSql(
    { ...view, bucket: null, dimensions: [] },
    `(SELECT * FROM ${cells} WHERE _bucket >= TIMESTAMPTZ ${literal(fromIso)})`,
  )
  const rows = await ports
    .of('serving')
    .engine.withSession((s) =>
      s.rows<{ v: string | null }>(`SELECT (${found.present})::VARCHAR AS v FROM (${whole}) AS ${ident('cells')}`),
    )
  return Number(rows[0]?.v ?? 0)
}
