/** Real input: flights out of order through HTTP, extends, a recompute; every cell equals plain DuckDB over the Parquet file. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runFlights } from '../../examples/flights/flights.ts'

test('200,000 flights: merged answers equal the Parquet file, cell by cell', { timeout: 120_000 }, async () => {
  const flights = Number(process.env.WEIR_TEST_FLIGHTS ?? 200_000)
  const dataDir = await mkdtemp(join(tmpdir(), 'weir-flights-'))
  try {
    const result = await runFlights({ flights, dataDir, steps: 3, inProcessWorkers: true })
    expect(result).toMatchObject({ sent: flights, accepted: flights, differing: 0 })
    expect(result.cells).toBeGreaterThan(flights)
    expect(result.audited).toBeGreaterThan(1_000)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})
