/**
 * The decoded, counted rows of all records below an upper: from the lake as far as it reaches, then from the log with verdicts.
 * Invariant: each record below the upper comes from exactly one of the two, and both are of the history that the upper names.
 */
import { decodeBatch } from '../engine/decode.ts'
import { findDuplicates } from '../engine/duplicates.ts'
import type { Session } from '../engine/engine.ts'
import { rebuildSeen } from '../engine/rebuild-seen.ts'
import { scanColumns } from '../lake/events-schema.ts'
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'
import { type Cut, genesis, type Position, samePosition } from '../model/position.ts'
import type { BatchContext } from './context.ts'
import { emptyPending, fill, sliceOf } from './pending.ts'

const READ_BYTES = 16 * 1024 * 1024
let serial = 0

/**
 * Creates `table` in the session: declared columns (or only the named ones), `_partition`, `_offset`, `_index`, `_append_time`.
 * Throws WEIR_BATCH_HISTORY when the upper is of another history than lake and log, or beyond the log.
 */
export const countedRows = async (
  ctx: BatchContext,
  session: Session,
  dataset: Dataset,
  upper: Cut,
  table: string,
  wanted?: string[],
): Promise<number> => {
  const names = scanColumns(dataset)
    .map((c) => c.name)
    .filter((name) => wanted === undefined || name.startsWith('_') || wanted.includes(name))
  const list = names.map(ident).join(', ')
  const below: Cut = {}
  const rest: { partition: number; from: Position; to: Position }[] = []
  for (const [p, to] of Object.entries(upper)) {
    const partition = Number(p)
    const archived = (await ctx.history.archived(dataset.name, partition))?.position ?? genesis(to.logId)
    if (to.offset > archived.offset) {
      below[p] = archived
      rest.push({ partition, from: archived, to })
      continue
    }
    below[p] = to
    const own = to.offset === 0 ? to : await ctx.history.positionAt(dataset.name, partition, to.offset)
    if (own === null || !samePosition(own, to)) throw otherHistory(dataset, partition, to, own)
  }
  const scan = await ctx.lake.scan(dataset, { below })
  await session.run(`CREATE OR REPLACE TEMP TABLE ${ident(table)} AS SELECT ${list} FROM ${scan.sql}`)
  for (const { partition, from, to } of rest) await fromLog(ctx, session, dataset, partition, from, to, table, list)
  const [row] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${ident(table)}`)
  return Number(row!.n)
}

const fromLog = async (
  ctx: BatchContext,
  session: Session,
  dataset: Dataset,
  partition: number,
  from: Position,
  to: Position,
  table: string,
  list: string,
): Promise<void> => {
  const batch = `counted_${serial++}`
  const seen = await rebuildSeen(ctx, dataset, partition, from, ctx.settings.speed.seenIds)
  let at = from
  while (at.offset < to.offset) {
    const pending = emptyPending(at)
    const read = await fill(ctx.log, dataset.name, partition, pending, {
      maxBytes: READ_BYTES,
      upTo: to.offset,
      nowMs: 0,
    })
    const slice = sliceOf(pending, to.offset)
    if (read.kind !== 'filled' || slice.to.offset === at.offset) throw otherHistory(dataset, partition, to, null)
    const { records, effectiveMs } = slice
    await decodeBatch(ctx.engine, session, dataset, records, {
      table: batch,
      positions: { partition, offsets: records.map((r) => r.offset), effectiveMs },
    })
    const found = await findDuplicates(
      session,
      dataset,
      batch,
      records.map((r, i) => ({ recordId: r.recordId, effectiveMs: effectiveMs[i]! })),
      seen,
    )
    await session.run(
      `INSERT INTO ${ident(table)} BY NAME SELECT ${list} FROM ${batch} ANTI JOIN (SELECT unnest([${found.rows.join(', ')}]::BIGINT[]) AS _row) USING (_row)`,
    )
    seen.accept(found.change, slice.to)
    at = slice.to
  }
  await session.run(`DROP TABLE IF EXISTS ${batch}`)
  if (!samePosition(at, to)) throw otherHistory(dataset, partition, to, at)
}

const otherHistory = (dataset: Dataset, partition: number, to: Position, got: Position | null): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_HISTORY',
    message: `Lake and log of ${dataset.name}, partition ${partition}, have no position ${to.offset} as it was asked for.`,
    expected: `fingerprint ${to.fingerprint} in log ${to.logId}`,
    got: got === null ? 'no such position' : `fingerprint ${got.fingerprint} in log ${got.logId}`,
    next: 'ask again: the speed side is rebuilt when the log was replaced; if it repeats, see the alarms of the partition',
    retryable: true,
  })
