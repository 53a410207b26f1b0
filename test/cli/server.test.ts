/** A started server and the commands that talk to it: round trip, restart, versions, keys, dead letters, two processes. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openEngine } from '../../engine/engine.ts'
import type { Answer } from '../../model/query/query.ts'
import { type Server, startServer, until } from '../support/server.ts'
import { weir, weirChild } from '../support/weir.ts'

let folder: string
let project: string
let data: string
let server: Server | undefined

const run = (args: string[], env?: Record<string, string>, stdin?: string) => {
  const whole = [...args, '--project', project, '--data', data]
  return stdin === undefined ? weir(whole, env) : weirChild(whole, env, stdin)
}
const json = async <T>(args: string[], env?: Record<string, string>): Promise<T> => {
  const { code, out, err } = await run([...args, '--json'], env)
  if (code !== 0) throw new Error(`${args.join(' ')}: ${code}\n${out}\n${err}`)
  return JSON.parse(out) as T
}
const start = async (args: string[] = []): Promise<Server> => {
  server = await startServer({ project, data, args })
  return server
}
const stop = async (): Promise<void> => {
  expect(await server!.stop()).toBe(0)
  server = undefined
}
const visits = (n: number, from = 0): string =>
  Array.from({ length: n }, (_, i) =>
    JSON.stringify({
      visit_id: `v-${from + i}`,
      ts: new Date(Date.UTC(2026, 10, 25, 10, 0, (from + i) % 600)).toISOString(),
      site: ['blog', 'shop'][i % 2],
      user_id: `u-${i % 17}`,
      seconds: i / 10,
      paid: `${i % 5}.50`,
    }),
  ).join('\n')
const totalOf = async (token?: string): Promise<number> => {
  const answer = await json<Answer>([
    'query',
    'visits_by_site',
    '--measures',
    'visits_total',
    '--by',
    '',
    '--grain',
    'all',
    ...(token === undefined ? [] : ['--at-least', token, '--wait', '20000']),
  ])
  return Number(answer.rows[0]!.visits_total)
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-server-'))
  project = join(folder, 'project')
  data = join(folder, 'data')
  await weir(['init', project])
  await writeFile(
    join(project, 'weir.yaml'),
    'schedules: { extend: "off", recompute: "off", compact: "off" }\narchive: { maxAgeMs: 300 }\n',
  )
})
afterAll(async () => {
  if (server) await server.kill()
  await rm(folder, { recursive: true, force: true })
})

test('send, query, batch, audit; a restart goes on; kill -9 loses nothing', { timeout: 120_000 }, async () => {
  await start()
  const file = join(folder, 'visits.ndjson.gz')
  await writeFile(file, gzipSync(`${visits(900)}\n\nnot json\n${visits(100, 900)}\n`))
  const sent = await run(['send', 'visits', file, '--batch', '300'])
  expect(sent).toMatchObject({ code: 1, out: 'accepted 1000  rejected 1\n' })
  expect(sent.err).toMatch(/^line 902: .*\[WEIR_/m)
  const again = await run(['send', 'visits', '-', '--json'], {}, visits(1_000))
  expect(again.code).toBe(0)
  const { token } = JSON.parse(again.out) as { token: string }
  expect(await totalOf(token)).toBe(1_000)

  const jobs = await json<{ state: string }[]>(['batch', 'extend'])
  expect(jobs).toMatchObject([{ state: 'done' }])
  const status = await json<{ datasets: object[]; views: object[] }>(['batch', 'status'])
  expect(status.datasets).toMatchObject([{ name: 'visits', counted: 1_000, duplicate: 1_000, dead: 0 }])
  expect(status.views).toMatchObject([{ name: 'visits_by_site', generation: '1', drift: 0 }])
  expect((await run(['batch', 'status'])).out).toMatch(/visits_by_site .* 1 /)

  const csv = await run([
    'query',
    'visits_by_site',
    '--grain',
    '1 hour',
    '--measures',
    'visits_total',
    '--where',
    "site = 'blog'",
    '--format',
    'csv',
  ])
  expect(csv.out.trim().split(/\r?\n/)).toEqual([
    'hour,site,visits_total'.replace('hour', 'minute'),
    expect.stringMatching(/^2026-11-25T10:00:00Z,blog,\d+$/),
  ])
  expect((await run(['query', 'visits_by_site', '--by', 'site', '--grain', 'all'])).out).toMatch(/^site +visits_total/)
  expect(await json(['query', 'visits_by_site', '--explain'])).toMatchObject({ generation: '1' })
  const missing = await run(['query', 'visits_by_sight'])
  expect(missing).toMatchObject({ code: 1, err: expect.stringContaining('WEIR_SERVING_NO_VIEW') })
  await stop()

  const second = await start()
  expect(await totalOf()).toBe(1_000)
  const more = await json<{ token: string; kinds: object }>([
    'generate',
    'visits',
    '--events',
    '500',
    '--bad',
    '0',
    '--duplicates',
    '0',
  ])
  expect(await totalOf(more.token)).toBe(1_500)
  await second.kill()

  await start()
  expect(await totalOf()).toBe(1_500)
  await json(['batch', 'recompute'])
  await json(['batch', 'verify'])
  const audited = await json<{ differences: number; events: number }[]>(['audit'])
  expect(audited).toMatchObject([{ differences: 0, events: 1_500 }])
  await json(['batch', 'rollback', 'visits_by_site', '--to', '1', '--force'])
  expect(await totalOf()).toBe(1_500)
  expect(await json(['audit'])).toMatchObject([{ differences: 0 }])
  const locked = await weir(['start', '--project', project, '--data', data, '--port', '0'])
  expect(locked).toMatchObject({ code: 1, err: expect.stringContaining('WEIR_CLI_LOCKED') })
})

test('a changed view is filled and switched; going back is instant; a changed dataset is refused', {
  timeout: 120_000,
}, async () => {
  type Version = { version: string; state: string }
  const list = async () => (await json<Version[]>(['versions', 'list'])).filter((v) => v.state !== 'dropped')
  const [old] = await list()
  await stop()
  const view = join(project, 'views', 'visits_by_site.sql')
  const before = await readFile(view, 'utf8')
  await writeFile(view, before.replace('sum(paid) AS revenue', 'sum(paid) AS revenue, max(seconds) AS longest'))
  await start()
  await until('the switch', 60_000, async () =>
    (await list()).find((v) => v.version !== old!.version && v.state === 'active'),
  )
  expect(await totalOf()).toBe(1_500)
  expect(await json(['audit'])).toMatchObject([{ differences: 0 }])
  expect(await json(['versions', 'activate', 'visits_by_site', old!.version])).toMatchObject({ state: 'activated' })
  expect((await list()).find((v) => v.state === 'active')?.version).toBe(old!.version)
  expect(await totalOf()).toBe(1_500)
  expect(await run(['versions', 'drop', 'visits_by_site', old!.version])).toMatchObject({
    code: 1,
    err: expect.stringContaining('WEIR_BATCH_ACTIVE'),
  })
  await stop()

  const dataset = join(project, 'datasets', 'visits.yaml')
  const definition = await readFile(dataset, 'utf8')
  await writeFile(dataset, definition.replace('seconds: DOUBLE', 'seconds: BIGINT'))
  await writeFile(view, before.replace('approx_quantile(seconds, 0.95)', 'max(seconds)'))
  const refused = await weir(['start', '--project', project, '--data', data, '--port', '0'])
  expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('WEIR_CLI_DATASET_CHANGED') })
  await writeFile(dataset, definition)
  await writeFile(view, before)
})

test('history from Parquet and CSV passes the door', { timeout: 60_000 }, async () => {
  const engine = await openEngine()
  await engine.withSession(async (s) => {
    const rows =
      "SELECT 'h-' || i AS visit_id, TIMESTAMP '2026-11-01 00:00:00' + INTERVAL (i) MINUTE AS ts, 'blog' AS site, (i * 1.25)::DECIMAL(18,2) AS paid FROM range(300) t(i)"
    await s.run(`COPY (${rows}) TO '${join(folder, 'h.parquet')}'`)
    await s.run(
      `COPY (SELECT visit_id || 'c' AS visit_id, * EXCLUDE (visit_id) FROM (${rows})) TO '${join(folder, 'h.csv')}'`,
    )
  })
  await engine.close()
  await start()
  const before = await totalOf()
  await json(['import', 'visits', join(folder, 'h.parquet'), '--chunk', '70'])
  const { token } = await json<{ token: string }>(['import', 'visits', join(folder, 'h.csv')])
  expect(await totalOf(token)).toBe(before + 600)
  const answer = await json<Answer>([
    'query',
    'visits_by_site',
    '--from',
    '2026-11-01',
    '--to',
    '2026-11-02',
    '--grain',
    '1 day',
    '--by',
    '',
    '--measures',
    'revenue',
  ])
  expect(answer.rows[0]!.revenue).toBe(((2 * 1.25 * 299 * 300) / 2).toFixed(2))
  const odd = await run(['import', 'visits', join(folder, 'h.csv'), '--select', 'no_such_column'])
  expect(odd).toMatchObject({ code: 1, err: expect.stringContaining('WEIR_CLI_IMPORT') })
  await stop()
})

test('roles in processes of their own; keys and their scopes over HTTP', { timeout: 120_000 }, async () => {
  const key = async (scope: string) => (await run(['keys', 'create', '--scope', scope])).out.trim()
  const [ingest, query, admin] = [await key('ingest:visits'), await key('query:visits_by_site'), await key('admin')]
  const door = await startServer({ project, data, args: ['--role', 'ingest'] })
  const rest = await start(['--role', 'speed,batch,serving'])
  try {
    const call = async (url: string, path: string, token: string | undefined, body?: string) =>
      (
        await fetch(url + path, {
          method: body === undefined ? 'GET' : 'POST',
          body,
          headers: {
            'content-type': 'application/json',
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          },
        })
      ).status
    const one = visits(1, 50_000)
    const ask = JSON.stringify({ view: 'visits_by_site', limit: 1 })
    expect(await call(door.url, '/v1/events/visits', undefined, one)).toBe(401)
    expect(await call(door.url, '/v1/events/visits', query, one)).toBe(403)
    expect(await call(door.url, '/v1/events/visits', ingest, one)).toBe(200)
    for (const [token, wanted] of [
      [undefined, 401],
      [ingest, 403],
      [query, 200],
    ] as const)
      expect(await call(rest.url, '/v1/query', token, ask)).toBe(wanted)
    for (const path of [
      '/v1/views/visits_by_site/batch/extend',
      '/v1/views/visits_by_site/audit',
      '/v1/dead-letters/visits/drop',
    ])
      for (const token of [ingest, query])
        expect(await call(rest.url, path, token, '{"positions":["0:0:0"]}'), path).toBe(403)
    for (const path of ['/v1/versions', '/v1/dead-letters/visits', '/v1/jobs', '/metrics'])
      for (const token of [ingest, query]) expect(await call(rest.url, path, token), path).toBe(403)
    expect(await call(rest.url, '/v1/versions', admin)).toBe(200)
    expect(await call(rest.url, '/metrics', admin)).toBe(200)
    // Through the commands: the server of the data folder is found, the key comes from the environment.
    expect(await run(['query', 'visits_by_site'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('WEIR_HTTP_NO_KEY'),
    })
    expect(await run(['query', 'visits_by_site', '--limit', '1'], { WEIR_API_KEY: query })).toMatchObject({ code: 0 })
    expect(await json(['audit'], { WEIR_API_KEY: admin })).toMatchObject([{ differences: 0 }])
    expect(rest.output() + door.output()).not.toContain(admin.split('_')[2])
  } finally {
    expect(await door.stop()).toBe(0)
  }
  await stop()
})
