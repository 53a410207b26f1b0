/** What the two halves of the oracle's test share: files run beside each other, one for each core. */
import { expect } from 'vitest'
import { openEngine } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { runSeeds } from './seeds.ts'

export const SCHEDULES = Number(process.env.WEIR_ORACLE_SCHEDULES ?? 200)
const FROM = Number(process.env.WEIR_ORACLE_FROM ?? 1)

/** Runs half 0 or half 1 of the schedules; every answer must equal the reference, and most questions must be answered. */
export const checkHalf = async (half: 0 | 1): Promise<void> => {
  const seeds = half === 0 ? Math.ceil(SCHEDULES / 2) : Math.floor(SCHEDULES / 2)
  const from = half === 0 ? FROM : FROM + Math.ceil(SCHEDULES / 2)
  const engine = await openEngine({ threads: 1 })
  try {
    const { stats, failures } = await runSeeds({ engine, tools: sqlTools(engine) }, { from, seeds })
    expect(
      failures.map((f) => `seed ${f.seed}: ${f.error}\nminimal trace:\n  ${f.trace.join('\n  ')}`),
      'replay with npm run oracle -- --seeds 1 --from <seed> --trace',
    ).toEqual([])
    // An oracle that mostly refuses proves nothing.
    const refused = Object.values(stats.refusals).reduce((a, b) => a + b, 0)
    expect(stats.answers).toBeGreaterThan(refused * 3)
    expect(stats.answers).toBeGreaterThan(seeds * 5)
    expect(stats.crashes).toBeGreaterThan(0)
    expect(stats.published).toBeGreaterThan(seeds)
  } finally {
    await engine.close()
  }
}

/** Bound of a half, ms: generous, since nothing here is about speed. */
export const HALF_TIMEOUT_MS = 120_000 + SCHEDULES * 10_000
