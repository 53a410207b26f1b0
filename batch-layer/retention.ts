/**
 * Retention of the log. Invariant: nothing is removed that is not archived, nor anything at or after the published cut of a version
 * that is fed (rule 12); what is older than `log.retention` by append time goes, and nothing else.
 */
import { parseDuration } from '../model/durations.ts'
import type { EventLog } from '../model/ports/event-log.ts'
import type { BatchContext } from './context.ts'

/** First offset of each partition that must stay whatever its age: min(archived, published cuts of all fed versions). */
export const retentionFloor = async (ctx: BatchContext, dataset: string): Promise<Record<string, number>> => {
  await ctx.versions.refresh()
  const floor: Record<string, number> = {}
  for (const partition of await ctx.log.partitions(dataset))
    floor[String(partition)] = (await ctx.history.archived(dataset, partition))?.position.offset ?? 0
  for (const view of ctx.versions.fed(dataset)) {
    const published = await ctx.publications.current(view.name, view.version)
    if (published === 'dropped') continue
    for (const p of Object.keys(floor)) floor[p] = Math.min(floor[p]!, published?.pointer.cut[p]?.offset ?? 0)
  }
  return floor
}

/** Greatest offset ≤ `floor` whose record before it was appended (effectively) at or before `beforeMs`. */
const oldEnough = async (
  log: EventLog,
  dataset: string,
  partition: number,
  floor: number,
  beforeMs: number,
): Promise<number> => {
  const { startOffset } = await log.range(dataset, partition)
  // Effective append times never step back, so halving finds the place.
  let [low, high] = [startOffset, floor]
  while (low < high) {
    const middle = Math.floor((low + high + 1) / 2)
    const at = await log.positionAt(dataset, partition, middle)
    if (at !== null && at.effectiveMs <= beforeMs) low = middle
    else high = middle - 1
  }
  return low
}

/** Trims each partition of a dataset's log; the offsets it was trimmed to. */
export const applyRetention = async (ctx: BatchContext, of: { name: string }): Promise<Record<string, number>> => {
  const dataset = of.name
  const { retention } = ctx.settings.log
  if (retention === 'forever') return {}
  const keepMs = parseDuration(retention) ?? Number.POSITIVE_INFINITY
  const out: Record<string, number> = {}
  for (const [p, floor] of Object.entries(await retentionFloor(ctx, dataset))) {
    const offset = await oldEnough(ctx.log, dataset, Number(p), floor, ctx.now() - keepMs)
    const { startOffset } = await ctx.log.range(dataset, Number(p))
    if (offset <= startOffset) continue
    await ctx.log.trim(dataset, Number(p), offset)
    out[p] = offset
  }
  return out
}
