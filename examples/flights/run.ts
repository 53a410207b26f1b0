/** `npm run example:flights -- [--flights N]`: all three million by default. Exits 1 on any difference. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { runFlights } from './flights.ts'

const { values } = parseArgs({ options: { flights: { type: 'string', default: '3000000' } } })
const dataDir = await mkdtemp(join(tmpdir(), 'weir-flights-'))
try {
  const began = performance.now()
  const result = await runFlights({ flights: Number(values.flights), dataDir, say: (line) => console.log(line) })
  console.log(JSON.stringify({ ...result, seconds: Math.round((performance.now() - began) / 1_000) }))
  if (result.differing !== 0 || result.accepted !== result.sent) process.exitCode = 1
} finally {
  await rm(dataDir, { recursive: true, force: true })
}
