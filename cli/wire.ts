/**
 * The only place that wires implementations to ports: `openWeir` makes a running Weir of a project and a data folder.
 * Invariant: what was opened is closed, in reverse order, however opening or running ends; roles of one folder are held by
 * one process each.
 */
import { resolve } from 'node:path'
import { WeirError } from '../model/errors.ts'
import type { Project } from '../model/project.ts'
import { usesKafka, usesRedis } from '../model/settings-servers.ts'
import { refuseUnfit } from '../speed-layer/redis-check.ts'
import { type Alarms, openAlarms } from './alarms.ts'
import { type BatchRuntime, startBatch } from './batch-runtime.ts'
import { type Drift, openDrift } from './drift.ts'
import { lockRoles } from './lock.ts'
import { type Loop, startLoop } from './loops.ts'
import { openClosers, openPorts, type Ports, type WeirOptions } from './ports.ts'
import { startServing } from './serve.ts'
import { type SpeedRuntime, startSpeed } from './speed-runtime.ts'

export type { WeirOptions } from './ports.ts'

export type Stopped = 'in time' | 'deadline'

export type Weir = {
  url: string
  project: Project
  alarms: Alarms
  drift: Drift
  batch: BatchRuntime | null
  speed: SpeedRuntime | null
  ports: Ports
  /** Takes no more, drains, closes; gives up waiting at settings.server.stopMs. */
  stop(): Promise<Stopped>
}

/** How soon a process sees what another one registered, published or activated. */
const VERSIONS_MS = 1_000
/** How often a Redis is looked at. */
const REDIS_MS = 60_000

/**
 * Opens a Weir and lets it run. Throws WEIR_CLI_LOCKED, WEIR_CLI_DATASET_CHANGED, WEIR_HTTP_OPEN_BINDING, WEIR_CLI_STOPPED, and what
 * the ports throw; then nothing of it is open.
 */
export const openWeir = async (options: WeirOptions): Promise<Weir> => {
  const { project, roles, logger } = options
  const closers = openClosers(logger)
  const alarms = openAlarms(logger)
  const drift = openDrift()
  const going = (): void => {
    if (options.signal?.aborted) throw stoppedEarly()
  }
  try {
    const lock = await lockRoles(resolve(options.dataDir), roles, {
      several: usesKafka(project.settings),
      onLost: (error) => alarms.raise('lock', error),
    })
    closers.add(lock.release)
    going()
    const ports = await openPorts(options, alarms, closers)
    going()
    const shared = { options, ports, alarms, drift, closers }
    const batch = roles.includes('batch') ? await startBatch(shared) : null
    await ports.versions.refresh()
    going()
    const refreshing = startLoop({
      name: 'versions',
      alarms,
      step: async () => {
        await ports.versions.refresh()
        return VERSIONS_MS
      },
    })
    closers.add(refreshing.stop)
    if (usesRedis(project.settings)) closers.add(watchRedis(ports, alarms).stop)
    const speed = roles.includes('speed') ? await startSpeed(shared) : null
    going()
    const http = await startServing({ ...shared, batch, speed })
    await lock.setUrl(http.url)
    logger.info({ url: http.url, roles, dataDir: ports.dataDir }, `serving ${roles.join(', ')} at ${http.url}`)
    let stopping: Promise<Stopped> | undefined
    return {
      url: http.url,
      project,
      alarms,
      drift,
      batch,
      speed,
      ports,
      stop: () => {
        stopping ??= withDeadline(closers.closeAll(), project.settings.server.stopMs)
        return stopping
      },
    }
  } catch (error) {
    await closers.closeAll()
    throw error
  }
}

/** What the start has looked at may change later: a memory policy, a disk that persistence fails on. */
const watchRedis = (ports: Ports, alarms: Alarms): Loop =>
  startLoop({
    name: 'speed/redis',
    alarms,
    step: async () => {
      const findings = await ports.redis.look()
      refuseUnfit(findings)
      for (const { node, what, expected, got, next } of findings)
        alarms.raise(
          'speed/redis/notice',
          new WeirError({ code: 'WEIR_SPEED_REDIS_UNFIT', message: `${node}: ${what}`, expected, got, next }),
          2 * REDIS_MS,
        )
      return REDIS_MS
    },
  })

const stoppedEarly = (): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_STOPPED',
    message: 'It was told to stop before it had started.',
    expected: 'a start that is left alone until it serves',
    next: 'start it again: nothing is lost',
  })

const withDeadline = async (work: Promise<void>, ms: number): Promise<Stopped> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<Stopped>((resolve) => {
    timer = setTimeout(() => resolve('deadline'), ms)
  })
  try {
    return await Promise.race([work.then((): Stopped => 'in time'), late])
  } finally {
    clearTimeout(timer)
  }
}
