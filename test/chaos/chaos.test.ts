import { expect, test } from 'vitest'
import { runChaos } from './chaos.ts'

const rounds = Number(process.env.WEIR_CHAOS_ROUNDS ?? 10)

test(
  `${rounds} rounds of kill -9 under load lose nothing and count nothing twice`,
  async () => {
    const seed = Number(process.env.WEIR_CHAOS_SEED ?? Date.now() % 1_000_000)
    const result = await runChaos({ rounds, seed })
    expect(result.acknowledged).toBe(result.sent)
    expect(result.sent).toBeGreaterThan(rounds)
  },
  60_000 + rounds * 20_000,
)
