/**
 * Verify: the speed state of a range of records must equal the batch partials of the same range, cell by cell (DESIGN §10).
 * Invariant: blocks count only when they are exactly those that the header's digest speaks of, and epochs only when they begin and
 * end at the very positions of the range; whatever is not there is "not comparable", never "equal".
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Session } from '../engine/engine.ts'
import { cellColumns, mergeCellsSql, partialSql, unpackSql } from '../model/cells.ts'
import { blockHash, digestOf } from '../model/digest.ts'
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'
import type { Block, Epoch } from '../model/ports/speed-store.ts'
import { type Cut, samePosition } from '../model/position.ts'
import type { View } from '../model/view.ts'
import { archiverOf } from './archiver.ts'
import { type Comparison, compareCells, SAME } from './compare.ts'
import { alarm, type BatchContext, datasetOf } from './context.ts'
import { lakeCut } from './cuts.ts'

export type Verified = Comparison & {
  /** Partition → offsets `[from, to)` that were compared. */
  ranges: Record<string, { from: number; to: number }>
  /** Partition → why it was not compared. */
  skipped: Record<string, string>
}

const READS = 5

const whole = (blocks: Block[], epoch: Epoch): boolean =>
  blocks.length === epoch.blocks &&
  blocks.every((b) => blockHash(b.id, b.bytes) === b.hash) &&
  digestOf(blocks.map((b) => b.hash)) === epoch.digest

/** Blocks of the epochs that cover a range exactly; text: why there are none. */
const speedBlocks = async (
  ctx: BatchContext,
  view: View,
  partition: number,
  pick: (epochs: Epoch[]) => Epoch[] | string,
): Promise<{ epochs: Epoch[]; blocks: Block[] } | string> => {
  const key = { dataset: view.dataset, partition }
  let why = 'the blocks do not fit their header'
  // The open epoch moves while it is read: look again.
  for (let read = 0; read < READS; read++) {
    const header = await ctx.speed.header(key)
    const own = header?.views[view.version]
    if (!own) return 'there is no speed state'
    const epochs = pick(own.epochs)
    if (typeof epochs === 'string') return epochs
    const all: Block[] = []
    let fits = true
    for (const epoch of epochs) {
      const blocks = await ctx.speed.blocks(key, view.version, epoch.from)
      if (!whole(blocks, epoch)) fits = false
      all.push(...blocks)
    }
    if (fits) return { epochs, blocks: all }
    why = `the blocks of an epoch do not fit its digest (${read + 1} reads)`
  }
  return why
}

/** Epochs that run from one position to the other without a gap, or why not. */
const covering =
  (from: Cut[string], to: Cut[string]) =>
  (epochs: Epoch[]): Epoch[] | string => {
    const found: Epoch[] = []
    let at = from
    for (const epoch of epochs) {
      if (epoch.from.offset < from.offset) continue
      if (samePosition(at, to)) break
      if (!samePosition(epoch.from, at) || epoch.to.offset > to.offset) return 'no epochs join at these positions'
      found.push(epoch)
      at = epoch.to
    }
    return samePosition(at, to) ? found : 'the epochs do not reach the end of the range'
  }

/** Bytes of the longest line in blocks, rounded up. */
const longestLine = (blocks: Block[]): number => {
  let longest = 65_536
  for (const { bytes } of blocks) {
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(10, start)
      const next = end < 0 ? bytes.length : end + 1
      longest = Math.max(longest, next - start + 1)
      start = next
    }
  }
  return longest
}

/** Calls `use` with the merged cells of packed blocks, usable after FROM as often as it likes. */
const withCells = async <T>(
  ctx: BatchContext,
  view: View,
  blocks: Block[],
  use: (source: string) => Promise<T>,
): Promise<T> => {
  const file = join(ctx.engine.scratchDir, `verify_${serial++}.ndjson`)
  try {
    await writeFile(file, Buffer.concat(blocks.map((b) => b.bytes)))
    const list = cellColumns(view).map((c) => `CAST(${ident(c.name)} AS ${c.type}) AS ${ident(c.name)}`)
    const cells = mergeCellsSql(view, `(${unpackSql(view, file, longestLine(blocks))})`)
    return await use(`(SELECT ${list.join(', ')} FROM (${cells}))`)
  } finally {
    await rm(file, { force: true })
  }
}

