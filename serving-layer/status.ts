/**
 * Status: what each dataset and view is at. Invariant: it only reads, and reports what is stored, also when no answer can be
 * given; then `problem` says why.
 */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { Header } from '../model/ports/speed-store.ts'
import { genesis, type Position } from '../model/position.ts'
import type { View } from '../model/view.ts'
import type { ServingContext } from './context.ts'
import { baseOf } from './plan.ts'
import type { Planner } from './planner.ts'

export type PartitionStatus = {
  partition: number
  startOffset: number
  /** Below it no record ever was the dataset's; 0 unless the topic had lost its start before. */
  originOffset: number
  endOffset: number
  /** Next offset that the speed side will read; null: not attached. */
  upper: number | null
  /** End of the lake; null: nothing archived. */
  archived: number | null
  lagRecords: number | null
}

export type DatasetStatus = {
  name: string
  logId: string
  /** Events in the log. Null: more than can be counted on the way lie beyond the speed side. */
  appended: number | null
  records: number
  /** Events, as far as the speed side has seen. */
  counted: number
  duplicate: number
  dead: number
  partitions: PartitionStatus[]
}

export type ViewStatus = {
  name: string
  dataset: string
  version: string | null
  generation: string | null
  cut: Record<string, string> | null
  upper: Record<string, string> | null
  lag: { records: number; ms: number } | null
  /** Cells that differed at the last comparison; null: not compared yet. */
  drift: number | null
  publishedAt: string | null
  versions: { version: string; state: string }[]
  /** Why no answer can be given now; null: all is well. */
  problem: string | null
}

export type ServingStatus = { datasets: DatasetStatus[]; views: ViewStatus[] }

/** Records beyond the speed side are counted by reading them, up to this many bytes of a partition. */
const COUNT_BYTES = 64 * 1024 * 1024
const READ_BYTES = 4 * 1024 * 1024

export const openStatus = (ctx: ServingContext, planner: Planner): (() => Promise<ServingStatus>) => {
  const { log, speed, history } = ctx

  /** Events in records from a position to the log's end; null when they are too many, or the log is another one. */
  const eventsAfter = async (dataset: string, partition: number, from: Position): Promise<number | null> => {
    let at = from
    let events = 0
    for (let bytes = 0; bytes < COUNT_BYTES; ) {
      const result = await log.read(dataset, partition, at, { maxBytes: READ_BYTES })
      if (result.kind !== 'records') return null
      if (result.records.length === 0) return events
      for (const record of result.records) {
        events += record.events
        bytes += record.bytes.byteLength
      }
      at = result.to
    }
    return null
  }

  const datasetStatus = async (dataset: Dataset): Promise<DatasetStatus> => {
    const out: DatasetStatus = {
      name: dataset.name,
      logId: '',
      appended: 0,
      records: 0,
      counted: 0,
      duplicate: 0,
      dead: 0,
      partitions: [],
    }
    for (const partition of await log.partitions(dataset.name)) {
      const header: Header | null = await speed.header({ dataset: dataset.name, partition })
      const archived = await history.archived(dataset.name, partition)
      const range = await log.range(dataset.name, partition)
      out.logId = range.logId
      const origin = range.originOffset ?? 0
      out.records += Math.max(0, range.endOffset - origin)
      out.counted += header?.counted ?? 0
      out.duplicate += header?.duplicate ?? 0
      out.dead += header?.dead ?? 0
      const seen = header === null ? 0 : header.counted + header.duplicate + header.dead
      const from = header?.position ?? genesis(range.logId)
      const later = range.events === undefined ? await eventsAfter(dataset.name, partition, from) : 0
      const own = range.events ?? (later === null ? null : seen + later)
      out.appended = out.appended === null || own === null ? null : out.appended + own
      out.partitions.push({
        partition,
        startOffset: range.startOffset,
        originOffset: origin,
        endOffset: range.endOffset,
        upper: header?.position.offset ?? null,
        archived: archived?.position.offset ?? null,
        lagRecords: header === null ? null : Math.max(0, range.endOffset - Math.max(header.position.offset, origin)),
      })
    }
    return out
  }

  /** Why a query would be refused now. */
  const problemOf = async (view: View, base: ReturnType<typeof baseOf>): Promise<string | null> => {
    try {
      await planner.plan(view, NOTHING, base, (partition) => speed.header({ dataset: view.dataset, partition }))
      return null
    } catch (error) {
      if (!(error instanceof WeirError)) throw error
      return `${error.code}: ${error.got ?? error.message}`
    }
  }

  const viewStatus = async (name: string, datasets: Map<string, DatasetStatus>): Promise<ViewStatus> => {
    const infos = ctx.versions.all().filter((v) => v.view === name)
    const versions = infos.map(({ version, state }) => ({ version, state }))
    const view = ctx.versions.active(name)
    const drift = ctx.drift?.(name) ?? null
    if (view === null) {
      const dataset = infos.find((v) => v.compiled !== null)?.compiled?.dataset ?? ''
      const none = { version: null, generation: null, cut: null, upper: null, lag: null, publishedAt: null }
      return { name, dataset, ...none, drift, versions, problem: 'no version serves' }
    }
    const published = await ctx.publications.current(view.name, view.version)
    const pointer = published === 'dropped' || published === null ? null : published.pointer
    const base = baseOf(pointer)
    const upper: Record<string, string> = {}
    const cut: Record<string, string> = {}
    const lag = { records: 0, ms: 0 }
    for (const p of datasets.get(view.dataset)?.partitions ?? []) {
      const own = base.cut[String(p.partition)]?.offset ?? 0
      const from = p.upper ?? own
      cut[p.partition] = String(own)
      upper[p.partition] = String(from)
      const seen = Math.max(from, p.originOffset)
      lag.records += Math.max(0, p.endOffset - seen)
      const next = seen < p.endOffset ? await log.positionAt(view.dataset, p.partition, seen + 1) : null
      if (next !== null) lag.ms = Math.max(lag.ms, Math.round(ctx.now() - next.effectiveMs))
    }
    return {
      name,
      dataset: view.dataset,
      version: view.version,
      generation: String(base.generation),
      cut,
      upper,
      lag,
      drift,
      publishedAt: pointer?.publishedAt ?? null,
      versions,
      problem: await problemOf(view, base),
    }
  }

  return async () => {
    await ctx.versions.refresh()
    const datasets = new Map<string, DatasetStatus>()
    for (const dataset of ctx.datasets) datasets.set(dataset.name, await datasetStatus(dataset))
    const views: ViewStatus[] = []
    for (const name of [...new Set(ctx.versions.all().map((v) => v.view))].sort())
      views.push(await viewStatus(name, datasets))
    return { datasets: [...datasets.values()], views }
  }
}

/** A query that only joins: no files are looked at. */
const NOTHING = {
  view: '',
  version: '',
  measures: [],
  dimensions: [],
  bucket: null,
  range: { fromUs: null, toUs: null },
  filters: [],
  orderBy: [],
  limit: 1,
  fill: false,
  previous: null,
}
