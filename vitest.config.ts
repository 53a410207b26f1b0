import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Two workers: the machines have two cores, and each file may run DuckDB beside Node.
    maxWorkers: 2,
    pool: 'forks',
    // Files share a process, and with it the loaded modules: nothing in a test may change what is global. Halves the CPU of the small ones.
    isolate: false,
  },
})