let serial = 0

/**
 * Compares over `[from, to)`, both with the lake's positions. `partials`: a table with the batch's cells of the whole range, used when
 * every partition can be compared; else they are computed for those that can.
 */
export const verifyRange = async (
  ctx: BatchContext,
  session: Session,
  view: View,
  from: Cut,
  to: Cut,
  partials?: string,
): Promise<Verified> => {
  const out: Verified = { ...SAME, ranges: {}, skipped: {} }
  const blocks: Block[] = []
  const [low, high]: [Cut, Cut] = [{}, {}]
  for (const [p, end] of Object.entries(to)) {
    const start = from[p]
    if (start === undefined || samePosition(start, end)) continue
    const found = await speedBlocks(ctx, view, Number(p), covering(start, end))
    if (typeof found === 'string') {
      out.skipped[p] = found
      continue
    }
    blocks.push(...found.blocks)
    low[p] = start
    high[p] = end
    out.ranges[p] = { from: start.offset, to: end.offset }
  }
  if (Object.keys(high).length === 0) return out
  let batch = partials
  if (batch === undefined || Object.keys(out.skipped).length > 0) {
    const scan = await ctx.lake.scan(datasetOf(ctx, view.dataset), { from: low, below: high })
    batch = `(${partialSql(view, scan.sql)})`
  }
  const source = batch
  return withCells(ctx, view, blocks, async (cells) => ({
    ...out,
    ...(await compareCells(session, view, source, cells)),
  }))
}

/** Raises the alarm for cells that differ; the metric is the caller's. */
export const reportDrift = (ctx: BatchContext, view: View, verified: Comparison, what: string): void => {
  if (verified.differing === 0) return
  alarm(
    ctx,
    new WeirError({
      code: 'WEIR_BATCH_DRIFT',
      message: `${verified.differing} cells of ${view.name} differ: ${what}.`,
      expected: 'equal cells in both',
      got: JSON.stringify(verified.cells[0] ?? null),
      next: `run: weir batch verify ${view.name}; then: weir batch recompute ${view.name}`,
    }),
  )
}

/**
 * On demand: archives up to where the speed side is, then compares every epoch that the speed store still holds with the lake.
 * Throws WEIR_BATCH_ARCHIVER_STOPPED when the log does not continue the lake.
 */
export const verify = async (ctx: BatchContext, view: View): Promise<Verified> => {
  const [from, to]: [Cut, Cut] = [{}, {}]
  const skipped: Record<string, string> = {}
  for (const partition of await ctx.log.partitions(view.dataset)) {
    const p = String(partition)
    const header = await ctx.speed.header({ dataset: view.dataset, partition })
    const epochs = header?.views[view.version]?.epochs
    if (header === null || epochs === undefined || epochs.length === 0) {
      skipped[p] = 'there is no speed state'
      continue
    }
    const archiver = archiverOf(ctx, view.dataset)
    const want = header.position.offset
    while ((await archiver.step(partition, { upTo: want })) === 'archived');
    const stopped = archiver.state(partition).stopped
    if (stopped) throw stopped
    const archived = (await ctx.history.archived(view.dataset, partition))?.position.offset ?? 0
    const last = epochs.findLast((e) => e.to.offset <= archived)
    const range = last && { [p]: { from: epochs[0]!.from, to: last.to } }
    if (!range) {
      skipped[p] = 'the log ends before the speed state does'
      continue
    }
    const own = await lakeCut(ctx, view, { [p]: last.to })
    const ownFrom = await lakeCut(ctx, view, { [p]: epochs[0]!.from })
    if (own === null || ownFrom === null) {
      skipped[p] = 'the speed state is of another history than the lake'
      continue
    }
    from[p] = ownFrom[p]!
    to[p] = own[p]!
  }
  const verified = await ctx.engine.withSession((session) => verifyRange(ctx, session, view, from, to))
  reportDrift(ctx, view, verified, 'the speed state and the lake over the same records')
  return { ...verified, skipped: { ...skipped, ...verified.skipped } }
}
