/**
 * A running Weir whose project changed: a view that left it still serves, so it is still extended (P17, P19: else its cut would
 * hold up retention for ever). And what administrators do by name of a view, and twice.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { quietLogger } from '../../cli/logger.ts'
import { loadProject } from '../../cli/project-files.ts'
import { ROLES } from '../../cli/roles.ts'
import { openWeir, type Weir } from '../../cli/wire.ts'
import { until } from '../support/server.ts'

let folder: string
let weir: Weir | undefined

const open = async (): Promise<Weir> => {
  const project = await loadProject(join(folder, 'project'))
  weir = await openWeir({
    project,
    dataDir: join(folder, 'data'),
    roles: ROLES,
    logger: quietLogger(),
    port: 0,
    inProcessWorkers: true,
  })
  return weir
}
const call = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
  const answer = await fetch(`${weir!.url}${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
  return JSON.parse(text) as T
}
type Status = { views: { name: string; cut: Record<string, string> }[] }
const cutOf = async (view: string): Promise<number> =>
  Number((await call<Status>('GET', '/v1/status')).views.find((v) => v.name === view)!.cut['0'])

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-removed-'))
  const write = async (path: string, text: string): Promise<void> => {
    await mkdir(join(folder, 'project', path, '..'), { recursive: true })
    await writeFile(join(folder, 'project', path), text)
  }
  await write(
    'weir.yaml',
    'schedules: { extend: every 1 second, recompute: "off", verify: "off", compact: "off" }\narchive: { maxAgeMs: 100 }\n',
  )
  await write(
    'datasets/visits.yaml',
    'dataset: visits\neventTime: ts\ncolumns:\n  ts: TIMESTAMPTZ\n  site: VARCHAR\n  n: INTEGER\n',
  )
  for (const view of ['kept', 'gone'])
    await write(`views/${view}.sql`, 'SELECT site, count(*) AS visits_total FROM visits GROUP BY ALL\n')
})
afterEach(async () => {
  await weir?.stop()
  weir = undefined
  await rm(folder, { recursive: true, force: true })
})

const visit = { ts: '2026-11-25T10:00:00Z', site: 'blog', n: 1 }

test('a view that left the project goes on being extended', { timeout: 60_000 }, async () => {
  await open()
  await call('POST', '/v1/events/visits', visit)
  await until('the first cuts', 20_000, async () => ((await cutOf('gone')) === 1 ? true : undefined))
  await weir!.stop()
  await rm(join(folder, 'project', 'views', 'gone.sql'))
  await open()
  await call('POST', '/v1/events/visits', visit)
  await until('the cut of the kept view', 20_000, async () => ((await cutOf('kept')) === 2 ? true : undefined))
  await until('the cut of the removed view', 10_000, async () => ((await cutOf('gone')) === 2 ? true : undefined))

  // The view is of no more use: it can be dropped, while one of the project cannot.
  type Versions = { versions: { view: string; version: string; state: string }[] }
  const { versions } = await call<Versions>('GET', '/v1/versions')
  const of = (view: string) => versions.find((v) => v.view === view)!.version
  await expect(call('POST', `/v1/views/kept/versions/${of('kept')}/drop`)).rejects.toThrow(/409.*WEIR_BATCH_ACTIVE/)
  await call('POST', `/v1/views/gone/versions/${of('gone')}/drop`)
  await until('the speed state to go', 20_000, async () => {
    const header = await weir!.ports.speed.header({ dataset: 'visits', partition: 0 })
    return header !== null && header.views[of('gone')] === undefined ? true : undefined
  })
})

test('compact by the name of a view; a letter that was replayed is not appended again', {
  timeout: 60_000,
}, async () => {
  await open()
  const { id } = await call<{ id: string }>('POST', '/v1/views/kept/batch/compact')
  const job = await until('the job', 20_000, async () => {
    const found = await call<{ state: string; error?: unknown }>('GET', `/v1/jobs/${id}`)
    return found.state === 'done' || found.state === 'failed' ? found : undefined
  })
  expect(job).toMatchObject({ state: 'done' })

  const { log } = weir!.ports
  const bytes = Buffer.from('{"ts":"2026-11-25T10:00:00Z","n":"many"}\n')
  await log.append('visits', 0, [{ recordId: 'ab'.repeat(16), bytes, events: 1 }])
  type Letters = { letters: { position: string }[] }
  const position = await until(
    'the letter',
    20_000,
    async () => (await call<Letters>('GET', '/v1/dead-letters/visits')).letters[0]?.position,
  )
  const event = JSON.stringify(visit)
  await call('POST', '/v1/dead-letters/visits/replay', { positions: [position], event })
  const { endOffset } = await log.range('visits', 0)
  // An hour later the idempotency key would be forgotten; the letter's own mark is not.
  await expect(call('POST', '/v1/dead-letters/visits/replay', { positions: [position], event })).rejects.toThrow(
    /409.*WEIR_CLI_REPLAYED/,
  )
  expect((await log.range('visits', 0)).endOffset).toBe(endOffset)
})
