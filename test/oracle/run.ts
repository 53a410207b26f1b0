/**
 * `npm run oracle -- --seeds N --from S`: random schedules against the reference. A failing seed is shrunk to a minimal
 * trace and printed with the command that replays it; exit 1.
 */
import { parseArgs } from 'node:util'
import { openEngine } from '../../engine/engine.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { runSeeds } from './seeds.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    from: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
  },
})
const engine = await openEngine({ threads: 1 })
try {
  const result = await runSeeds(
    { engine, tools: sqlTools(engine) },
    {
      from: Number(values.from),
      seeds: Number(values.seeds),
      keepGoing: values.keep,
      quick: values.quick,
      log: (line) => console.log(line),
      ...(values.trace ? { trace: (line: string) => console.log(line) } : {}),
    },
  )
  console.log(JSON.stringify(result.stats))
  if (result.failures.length > 0) process.exitCode = 1
} finally {
  await engine.close()
}
