/** The flights on real servers, two processes of each role: the same numbers as plain DuckDB, through either of them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { examplesFolder } from '../../cli/package.ts'
import { runFlights } from '../../examples/flights/flights.ts'
import { openCluster, places } from './processes.ts'

const at = places()
const flights = Number(process.env.WEIR_TEST_CLUSTER_FLIGHTS ?? 60_000)

test.skipIf(at === null)(`${flights} flights, two processes of each role`, { timeout: 600_000 }, async () => {
  const cluster = await openCluster(at!, { project: join(examplesFolder, 'flights') })
  const dataDir = await mkdtemp(join(tmpdir(), 'weir-flights-'))
  try {
    for (const role of ['batch', 'speed', 'serving', 'ingest'] as const)
      await Promise.all([cluster.start(role), cluster.start(role)])
    const running = { ingest: cluster.urls('ingest'), serving: cluster.urls('serving'), stop: async () => undefined }
    const say = (line: string): void => console.info(line)
    const result = await runFlights({ flights, dataDir, steps: 2, running, say })
    expect(result).toMatchObject({ sent: flights, accepted: flights, differing: 0 })
    expect(result.cells).toBeGreaterThan(flights)
  } finally {
    await cluster.close()
    await rm(dataDir, { recursive: true, force: true })
  }
})
