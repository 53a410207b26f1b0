/** Resident memory: `weir start` idle and under load, and the processes of a recompute under their configured limit. */
import { join } from 'node:path'
import { recompute } from '../../batch-layer/recompute.ts'
import { bytesOf } from '../../cli/memory.ts'
import { type Case, type Env, figuresOf, type Measured, median, type Row } from '../harness/case.ts'
import { watchMemory } from '../harness/cpu.ts'
import { startLoad } from '../load.ts'
import { paths, preparedData, START_MS, streamOf } from '../prepare.ts'
import { openClient, startServer, until } from '../server.ts'
import { openWorld } from '../world.ts'

const RATE = 20_000
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const server = async (env: Env): Promise<Measured> => {
  const started = await startServer({
    scratch: env.scratch,
    data: join(env.scratch, 'data'),
    project: 'stream-deduped',
  })
  const quiet = watchMemory(started.pid)
  await pause(Math.min(10_000, env.sizes.seconds * 1_000))
  const idle = quiet.stop()
  const client = openClient(started.url, 32)
  const busy = watchMemory(started.pid)
  const events = RATE * env.sizes.seconds
  const load = startLoad({ client, rate: RATE, batch: 1_000, events: { events, startMs: START_MS, stepMs: 1 / 20 } })
  const query = { view: 'by_type_country', grain: '1 hour', orderBy: [{ column: 'revenue', desc: true }] }
  const deadline = env.sizes.seconds * 4_000 + 60_000
  await until(
    'all is sent',
    async () => {
      const { status } = await client.post('/v1/query', JSON.stringify(query))
      if (status !== 200) throw new Error(`a query was answered ${status}`)
      return load.sent() >= events
    },
    () => '',
    deadline,
  )
  await load.stop()
  const loaded = busy.stop()
  client.close()
  await started.stop()
  return { figures: { idleMB: idle.rootPeak / 1e6, loadedMB: loaded.rootPeak / 1e6 } }
}

const recomputed = async (env: Env): Promise<Measured> => {
  const world = await openWorld({ project: 'stream', data: paths(env.shared, env.sharedMemory).history })
  try {
    await world.adopt()
    const watch = watchMemory(process.pid, 20)
    for (const view of world.project.views) {
      const { outcome } = await recompute(world.ctx, view)
      if (outcome !== 'published') throw new Error(`${view.name}: ${outcome}`)
    }
    const { rootPeak, childPeak } = watch.stop()
    const limit = bytesOf(world.project.settings.batch.recomputeMemory)
    if (childPeak === 0) throw new Error('no child was seen')
    return { figures: { parentMB: rootPeak / 1e6, childMB: childPeak / 1e6, limitMB: limit / 1e6 } }
  } finally {
    await world.close()
  }
}

export const memory: Case = {
  name: 'memory',
  about: 'resident memory, sampled every 20 to 50 ms',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    await preparedData(paths(shared, sharedMemory).history, 'stream', streamOf(sizes.history), true)
  },
  variants: { server, recompute: recomputed },
  maxRuns: 2,
  report: (results, sizes) => {
    const row = (what: string, variant: string, figure: string): Row => {
      const all = figuresOf(results, variant, figure)
      return { what, best: `${Math.min(...all).toFixed(0)} MB`, median: `${median(all).toFixed(0)} MB` }
    }
    const limit = figuresOf(results, 'recompute', 'limitMB')[0] ?? 0
    const worst = Math.max(...figuresOf(results, 'recompute', 'childMB'))
    return {
      rows: [
        row('`weir start`, all roles, idle (peak)', 'server', 'idleMB'),
        row(
          '… under 20,000 events/s with de-duplication, and queries one after the other (peak)',
          'server',
          'loadedMB',
        ),
        {
          ...row(`child of a recompute of ${sizes.history.toLocaleString('en')} events (peak)`, 'recompute', 'childMB'),
          target: `≤ ${limit.toFixed(0)} MB`,
          met: worst <= limit,
        },
        row('its parent (peak)', 'recompute', 'parentMB'),
      ],
    }
  },
}
