/**
 * `npm run oracle:cluster -- [--schedules N] [--from S] [--per-world K] [--redis-cluster] [--trace] [--jobs J]`: random schedules on real
 * servers (`npm run services -- start`, then its environment). It kills and empties those servers: give it some of its own; with `--jobs`
 * it starts and stops them by itself, so many sets as worlds that run at once.
 * Exits 1 on any difference; the seed of a world replays its choices (not its timing).
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../../cli/random.ts'
import { openEngine } from '../../engine/engine.ts'
import { runJobs } from './jobs.ts'
import { places } from './processes.ts'
import { openServers, runSchedule } from './steps.ts'
import { openClusterWorld } from './world.ts'

const { values } = parseArgs({
  options: {
    schedules: { type: 'string', default: '20' },
    from: { type: 'string', default: '1' },
    'per-world': { type: 'string', default: '10' },
    'redis-cluster': { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    jobs: { type: 'string' },
  },
})
const schedules = Number(values.schedules)
const perWorld = Number(values['per-world'])
if (values.jobs !== undefined) {
  const args = [...(values['redis-cluster'] ? ['--redis-cluster'] : []), ...(values.trace ? ['--trace'] : [])]
  const from = Number(values.from)
  process.exit((await runJobs({ jobs: Number(values.jobs), schedules, from, perWorld, args })) ? 0 : 1)
}
// Through `exit`, which ends what was started.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1))
const totals = { schedules: 0, answers: 0, acknowledged: 0, foreign: 0, refusals: {} as Record<string, number> }

for (let seed = Number(values.from); totals.schedules < schedules; seed++) {
  // Every other world on a Redis Cluster, unless all are asked to be.
  const at = places(values['redis-cluster'] || seed % 2 === 0 ? 'REDIS_CLUSTER' : 'REDIS_URL')
  if (at === null) process.exit(1)
  const lines: string[] = []
  const trace = (line: string): void => {
    lines.push(line)
    if (values.trace) console.log(line)
  }
  const folder = await mkdtemp(join(tmpdir(), 'weir-oracle-'))
  const engine = await openEngine({ memoryLimit: '1GB' })
  const session = await engine.session()
  const servers = await openServers(at.redis)
  const r = random(seed)
  let world: Awaited<ReturnType<typeof openClusterWorld>> | undefined
  try {
    world = await openClusterWorld(at, r, { folder, session, extend: r.pick(['off', 'every 2 seconds']), trace })
    for (let n = 0; n < perWorld && totals.schedules < schedules; n++) {
      trace(`schedule ${n}`)
      await runSchedule(world, servers)
      totals.schedules++
    }
    for (const key of ['answers', 'acknowledged', 'foreign'] as const) totals[key] += world.stats[key]
    for (const [code, n] of Object.entries(world.stats.refusals))
      totals.refusals[code] = (totals.refusals[code] ?? 0) + n
    console.log(`world ${seed}: ${totals.schedules} schedules, ${totals.answers} answers compared`)
  } catch (error) {
    console.log(`world ${seed} fails:\n${error instanceof Error ? error.stack : String(error)}`)
    console.log(`trace:\n  ${lines.slice(-80).join('\n  ')}`)
    if (world) console.log(world.logs())
    console.log(`again: npm run oracle:cluster -- --from ${seed} --schedules ${perWorld} --trace`)
    process.exitCode = 1
  } finally {
    await world?.close()
    servers.close()
    session.close()
    await engine.close()
    await rm(folder, { recursive: true, force: true })
  }
  if (process.exitCode) break
}
console.log(JSON.stringify(totals))
// A world that did not open may hold this process open.
process.exit()
