/**
 * The HTTP side of a process: one app with the routes of its roles. Invariant: it listens only when everything behind it is
 * open, on loopback unless there are keys; stopping closes the app first, then the door, then what they stand on.
 */
import { join } from 'node:path'
import { createApp, type FastifyInstance, requireScope } from '../http/app.ts'
import { assertBinding } from '../http/auth.ts'
import { type Door, openDoor } from '../ingest/door.ts'
import { openRejectStore } from '../ingest/reject-store.ts'
import { ingestRoutes } from '../ingest/routes.ts'
import { WeirError } from '../model/errors.ts'
import { usesKafka } from '../model/settings-servers.ts'
import { servingRoutes } from '../serving-layer/routes.ts'
import { openServing } from '../serving-layer/serving.ts'
import { adminRoutes } from './admin-routes.ts'
import { deadLetterRoutes } from './dead-letter-routes.ts'
import { openBoard, openScheduler } from './job-queues.ts'
import { observe } from './metrics.ts'
import { packageVersion } from './package.ts'
import type { Shared } from './ports.ts'
import { ROLES, roleNames } from './roles.ts'
import type { ServeOptions } from './serve-options.ts'
import { ingestSettings } from './servers.ts'

/** Where the job queues can be looked at, with an admin key. */
const BOARD = '/admin/jobs'
/** How far answers may lag behind the speed state, ms: less than anybody sees. */
const STALE_MS = 50

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
    ...(roles.length === ROLES.length ? {} : { part: `this server has ${roleNames(roles)}: others have the rest` }),
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
    // Of one process: where several run on a folder, each port has its own.
    const port = options.port ?? settings.server.port
    const rejects = await openRejectStore({
      folder: join(ports.dataDir, 'rejects', ...(usesKafka(settings) ? [String(port)] : [])),
      maxBytes: settings.ingest.rejectsBytes,
    })
    closers.add(() => rejects.close())
    door = await openDoor({
      log: ports.log,
      engine: ports.of('ingest').engine,
      datasets,
      rejects,
      settings: ingestSettings(settings),
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
    servingRoutes(app, serving, batch?.scheduler ?? (await openScheduler(shared, null)))
    adminRoutes(app, shared, serving)
    const board = await openBoard(shared, BOARD)
    if (board !== null)
      await app.register(
        async (guarded) => {
          guarded.addHook('onRequest', requireScope('admin'))
          // A browser that is asked for a password sends an API key in it.
          guarded.addHook('onSend', async (_request, reply) => {
            if (reply.statusCode === 401)
              reply.header('www-authenticate', 'Basic realm="Weir: an API key as the password"')
          })
          await guarded.register(board)
        },
        { prefix: BOARD },
      )
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
