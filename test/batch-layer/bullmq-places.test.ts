/** BullMQ where Redis is not one plain server: behind Sentinels, which put another master in place, and behind TLS. */

import { afterEach, describe, expect, it } from 'vitest'
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import type { Job, Scheduler } from '../../model/ports/scheduler.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import {
  type Certificate,
  hasOpenssl,
  openCertificate,
  openSentinelGroup,
  type SentinelGroup,
} from '../speed-layer/redis-sentinel.ts'
import { openRedisServer } from '../speed-layer/redis-server.ts'
import { freePort, until } from '../support/server.ts'
import { service } from '../support/services.ts'

describe.skipIf(service('REDIS_URL') === null)('BullMQ', () => {
  const closing: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close()
  })
  /** A scheduler that works, with two that only ask. `views`: whose jobs ran, in order. */
  const openJobs = async (connection: RedisPlace) => {
    const views: string[] = []
    const alarms: unknown[] = []
    const common = { connection, drainMs: 500, healMs: 500, lockMs: 2_000, alarm: (e: unknown) => void alarms.push(e) }
    const open = async (work: boolean): Promise<Scheduler> => {
      const scheduler = await openBullMqScheduler({
        ...common,
        work,
        runner: async ({ view }) => {
          views.push(view)
          return { view }
        },
      })
      closing.push(() => scheduler.close())
      return scheduler
    }
    return { worker: await open(true), looker: await open(false), views, alarms }
  }
  type Jobs = Awaited<ReturnType<typeof openJobs>>

  /** A job goes through, submitted again and again while it is refused. */
  const runs = async ({ looker }: Jobs, view: string, deadlineMs = 30_000): Promise<Job> => {
    const id = await until(`room for ${view}`, deadlineMs, () => looker.submit({ view, action: 'extend' }))
    return until(`the end of ${view}`, deadlineMs, async () => {
      const job = await looker.job(id)
      return job?.state === 'done' ? job : undefined
    })
  }
  const group = async (certificate?: Certificate): Promise<SentinelGroup> => {
    const made = await openSentinelGroup(certificate)
    closing.push(made.remove)
    return made
  }
  const certified = async (): Promise<Certificate> => {
    const made = await openCertificate()
    closing.push(made.remove)
    return made
  }

  it.each(['SIGKILL', 'SIGSTOP'] as const)(
    'follows the Sentinels to another master: jobs and schedules go on after %s',
    async (signal) => {
      const servers = await group()
      const jobs = await openJobs({ sentinel: { nodes: [servers.address], name: 'weir' } })
      await runs(jobs, 'before')
      await jobs.worker.schedule('often', 'every 1 seconds', 'UTC', () => [{ view: 'often', action: 'extend' }])
      await until('a tick', 20_000, async () => jobs.views.includes('often') || undefined)
      await servers.replicated()
      servers.master.signal(signal)
      await servers.promoted()
      await runs(jobs, 'after', 60_000)
      const seen = jobs.views.length
      await until('a tick', 60_000, async () => jobs.views.slice(seen).includes('often') || undefined)
      const listed = await jobs.looker.jobs(100)
      expect(listed.find((j) => j.view === 'before')).toMatchObject({ state: 'done', result: { view: 'before' } })
    },
    150_000,
  )

  it.skipIf(!hasOpenssl)(
    'runs jobs over TLS, and refuses a server that nobody vouches for',
    async () => {
      const certificate = await certified()
      const port = await freePort()
      const server = await openRedisServer(['--tls-port', `${port}`, ...certificate.settings])
      closing.push(server.remove)
      const tls = { ca: certificate.ca }
      for (const [i, url] of [`rediss://127.0.0.1:${port}`, `redis://127.0.0.1:${port}`].entries())
        expect((await runs(await openJobs({ url, tls }), `v${i}`)).result).toEqual({ view: `v${i}` })
      await expect(openJobs({ url: `rediss://127.0.0.1:${port}` })).rejects.toMatchObject({
        code: 'WEIR_BATCH_REDIS',
        got: expect.stringContaining('certificate'),
      })
    },
    60_000,
  )

  it.skipIf(!hasOpenssl)(
    'runs jobs behind Sentinels with TLS, also after a failover',
    async () => {
      const certificate = await certified()
      const servers = await group(certificate)
      const tls = { ca: certificate.ca }
      const jobs = await openJobs({ sentinel: { nodes: [servers.address], name: 'weir' }, tls })
      await runs(jobs, 'before')
      await servers.replicated()
      await servers.master.kill()
      await servers.promoted()
      await runs(jobs, 'after')
      expect(jobs.views).toEqual(['before', 'after'])
    },
    90_000,
  )
})
