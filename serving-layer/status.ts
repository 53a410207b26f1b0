/**
 * Status: what each dataset and view is at. Invariant: it only reads, and reports what is stored, also when no answer can be
 * given; a part that cannot be read is null with its reason.
 */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { Header } from '../model/ports/speed-store.ts'
import type { ServingContext } from './context.ts'
import { baseOf } from './plan.ts'
import type { Planner } from './planner.ts'

export type PartitionStatus = {
  partition: number
  startOffset: number
  endOffset: number
  /** Next offset that the speed side will read; null: not attached. */
  upper: number | null
  /** End of the lake; null: nothing archived. */
  archived: number | null
  lagRecords: number | null
}

export type DatasetStatus = {
  dataset: string
  logId: string
  /** Records appended, ever. */
  appended: number
  /** Events, as far as the speed side has seen. */
  counted: number
  duplicate: number
  dead: number
  partitions: PartitionStatus[]
}

export type ViewStatus = {
  view: string
  dataset: string
  version: string
  generation: number
  cut: Record<string, number>
  upper: Record<string, number | null>
  lagRecords: number
  lagMs: number
  /** Cells that differed at the last verify; null: not verified yet. */
  drift: number | null
  publishedAt: string | null
  versions: { version: string; state: string }[]
  /** Why no answer can be given now; null: all is well. */
  problem: string | null
}

export type ServingStatus = { datasets: DatasetStatus[]; views: ViewStatus[] }

export const openStatus = (ctx: ServingContext, planner: Planner): (() => Promise<ServingStatus>) => {
  const { log, speed, history } = ctx

  const datasetStatus = async (dataset: Dataset): Promise<DatasetStatus & { headers: Map<number, Header | null> }> => {
    const out: DatasetStatus = {
      dataset: dataset.name,
      logId: '',
      appended: 0,
      counted: 0,
      duplicate: 0,
      dead: 0,
      partitions: [],
    }
    const headers = new Map<number, Header | null>()
    for (const partition of await log.partitions(dataset.name)) {
      const header = await speed.header({ dataset: dataset.name, partition })
      const archived = await history.archived(dataset.name, partition)
      const range = await log.range(dataset.name, partition)
      headers.set(partition, header)
      out.logId = range.logId
      out.appended += range.endOffset
      out.counted += header?.counted ?? 0
      out.duplicate += header?.duplicate ?? 0
      out.dead += header?.dead ?? 0
      out.partitions.push({
        partition,
        startOffset: range.startOffset,
        endOffset: range.endOffset,
        upper: header?.position.offset ?? null,
        archived: archived?.position.offset ?? null,
        lagRecords: header === null ? null : Math.max(0, range.endOffset - header.position.offset),
      })
    }
    return { ...out, headers }
  }

  const viewStatus = async (name: string, datasets: Map<string, DatasetStatus>): Promise<ViewStatus | null> => {
    const view = await planner.active(name).catch((error: unknown) => {
      if (error instanceof WeirError) return null
      throw error
    })
    if (view === null) return null
    const dataset = datasets.get(view.dataset)
    const published = await ctx.publications.current(view.name, view.version)
    const pointer = published === 'dropped' || published === null ? null : published.pointer
    const base = baseOf(pointer)
    const upper: Record<string, number | null> = {}
    const cut: Record<string, number> = {}
    let lagRecords = 0
    let lagMs = 0
    for (const p of dataset?.partitions ?? []) {
      cut[p.partition] = base.cut[String(p.partition)]?.offset ?? 0
      upper[p.partition] = p.upper
      const from = p.upper ?? cut[p.partition]!
      lagRecords += Math.max(0, p.endOffset - from)
      const next = from < p.endOffset ? await log.positionAt(view.dataset, p.partition, from + 1) : null
      if (next !== null) lagMs = Math.max(lagMs, ctx.now() - next.effectiveMs)
    }
    let problem: string | null = null
    try {
      await planner.plan(view, NOTHING, base, (partition) => speed.header({ dataset: view.dataset, partition }))
    } catch (error) {
      if (!(error instanceof WeirError)) throw error
      problem = `${error.code}: ${error.got ?? error.message}`
    }
    return {
      view: view.name,
      dataset: view.dataset,
      version: view.version,
      generation: base.generation,
      cut,
      upper,
      lagRecords,
      lagMs: Math.max(0, Math.round(lagMs)),
      drift: ctx.drift?.(view.name) ?? null,
      publishedAt: pointer?.publishedAt ?? null,
      versions: ctx.versions
        .all()
        .filter((v) => v.view === view.name)
        .map(({ version, state }) => ({ version, state })),
      problem,
    }
  }

  return async () => {
    await ctx.versions.refresh()
    const datasets = new Map<string, DatasetStatus>()
    for (const dataset of ctx.datasets) {
      const { headers: _, ...status } = await datasetStatus(dataset)
      datasets.set(dataset.name, status)
    }
    const views: ViewStatus[] = []
    for (const name of [...new Set(ctx.versions.all().map((v) => v.view))].sort()) {
      const status = await viewStatus(name, datasets)
      if (status !== null) views.push(status)
    }
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
