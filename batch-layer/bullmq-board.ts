/**
 * Bull Board over the job queues, as a Fastify plugin; whoever registers it puts it under its path, behind the guard of the admin key.
 * Invariants: it only shows (the server refuses changes, whatever the page asks for), since jobs are submitted and cancelled through the
 * API, which knows lanes; its page loads nothing from other hosts; errors are answered by the app that it is registered in.
 */
import type { RedisPlace } from '../model/redis-place.ts'
import {
  asked,
  checkedPrefix,
  connect,
  DEFAULT_PREFIX,
  hangUp,
  openQueue,
  QUEUES,
  shardQueue,
} from './bullmq-connection.ts'

export type BullMqBoardOptions = {
  connection: RedisPlace
  prefix?: string
  /** Version of the engine, whose shards are shown. */
  engineVersion: string
  /** Where the plugin is registered. Default `/admin/jobs`. */
  basePath?: string
  alarm?(error: unknown): void
}

/** As much of Fastify as the plugin needs, so that this room does not touch it. */
type Reply = { header(name: string, value: string): unknown }
type App = {
  addHook(name: 'onSend', hook: (request: unknown, reply: Reply, payload: unknown) => Promise<unknown>): unknown
  setErrorHandler: unknown
}
// biome-ignore lint/suspicious/noExplicitAny: Fastify's own plugin types take any instance of it
export type BoardPlugin = (app: any, options: any, done: (error?: Error) => void) => void

/** The page has inline styles and asks for a font of Google's: the first may be, the second may not. */
const POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"

const DESCRIPTIONS: Record<string, string> = {
  [QUEUES.short]: 'extend, publish, rollback',
  [QUEUES.long]: 'recompute, verify, compact',
  [QUEUES.ticks]: 'what schedules fire',
}

/** Throws WEIR_BATCH_REDIS. */
export const openBullMqBoard = async (
  options: BullMqBoardOptions,
): Promise<{ plugin: BoardPlugin; close(): Promise<void> }> => {
  const { connection, basePath = '/admin/jobs' } = options
  const alarm = options.alarm ?? ((error) => process.emitWarning(String(error), { code: 'WEIR_BATCH_ALARM' }))
  const prefix = checkedPrefix(options.prefix ?? DEFAULT_PREFIX)
  const { createBullBoard } = await import('@bull-board/api')
  const { BullMQAdapter } = await import('@bull-board/api/bullMQAdapter')
  const { FastifyAdapter } = await import('@bull-board/fastify')
  const client = await connect(connection, 'calls', alarm)
  const names = [...Object.values(QUEUES), shardQueue(options.engineVersion)]
  const queues = await asked(connection, () =>
    Promise.all(names.map((name) => openQueue<unknown, unknown>(name, client, prefix, alarm))),
  )
  const adapter = new FastifyAdapter()
  adapter.setBasePath(basePath)
  createBullBoard({
    queues: queues.map(
      (queue) =>
        new BullMQAdapter(queue, {
          readOnlyMode: true,
          description: DESCRIPTIONS[queue.name] ?? 'shards of recomputes',
        }),
    ),
    serverAdapter: adapter,
    options: { uiConfig: { boardTitle: 'Weir jobs', hideRedisDetails: true } },
  })
  const plugin: BoardPlugin = (app: App, _options, done) => {
    app.addHook('onSend', async (_request, reply, payload) => {
      reply.header('content-security-policy', POLICY)
      return payload
    })
    // The board's error handler would also take the guard's refusals, and answer them as faults: errors are the app's.
    app.setErrorHandler = () => app
    adapter.registerPlugin()(app as Parameters<ReturnType<typeof adapter.registerPlugin>>[0], {}, done)
  }
  return {
    plugin,
    close: async () => {
      for (const queue of queues) await queue.close()
      hangUp(client)
    },
  }
}
