/**
 * The HTTP side of a process: one app with the routes of its roles. Invariant: it listens only when everything behind it is
 * open, on loopback unless there are keys; stopping closes the app first, then the door, then what they stand on.
 */
import { join } from 'node:path'
import { createApp, type FastifyInstance } from '../http/app.ts'
import { assertBinding } from '../http/auth.ts'
import { type Door, openDoor } from '../ingest/door.ts'
import { openRejectStore } from '../ingest/reject-store.ts'
import { ingestRoutes } from '../ingest/routes.ts'
import { WeirError } from '../model/errors.ts'
import type { Scheduler } from '../model/ports/scheduler.ts'
import { servingRoutes } from '../serving-layer/routes.ts'
import { openServing } from '../serving-layer/serving.ts'
import { adminRoutes } from './admin-routes.ts'
import { deadLetterRoutes } from './dead-letter-routes.ts'
import { observe } from './metrics.ts'
import { packageVersion } from './package.ts'
import type { Shared } from './ports.ts'
import type { ServeOptions } from './serve-options.ts'

/** How far answers may lag behind the speed state, ms: less than anybody sees. */
const STALE_MS = 50

/** For a process without the batch role: its jobs run elsewhere. */
const noScheduler = (): Scheduler => {
  const elsewhere = (): never => {
    throw new WeirError({
      code: 'WEIR_CLI_NO_BATCH_ROLE',
      message: 'This process does not run the batch role.',
      expected: 'a process with --role batch',
      next: 'ask the process that runs batch and serving together',
    })
  }
  return {
    schedule: async () => undefined,
    submit: async () => elsewhere(),
    job: async () => null,
    jobs: async () => [],
    cancel: async () => false,
    close: async () => undefined,
  }
}

/** Why the process is not ready, for the key of an administrator. */
const reasonsOf = ({ options, ports, alarms, batch, speed }: ServeOptions): string[] => [
  ...(speed?.notReady() ?? []),
  ...options.project.views
    .filter((v) => options.roles.includes('serving') && ports.versions.active(v.name) === null)
    .map((v) => `${v.name} has no version that serves${batch === null ? ': start the batch role' : ''}`),
  ...alarms
    .list()
    .filter((a) => /^(speed|archive)\//.test(a.source) && !a.source.endsWith('/notice'))
    .map((a) => `${a.source}: ${a.message} [${a.code}]`),
]

const listen = async (app: FastifyInstance, { options }: Shared): Promise<string> => {
  const { server } = options.project.settings
  const host = options.host ?? server.host
  const port = options.port ?? server.port
  try {
    return await app.listen({ host, port })
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'EADDRINUSE' && options.onBusyPort) {
      options.onBusyPort(port)
      return app.listen({ host, port: 0 })
    }
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') throw error
    throw new WeirError({
      code: 'WEIR_CLI_PORT',
      message: `${host}:${port} cannot be listened on (${code}).`,
      expected: 'a free port',
      got: String(port),
      next: 'name another one: --port <port>, or --port 0 for any',
      cause: error,
    })
  }
}

/** Opens the app and the roles' front ends, and listens. Throws WEIR_HTTP_OPEN_BINDING, WEIR_CLI_PORT. */
export const startServing = async (shared: ServeOptions): Promise<{ url: string }> => {
  const { options, ports, closers, batch, drift, alarms } = shared
  const { settings, datasets } = options.project
  const { roles } = options
  // Revoked ones count: who once asked for keys goes on asking.
  const hasKeys = (await ports.keys.list()).length > 0
  assertBinding(options.host ?? settings.server.host, hasKeys)
  let stopping = false
  const app = await createApp({
    keys: hasKeys ? ports.keys : null,
    version: packageVersion,
    logger: options.logger.child(
      { room: 'http' },
      { level: options.logger.level === 'info' ? 'warn' : options.logger.level },
    ),
    limits: { connectionTimeoutMs: Math.max(120_000, settings.query.deadlineMs + 30_000) },
    readiness: async () => {
      const reasons = stopping ? ['stopping'] : reasonsOf(shared)
      return { ready: reasons.length === 0, reasons }
    },
  })
  let door: Door | null = null
  if (roles.includes('ingest')) {
    const rejects = await openRejectStore({
      folder: join(ports.dataDir, 'rejects'),
      maxBytes: settings.ingest.rejectsBytes,
    })
    closers.add(() => rejects.close())
    door = await openDoor({
      log: ports.log,
      engine: ports.of('ingest').engine,
      datasets,
      rejects,
      settings: settings.ingest,
    })
    const opened = door
    closers.add(() => opened.close())
    ingestRoutes(app, door)
  }
  if (roles.includes('serving')) {
    const { engine, lake, history } = ports.of('serving')
    const serving = await openServing({
      speed: ports.speed,
      publications: ports.publications,
      log: ports.log,
      history,
      lake,
      engine,
      datasets,
      versions: ports.versions,
      settings,
      now: Date.now,
      staleMs: STALE_MS,
      drift: drift.of,
      alarms: alarms.list,
    })
    closers.add(() => serving.close())
    servingRoutes(app, serving, batch?.scheduler ?? noScheduler())
    adminRoutes(app, shared, serving)
  }
  if (batch !== null) deadLetterRoutes(app, shared, door)
  observe(app.metrics, shared)
  closers.add(() => app.close())
  closers.add(() => {
    stopping = true
  })
  const url = await listen(app, shared)
  return { url }
}
