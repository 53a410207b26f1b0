/** Bull Board behind the admin key: who sees it, that it changes nothing, that it loads nothing from elsewhere. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openBullMqBoard } from '../../batch-layer/bullmq-board.ts'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { createApp, type FastifyInstance, requireScope } from '../../http/app.ts'
import { newKey } from '../../http/auth.ts'
import type { Scheduler } from '../../model/ports/scheduler.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import { newPrefix, removeKeys, SERVERS, until } from './bullmq-support.ts'

const admin = newKey('admin', ['admin'])
const reader = newKey('reader', ['query:*'])
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

for (const { name, connection } of SERVERS)
  describe.skipIf(connection === null)(`Bull Board, ${name}`, () => {
    const server = connection as RedisPlace
    let prefix = ''
    let app: FastifyInstance
    let scheduler: Scheduler
    let board: Awaited<ReturnType<typeof openBullMqBoard>>
    beforeEach(async () => {
      prefix = newPrefix()
      scheduler = await openBullMqScheduler({ connection: server, prefix, work: true, runner: async () => ({ n: 1 }) })
      board = await openBullMqBoard({ connection: server, prefix, engineVersion: 'v1' })
      const keys = [admin.key, reader.key]
      app = await createApp({
        keys: { list: async () => keys, add: async () => undefined, revoke: async () => false },
        version: '0',
      })
      await app.register(
        async (guarded) => {
          guarded.addHook('onRequest', requireScope('admin'))
          await guarded.register(board.plugin)
        },
        { prefix: '/admin/jobs' },
      )
      await app.ready()
    })
    afterEach(async () => {
      await app.close()
      await board.close()
      await scheduler.close()
      await removeKeys(server, prefix)
    })

    it('is for the admin key alone, page and files and data', async () => {
      for (const url of [
        '/admin/jobs',
        '/admin/jobs/api/queues',
        '/admin/jobs/queue/long',
        '/admin/jobs/static/favicon-32x32.png',
      ]) {
        expect([url, (await app.inject({ url })).statusCode]).toEqual([url, 401])
        expect([url, (await app.inject({ url, headers: bearer(reader.token) })).statusCode]).toEqual([url, 403])
        const seen = await app.inject({ url, headers: bearer(admin.token) })
        expect([url, seen.statusCode]).toEqual([url, 200])
        expect(seen.headers['content-security-policy']).not.toContain('https:')
      }
      const page = (await app.inject({ url: '/admin/jobs', headers: bearer(admin.token) })).body
      expect(page).toContain('<base href="/admin/jobs/"')
      for (const [, file] of page.matchAll(/(?:src|href)="(static\/[^"]+)"/g)) {
        const { statusCode } = await app.inject({ url: `/admin/jobs/${file}`, headers: bearer(admin.token) })
        expect([file, statusCode]).toEqual([file, 200])
      }
    })

    it('shows jobs, and refuses to change them', async () => {
      const id = await scheduler.submit({ view: 'by_hour', action: 'recompute' })
      await until(async () => (await scheduler.job(id))?.state === 'done')
      const headers = bearer(admin.token)
      const shown = (
        await app.inject({ url: '/admin/jobs/api/queues?activeQueue=long&status=completed', headers })
      ).json()
      expect(shown.queues.map((q: { name: string }) => q.name).sort()).toEqual(['long', 'shards-v1', 'short', 'ticks'])
      const long = shown.queues.find((q: { name: string }) => q.name === 'long')
      expect(long.jobs).toMatchObject([{ id, name: 'recompute by_hour', returnValue: { n: 1 } }])
      for (const [method, path] of [
        ['PUT', `long/${id}/clean`],
        ['PUT', 'long/clean/completed'],
        ['PUT', 'long/pause'],
        ['PUT', 'long/empty'],
        ['PUT', 'long/obliterate'],
        ['POST', 'long/add'],
      ] as const) {
        const done = await app.inject({
          method,
          url: `/admin/jobs/api/queues/${path}`,
          headers,
          payload: { name: 'x', data: {} },
        })
        expect([path, done.statusCode]).toEqual([path, 405])
      }
      expect(await scheduler.job(id)).toMatchObject({ state: 'done' })
    })
  })
