/** `openWeir` in this process: ports, readiness, dead letters, alarms, busy ports, failed starts, stopping. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Client, openClient } from '../../cli/client.ts'
import { holders } from '../../cli/lock.ts'
import { quietLogger } from '../../cli/logger.ts'
import { examplesFolder } from '../../cli/package.ts'
import { loadProject } from '../../cli/project-files.ts'
import { ROLES, type Role } from '../../cli/roles.ts'
import { openWeir, type Weir } from '../../cli/wire.ts'
import { WeirError } from '../../model/errors.ts'
import { until } from '../support/server.ts'

let folder: string
const open: Weir[] = []
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-wire-'))
})
afterEach(async () => {
  for (const weir of open.splice(0)) await weir.stop()
  await rm(folder, { recursive: true, force: true })
})

const project = async () => {
  const found = await loadProject(join(examplesFolder, 'starter'))
  found.settings.schedules = { extend: 'off', recompute: 'off', verify: 'off', compact: 'off' }
  found.settings.archive.maxAgeMs = 100
  return found
}
const start = async (more: { roles?: readonly Role[]; port?: number; onBusyPort?: (port: number) => void } = {}) => {
  const weir = await openWeir({
    project: await project(),
    dataDir: folder,
    roles: ROLES,
    logger: quietLogger(),
    port: 0,
    inProcessWorkers: true,
    ...more,
  })
  open.push(weir)
  return { weir, client: openClient({ url: weir.url }) }
}
const visit = (id: string, site: string | null) =>
  `${JSON.stringify({ visit_id: id, ts: '2026-11-25T10:00:00Z', site, seconds: 1 })}\n`

type Letter = { position: string; code: string; raw: string; column: string; status: { state: string } | null }
const letters = async (client: Client) =>
  (await client.json<{ letters: Letter[]; total: number }>('GET', '/v1/dead-letters/visits')).letters

test('dead letters: listed with their reason, replayed mended, dropped', async () => {
  const { weir, client } = await start()
  // The door would reject these: another writer put them into the log.
  const bytes = Buffer.from(visit('a', 'blog') + visit('b', null) + visit('c', null))
  const recordId = createHash('md5').update('another writer').digest('hex')
  await weir.ports.log.append('visits', 0, [{ recordId, bytes, events: 3 }])
  await until('two letters', 20_000, async () => ((await letters(client)).length === 2 ? true : undefined))
  const [first, second] = (await letters(client)) as [Letter, Letter]
  expect(first).toMatchObject({ position: '0:0:1', code: 'WEIR_DECODE_MISSING', column: 'site', status: null })
  expect(first.raw).toBe(visit('b', null).trim())
  expect(await client.json('GET', `/v1/dead-letters/visits/${first.position}`)).toEqual(first)

  const post = (path: string, body: object) =>
    client.send('POST', `/v1/dead-letters/visits/${path}`, {
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json' },
    })
  expect((await post('replay', { positions: [first.position] })).status).toBe(422)
  expect((await post('replay', { positions: [first.position, second.position], event: '{}' })).status).toBe(400)
  expect((await post('replay', { positions: ['0:0:7'] })).status).toBe(404)
  expect((await post('replay', { positions: ['0:0'] })).status).toBe(400)
  expect((await letters(client)).every((l) => l.status === null)).toBe(true)
  expect((await post('replay', { positions: [first.position], event: visit('b', 'shop') })).status).toBe(200)
  expect((await post('drop', { positions: [second.position] })).status).toBe(200)
  expect((await letters(client)).map((l) => l.status?.state)).toEqual(['replayed', 'dropped'])
  await until('the replayed event', 20_000, async () => {
    const { rows } = await client.json<{ rows: { visits_total: number }[] }>('POST', '/v1/query', {
      view: 'visits_by_site',
      measures: ['visits_total'],
      dimensions: [],
      grain: 'all',
    })
    return rows[0]!.visits_total === 2 ? true : undefined
  })
  expect(await client.json('POST', '/v1/views/visits_by_site/audit', {})).toMatchObject({ differences: 0, events: 2 })
})

test('an alarm makes it not ready where it must, and is in the status; stopping says so', async () => {
  const { weir, client } = await start()
  await until('ready', 20_000, async () =>
    (await client.send('GET', '/readyz', { retry: false })).status === 200 ? true : undefined,
  )
  weir.alarms.raise('job/extend/visits_by_site', new WeirError({ code: 'WEIR_X_JOB', message: 'a job failed' }))
  expect((await client.send('GET', '/readyz', { retry: false })).status).toBe(200)
  weir.alarms.raise('archive/other/0', new WeirError({ code: 'WEIR_X_STOPPED', message: 'it stopped', next: 'look' }))
  const ready = await client.send('GET', '/readyz', { retry: false })
  expect(ready.status).toBe(503)
  expect(JSON.parse(ready.body.toString())).toMatchObject({
    ready: false,
    reasons: [expect.stringContaining('it stopped')],
  })
  const status = await client.json<{ alarms: { code: string }[] }>('GET', '/v1/status')
  expect(status.alarms.map((a) => a.code).sort()).toEqual(['WEIR_X_JOB', 'WEIR_X_STOPPED'])
  const metrics = (await client.send('GET', '/metrics')).body.toString()
  expect(metrics).toContain('weir_alarms{source="archive/other/0",code="WEIR_X_STOPPED"} 1')
  expect(metrics).toMatch(/weir_speed_offset\{dataset="visits",partition="0"\} 0/)
  expect(await weir.stop()).toBe('in time')
  expect(await weir.stop()).toBe('in time')
  expect(await holders(folder)).toEqual([])
})

test('a busy port is told, or gone around; a failed start leaves no lock', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  const { port } = other.address() as { port: number }
  try {
    await expect(start({ port })).rejects.toMatchObject({ code: 'WEIR_CLI_PORT' })
    expect(await holders(folder)).toEqual([])
    const busy: number[] = []
    const { weir } = await start({ port, onBusyPort: (p) => busy.push(p) })
    expect(busy).toEqual([port])
    expect(weir.url).not.toContain(String(port))
    expect((await holders(folder)).map((h) => h.url)).toEqual(ROLES.map(() => weir.url))
  } finally {
    other.close()
  }
})

test('a process without a role says so', async () => {
  const { client } = await start({ roles: ['serving'] })
  const ready = await client.send('GET', '/readyz', { retry: false })
  expect(ready.status).toBe(503)
  expect(ready.body.toString()).toContain('start the batch role')
  expect((await client.send('POST', '/v1/events/visits', { body: visit('a', 'blog') })).status).toBe(404)
  const job = await client.send('POST', '/v1/views/visits_by_site/batch/extend', { retry: false })
  expect([404, 503]).toContain(job.status)
})

test('SQL of no role reaches a file outside lake and scratch, or changes a setting', async () => {
  const { weir } = await start({})
  const outside = join(folder, 'secret.csv')
  await writeFile(outside, 'a\n1\n')
  await writeFile(join(weir.ports.place.folder, 'inside.csv'), 'a\n1\n')
  for (const role of ROLES)
    await weir.ports.of(role).engine.withSession(async (session) => {
      expect(await session.rows(`SELECT a FROM read_csv('${weir.ports.place.folder}/inside.csv')`)).toHaveLength(1)
      for (const sql of [
        `SELECT * FROM read_csv('${outside}')`,
        `SELECT * FROM '${outside}'`,
        `SELECT * FROM read_text('${join(weir.ports.place.folder, '..', 'secret.csv')}')`,
        `COPY (SELECT 1) TO '${join(folder, 'written.csv')}'`,
        `ATTACH '${join(folder, 'other.db')}'`,
        'SET enable_external_access = true',
      ])
        await expect(session.run(sql), `${role}: ${sql}`).rejects.toThrow(/disabled|locked|not allowed|Permission/i)
    })
})
