/**
 * One range of records into the lake: decoded, with verdicts, dead letters first, then the events' commit.
 * Invariant: counted + duplicate + dead grows by the range's events, and what is written is a function of the log alone.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { decodeBatch } from '../engine/decode.ts'
import { findDuplicates } from '../engine/duplicates.ts'
import type { Session } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import type { Seen, SeenChange } from '../model/decode/seen.ts'
import { ident, literal } from '../model/ident.ts'
import type { Archived } from '../model/ports/history.ts'
import type { BatchContext } from './context.ts'
import type { Slice } from './pending.ts'

let serial = 0

export type SliceOutcome = { outcome: 'archived' | 'stale'; change: SeenChange }

export const archiveSlice = (
  ctx: BatchContext,
  dataset: Dataset,
  partition: number,
  slice: Slice,
  before: Archived | null,
  seen: Seen,
): Promise<SliceOutcome> =>
  ctx.engine.withSession(async (session) => {
    const table = `archive_${serial++}`
    const decoded = `${table}_decoded`
    const { records, effectiveMs } = slice
    const { rows, dead } = await decodeBatch(ctx.engine, session, dataset, records, {
      table: decoded,
      extra: true,
      positions: { partition, offsets: records.map((r) => r.offset), effectiveMs },
    })
    const duplicates = await findDuplicates(
      session,
      dataset,
      decoded,
      records.map((r, i) => ({ recordId: r.recordId, effectiveMs: effectiveMs[i]! })),
      seen,
    )
    const names = `${table}_names`
    const marks = `${table}_marks`
    try {
      await load(
        ctx,
        session,
        names,
        { record: 'BIGINT', record_id: 'VARCHAR', fingerprint: 'VARCHAR' },
        records.map((r, i) => `${i},${r.recordId},${r.fingerprint}`),
      )
      await load(ctx, session, marks, { row: 'BIGINT' }, duplicates.rows.map(String))
      // Joined while it is written: a table of the result would be a second copy of every event.
      const [mark, marked] =
        duplicates.rows.length === 0
          ? ['false', '']
          : [`m."row" IS NOT NULL`, ` LEFT JOIN ${marks} m ON m."row" = d._row`]
      const source = `(SELECT d.*, n.record_id AS _record_id, n.fingerprint AS _fingerprint, ${mark} AS _duplicate
         FROM ${decoded} d JOIN ${names} n ON n.record = d._record${marked})`
      await ctx.lake.dead(dataset).append({
        partition,
        logId: slice.to.logId,
        to: slice.to.offset,
        letters: dead.map((d) => {
          const record = records[d.record]!
          return {
            offset: record.offset,
            index: d.index,
            effectiveMs: effectiveMs[d.record]!,
            code: d.code,
            column: d.column,
            expected: d.expected,
            got: d.got,
            raw: d.raw,
            recordId: record.recordId,
            fingerprint: record.fingerprint,
          }
        }),
      })
      const outcome = await ctx.lake.events(dataset).append({
        partition,
        from: slice.from,
        to: slice.to,
        counted: (before?.counted ?? 0) + rows - duplicates.rows.length,
        duplicate: (before?.duplicate ?? 0) + duplicates.rows.length,
        dead: (before?.dead ?? 0) + dead.length,
        table: source,
        session,
      })
      return { outcome, change: duplicates.change }
    } finally {
      for (const name of [decoded, names, marks]) await session.run(`DROP TABLE IF EXISTS ${name}`)
    }
  })

/** Lines of numbers and hex digits as a table: by way of a file, since a list of values of that length is slow to parse. */
const load = async (
  ctx: BatchContext,
  session: Session,
  table: string,
  columns: Record<string, string>,
  lines: string[],
): Promise<void> => {
  const list = Object.entries(columns)
  if (lines.length === 0) {
    await session.run(`CREATE TEMP TABLE ${table} (${list.map(([name, type]) => `${ident(name)} ${type}`).join(', ')})`)
    return
  }
  const file = join(ctx.engine.scratchDir, `${table}.csv`)
  const spec = list.map(([name, type]) => `${literal(name)}: ${literal(type)}`).join(', ')
  try {
    await writeFile(file, `${lines.join('\n')}\n`)
    await session.run(
      `CREATE TEMP TABLE ${table} AS FROM read_csv(${literal(file)}, header = false, delim = ',', quote = '', escape = '', auto_detect = false, columns = {${spec}})`,
    )
  } finally {
    await rm(file, { force: true })
  }
}
