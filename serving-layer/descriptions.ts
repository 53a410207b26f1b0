/** Definitions and plans as JSON. Invariant: what a client needs to write a query, and no SQL of the inside but on demand. */
import type { Dataset } from '../model/dataset.ts'
import { offsetsOf } from '../model/position.ts'
import { grainText } from '../model/query/grain.ts'
import { formatTime } from '../model/query/time.ts'
import type { Versions } from '../model/versions.ts'
import type { Explained } from './answers.ts'
import { cutOf, upperOf } from './plan.ts'

export const viewJson = (versions: Versions, name: string) => {
  const all = versions.all().filter((v) => v.view === name)
  const view = versions.active(name)
  return {
    name,
    dataset: view?.dataset ?? null,
    version: view?.version ?? null,
    sql: view?.sql ?? null,
    bucket: view?.bucket ? { name: view.bucket.name, grain: grainText(view) } : null,
    dimensions: (view?.dimensions ?? []).map(({ name: column, type }) => ({ name: column, type })),
    measures: (view?.measures ?? []).map(({ name: measure, type, approximate }) => ({
      name: measure,
      type,
      ...(approximate ? { approximate } : {}),
    })),
    versions: all.map(({ version, state }) => ({ version, state })),
  }
}

export const datasetJson = (d: Dataset) => ({
  name: d.name,
  eventTime: d.eventTime,
  id: d.id ?? null,
  key: d.key ?? d.id ?? null,
  dedupeWindowMs: d.dedupeWindowMs ?? null,
  extra: d.extra,
  partitions: d.partitions,
  columns: d.columns.map(({ name, type, unit, required, description }) => ({
    name,
    type,
    unit,
    required,
    description,
  })),
})

/** A plan as people read it. */
export const explainedJson = ({ plan, query, sql, asOf }: Explained) => ({
  view: plan.view,
  version: plan.version,
  generation: String(plan.generation),
  asOf,
  cut: offsetsOf(cutOf(plan)),
  upper: offsetsOf(upperOf(plan)),
  partitions: plan.partitions.map((p) => ({
    partition: p.partition,
    cut: p.cut.offset,
    upper: p.upper.offset,
    logEndOffset: p.logEndOffset,
    epochs: p.epochs.map((e) => ({ from: e.from.offset, to: e.to.offset, blocks: e.blocks })),
  })),
  files: plan.files.map(({ key, part, rows, size }) => ({ key, part, rows, size })),
  prunedFiles: plan.pruned,
  limits: plan.limits,
  query: JSON.parse(
    JSON.stringify(query, (key, value) => {
      if (typeof value !== 'bigint') return value as unknown
      return key === 'fromUs' || key === 'toUs' ? formatTime(value) : String(value)
    }),
  ) as unknown,
  sql,
})
