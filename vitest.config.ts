import { defineConfig } from 'vitest/config'

// Two workers: the machines have two cores, and each file may run DuckDB beside Node.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    pool: 'forks',
  },
})
