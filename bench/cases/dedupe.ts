/** De-duplication with many live ids: what a batch's verdicts cost when the map is nearly empty, and when it is full of ids. */

import { findDuplicates } from '../../engine/duplicates.ts'
import { openEngine } from '../../engine/engine.ts'
import { createSeen } from '../../model/decode/seen.ts'
import { genesis } from '../../model/position.ts'
import type { Case, Env, Measured, Row } from '../harness/case.ts'
import { figuresOf, median } from '../harness/case.ts'
import { measured, residentBytes } from '../harness/cpu.ts'
import { compileProject } from '../project.ts'

/** Events of a batch: 8 MiB of them. */
const BATCH = 46_000
const BATCHES = 20

const run =
  (live: (env: Env) => number) =>
  async (env: Env): Promise<Measured> => {
    const engine = await openEngine({ memoryLimit: '1GB', threads: 1 })
    try {
      const { datasets } = await compileProject('stream-deduped', engine)
      const dataset = datasets[0]!
      const ids = live(env)
      const before = residentBytes(process.pid).get(process.pid) ?? 0
      const position = genesis('bench')
      const seen = createSeen(position, { capacity: ids + (BATCHES + 2) * BATCH, windowMs: 3_600_000 })
      const session = await engine.session()
      let record = 0
      let duplicates = 0
      /** One batch of ids; every hundredth comes from `again` events before. */
      const batch = async (from: number, size: number, again: number): Promise<void> => {
        const id = again > 0 ? `CASE WHEN i % 100 = 0 AND i >= ${again} THEN i - ${again} ELSE i END` : 'i'
        await session.run(
          `CREATE OR REPLACE TEMP TABLE ids AS SELECT (i - ${from})::BIGINT AS _row, 0::BIGINT AS _record, printf('%016x', (${id})::BIGINT) AS id FROM range(${from}, ${from + size}) t(i)`,
        )
      }
      const verdicts = async (): Promise<void> => {
        const recordId = (++record).toString(16).padStart(32, '0')
        const { rows, change } = await findDuplicates(session, dataset, 'ids', [{ recordId, effectiveMs: 1_000 }], seen)
        seen.accept(change, position)
        duplicates += rows.length
      }
      let at = 0
      for (; at < ids; at += BATCH) {
        await batch(at, Math.min(BATCH, ids - at), 0)
        await verdicts()
      }
      const full = (residentBytes(process.pid).get(process.pid) ?? 0) - before
      let [cpuS, wallS] = [0, 0]
      at = ids
      for (let n = 0; n < BATCHES; n++, at += BATCH) {
        // Not a multiple of 100: that id came once already.
        await batch(at, BATCH, Math.floor(ids / 200) * 100 + 1)
        const cost = await measured(verdicts)
        cpuS += cost.cpuS
        wallS += cost.wallS
      }
      const expected = Math.floor((at - 1) / 100) - Math.floor((ids - 1) / 100)
      if (duplicates !== expected && ids > 0) throw new Error(`${duplicates} duplicates, not ${expected}`)
      session.close()
      return { figures: { events: BATCHES * BATCH, cpuS, wallS, residentMB: full / 1e6 } }
    } finally {
      await engine.close()
    }
  }

export const dedupe: Case = {
  name: 'dedupe',
  about: 'de-duplication: verdicts of batches of 46,000 events, 1 % duplicates',
  variants: { empty: run(() => 0), full: run((env) => env.sizes.ids) },
  report: (results, sizes) => {
    const micros = (variant: string): number[] =>
      (results[variant] ?? []).map((m) => (m.figures.cpuS! / m.figures.events!) * 1e6)
    const row = (what: string, all: number[], unit: string, digits: number): Row => ({
      what,
      best: `${Math.min(...all).toFixed(digits)} ${unit}`,
      median: `${median(all).toFixed(digits)} ${unit}`,
    })
    return {
      rows: [
        row('verdicts, few live ids (none, then up to 0.9 M)', micros('empty'), 'µs/event', 2),
        row(`verdicts, ${sizes.ids.toLocaleString('en')} live ids`, micros('full'), 'µs/event', 2),
        row('memory of the map', figuresOf(results, 'full', 'residentMB'), 'MB', 0),
      ],
    }
  },
}
