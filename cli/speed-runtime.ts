/** The speed role: one worker and one loop per (dataset, partition). Invariant: a partition that stops or fails holds up no other. */
import { openSpeedWorker, type SpeedWorker } from '../speed-layer/worker.ts'
import { type Loop, startLoop } from './loops.ts'
import type { Shared } from './ports.ts'

export type SpeedRuntime = {
  workers: { dataset: string; partition: number; worker: SpeedWorker }[]
  /** Partitions whose worker has not come so far as to look at what is stored. */
  notAttached(): string[]
  /** Let all workers look around now. */
  wake(): void
  stop(): Promise<void>
}

const STOPPED_PAUSE_MS = 1_000

export const startSpeed = async ({ options, ports, alarms, closers }: Shared): Promise<SpeedRuntime> => {
  const { engine, history } = ports.of('speed')
  const { log, speed: store, publications, versions } = ports
  const { settings, datasets } = options.project
  const workers: SpeedRuntime['workers'] = []
  const loops: Loop[] = []
  const attached = new Set<string>()
  const all = new Set<string>()
  const stop = async (): Promise<void> => {
    await Promise.all(loops.map((l) => l.stop()))
    await Promise.all(workers.map((w) => w.worker.close()))
  }
  closers.add(stop)

  for (const dataset of datasets) {
    for (const partition of await log.partitions(dataset.name)) {
      const name = `speed/${dataset.name}/${partition}`
      const alarm = (error: unknown): void => alarms.raise(`${name}/notice`, error, NOTICE_MS)
      const worker = await openSpeedWorker({
        log,
        store,
        history,
        publications,
        engine,
        dataset,
        partition,
        versions,
        settings: settings.speed,
        alarm,
      })
      workers.push({ dataset: dataset.name, partition, worker })
      all.add(name)
      loops.push(
        startLoop({
          name,
          alarms,
          step: async (signal) => {
            const { kind } = await worker.step(signal)
            const { stopped } = worker.state()
            if (stopped) alarms.raise(`${name}/stopped`, stopped)
            else alarms.clear(`${name}/stopped`)
            if (kind !== 'stopped') attached.add(name)
            return kind === 'stopped' ? STOPPED_PAUSE_MS : 0
          },
        }),
      )
    }
  }
  return {
    workers,
    notAttached: () => [...all].filter((name) => !attached.has(name)),
    wake: () => {
      for (const loop of loops) loop.wake()
    },
    stop,
  }
}

/** A notice has no "works again": it fades. */
const NOTICE_MS = 600_000
