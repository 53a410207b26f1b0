/** The speed role: one worker and one loop per (dataset, partition). Invariant: a partition that stops or fails holds up no other. */
import { openSpeedWorker, type SpeedWorker } from '../speed-layer/worker.ts'
import { workOnAssigned } from './assigned.ts'
import type { Shared } from './ports.ts'

export type SpeedRuntime = {
  workers(): { dataset: string; partition: number; worker: SpeedWorker }[]
  /** Why the role is not ready: partitions whose worker has not come so far as to look at what is stored, a group not joined. */
  notReady(): string[]
  /** Let all workers look around now. */
  wake(): void
  stop(): Promise<void>
}

const STOPPED_PAUSE_MS = 1_000
/** A notice has no "works again": it fades. */
const NOTICE_MS = 600_000

export const startSpeed = async (shared: Shared): Promise<SpeedRuntime> => {
  const { options, ports, alarms, closers } = shared
  const { engine, history } = ports.of('speed')
  const { log, speed: store, publications, versions } = ports
  const { settings, datasets } = options.project
  const workers = new Map<string, { dataset: string; partition: number; worker: SpeedWorker }>()
  const attached = new Set<string>()

  const assigned = await workOnAssigned(shared, 'speed', 'speed', async (name, partition) => {
    const id = `speed/${name}/${partition}`
    const dataset = datasets.find((d) => d.name === name)!
    const alarm = (error: unknown): void => alarms.raise(`${id}/notice`, error, NOTICE_MS)
    const own = { log, store, history, publications, engine, dataset, partition, versions, settings: settings.speed }
    const worker = await openSpeedWorker({ ...own, alarm })
    workers.set(id, { dataset: name, partition, worker })
    return {
      step: async (signal) => {
        const { kind } = await worker.step(signal)
        const { stopped } = worker.state()
        if (stopped) alarms.raise(`${id}/stopped`, stopped)
        else alarms.clear(`${id}/stopped`)
        if (kind !== 'stopped') attached.add(id)
        return kind === 'stopped' ? STOPPED_PAUSE_MS : 0
      },
      close: async () => {
        workers.delete(id)
        attached.delete(id)
        alarms.clear(`${id}/stopped`)
        await worker.close()
      },
    }
  })
  closers.add(assigned.stop)
  return {
    workers: () => [...workers.values()],
    notReady: () => [
      ...(assigned.isKnown() ? [] : ['the speed workers have not joined their group yet']),
      ...assigned
        .names()
        .filter((name) => !attached.has(name))
        .map((name) => `${name} has not looked at its stored state yet`),
    ],
    wake: assigned.wake,
    stop: assigned.stop,
  }
}
