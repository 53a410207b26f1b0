/** The HTTP face of the serving layer: forms, statuses, scopes. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createApp, type FastifyInstance } from '../../http/app.ts'
import { newKey } from '../../http/auth.ts'
import { WeirError } from '../../model/errors.ts'
import type { ApiKey } from '../../model/ports/rejects.ts'
import type { Job, JobRequest, Scheduler } from '../../model/ports/scheduler.ts'
import { servingRoutes } from '../../serving-layer/routes.ts'
import { type Lab, openLab } from './support.ts'

let lab: Lab
let app: FastifyInstance
const submitted: JobRequest[] = []
const tokens: Record<string, string> = {}

const scheduler: Scheduler = {
  schedule: async () => undefined,
  submit: async (request) => {
    if (request.options?.force === 'x')
      throw new WeirError({ code: 'WEIR_CLI_NO_BATCH_ROLE', message: 'elsewhere', next: 'ask the other' })
    submitted.push(request)
    return `job-${submitted.length}`
  },
  job: async (id) => jobs.find((j) => j.id === id) ?? null,
  jobs: async (limit) => {
    listings++
    return jobs.slice(0, limit)
  },
  cancel: async () => false,
  close: async () => undefined,
}
let listings = 0
const jobs: Job[] = [
  { id: 'job-9', view: 'takings', action: 'extend', state: 'done', progress: 1 },
  { id: 'job-8', view: 'takings', action: 'extend', state: 'failed', progress: 0.5 },
]

beforeAll(async () => {
  lab = await openLab({ seed: 12 })
  await lab.append(60)
  await lab.speedUp()
  await lab.extend()
  await lab.append(20)
  await lab.speedUp()
  const keys: ApiKey[] = []
  const add = (name: string, scopes: string[], where?: Record<string, string>): void => {
    const made = newKey(name, scopes, where)
    keys.push(made.key)
    tokens[name] = made.token
  }
  add('admin', ['admin', 'query:*'])
  add('boss', ['admin'])
  add('takings', ['query:takings'])
  add('shops', ['query:shops'])
  add('writer', ['ingest:sales'])
  add('german', ['query:*'], { country: 'DE' })
  const store = { list: async () => keys, add: async () => undefined, revoke: async () => false }
  app = await createApp({ keys: store, version: '0' })
  servingRoutes(app, lab.serving, scheduler)
  await app.ready()
})
afterAll(async () => {
  await app.close()
  await lab.close()
})

type Ask = { key?: string; headers?: Record<string, string> }
const send = (method: 'GET' | 'POST', url: string, body?: unknown, { key = 'admin', headers = {} }: Ask = {}) =>
  app.inject({
    method,
    url,
    headers: { authorization: `Bearer ${tokens[key]}`, ...headers },
    ...(body === undefined ? {} : { payload: body as object }),
  })
const QUERY = { view: 'takings', dimensions: ['country'], grain: 'all', measures: ['sold', 'total'] }

describe('POST /v1/query', () => {
  it('answers with columns, rows, asOf, timing and an ETag, then 304', async () => {
    const reply = await send('POST', '/v1/query', QUERY)
    expect(reply.statusCode).toBe(200)
    const answer = reply.json()
    expect(answer.columns).toEqual([
      { name: 'country', type: 'VARCHAR' },
      { name: 'sold', type: 'COUNT' },
      { name: 'total', type: 'DECIMAL(38,2)' },
    ])
    expect(answer.rows.reduce((n: number, row: { sold: number }) => n + row.sold, 0)).toBe(80)
    expect(answer.asOf.generation).toBe('1')
    expect(answer.timing.lagRecords).toBe(0)
    const etag = reply.headers.etag as string
    const again = await send('POST', '/v1/query', QUERY, { headers: { 'if-none-match': `"x", ${etag}` } })
    expect([again.statusCode, again.body, again.headers.etag]).toEqual([304, '', etag])
  })
  it('speaks CSV and NDJSON', async () => {
    const json = (await send('POST', '/v1/query', QUERY)).json()
    const csv = await send('POST', '/v1/query', { ...QUERY, limit: 3 }, { headers: { accept: 'text/csv' } })
    expect(csv.headers['content-type']).toContain('text/csv')
    expect(csv.headers['weir-truncated']).toBe('true')
    expect(JSON.parse(csv.headers['weir-as-of'] as string)).toEqual(json.asOf)
    expect(csv.body.split('\r\n').slice(0, 2)).toEqual([
      'country,sold,total',
      `"",${json.rows[0].sold},${json.rows[0].total}`,
    ])
    const nd = await send('POST', '/v1/query', QUERY, { headers: { accept: 'application/x-ndjson' } })
    expect(nd.headers['weir-truncated']).toBeUndefined()
    expect(
      nd.body
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(json.rows)
    const last = json.rows.at(-1)
    const whole = await send('POST', '/v1/query', QUERY, {
      headers: { accept: 'text/csv;q=0.9, application/json;q=0.1' },
    })
    expect(whole.body.trimEnd().split('\r\n').at(-1)).toBe(`,${last.sold},${last.total}`)
    expect((await send('POST', '/v1/query', QUERY, { headers: { accept: 'image/png' } })).statusCode).toBe(406)
  })
  it.each<[string, unknown, number, string, RegExp]>([
    ['a misspelt key', { ...QUERY, dimension: [] }, 400, 'WEIR_MODEL_QUERY_NAME', /did you mean dimensions/],
    ['a misspelt measure', { ...QUERY, measures: ['totl'] }, 400, 'WEIR_MODEL_QUERY_NAME', /did you mean total/],
    [
      'a range off the grain',
      { ...QUERY, timeRange: { from: '2026-11-24T08:20:00Z' } },
      400,
      'WEIR_MODEL_QUERY_TIME',
      /./,
    ],
    ['a wrong type', { ...QUERY, limit: '5' }, 400, 'WEIR_HTTP_BAD_REQUEST', /./],
    ['both kinds of range', { ...QUERY, timeRange: { last: '1 day', from: 'x' } }, 400, 'WEIR_HTTP_BAD_REQUEST', /./],
    ['an unknown view', { ...QUERY, view: 'nothing' }, 404, 'WEIR_SERVING_NO_VIEW', /./],
    ['a bad token', { ...QUERY, atLeast: 'x' }, 400, 'WEIR_MODEL_BAD_TOKEN', /./],
  ])('refuses %s', async (_, body, status, code, next) => {
    const reply = await send('POST', '/v1/query', body)
    expect([reply.statusCode, reply.json().code]).toEqual([status, code])
    expect(reply.json().next).toMatch(next)
    expect(reply.headers['content-type']).toContain('application/problem+json')
  })
  it('says 504 for what is not there in time, with Retry-After', async () => {
    const token = await lab.append(1, 0)
    const reply = await send('POST', '/v1/query', { ...QUERY, atLeast: token, waitMs: 5 })
    expect([reply.statusCode, reply.headers['retry-after']]).toEqual([504, '1'])
    await lab.speedUp()
    expect((await send('POST', '/v1/query', { ...QUERY, atLeast: token })).statusCode).toBe(200)
  })
  it('explains its plan', async () => {
    const reply = await send('POST', '/v1/query/explain', { ...QUERY, timeRange: { last: '3 hours' } })
    expect(reply.statusCode).toBe(200)
    const plan = reply.json()
    expect(plan.generation).toBe('1')
    expect(plan.prunedFiles).toBeGreaterThan(0)
    expect(plan.partitions[0].epochs[0].from).toBe(plan.partitions[0].cut)
    expect(plan.sql).toContain('GROUP BY')
  })
})

describe('scopes', () => {
  it('keep views apart, whether they exist or not', async () => {
    const own = await send('POST', '/v1/query', QUERY, { key: 'takings' })
    expect(own.statusCode).toBe(200)
    const other = await send('POST', '/v1/query', { view: 'shops' }, { key: 'takings' })
    const none = await send('POST', '/v1/query', { view: 'nothing' }, { key: 'takings' })
    expect([other.statusCode, none.statusCode]).toEqual([403, 403])
    expect(other.body.replaceAll('shops', '?')).toBe(none.body.replaceAll('nothing', '?'))
    expect((await send('POST', '/v1/query', QUERY, { key: 'writer' })).statusCode).toBe(403)
    expect((await send('POST', '/v1/query', QUERY, { key: 'boss' })).statusCode).toBe(403)
    expect((await app.inject({ method: 'POST', url: '/v1/query', payload: QUERY })).statusCode).toBe(401)
  })
  it('filter lists', async () => {
    const views = async (key: string) =>
      (await send('GET', '/v1/views', undefined, { key })).json().views.map((v: { name: string }) => v.name)
    expect(await views('admin')).toEqual(['shops', 'takings'])
    expect(await views('boss')).toEqual(['shops', 'takings'])
    expect(await views('shops')).toEqual(['shops'])
    expect(await views('writer')).toEqual([])
    expect((await send('GET', '/v1/views/takings', undefined, { key: 'shops' })).statusCode).toBe(403)
    const status = (await send('GET', '/v1/status', undefined, { key: 'shops' })).json()
    expect(status.views.map((v: { name: string }) => v.name)).toEqual(['shops'])
    expect(status.datasets).toEqual([])
    expect(JSON.stringify(status)).not.toContain('takings')
    const datasets = async (key: string) =>
      (await send('GET', '/v1/datasets', undefined, { key })).json().datasets.length
    expect([await datasets('writer'), await datasets('shops'), await datasets('boss')]).toEqual([1, 0, 1])
  })
  it('force filters into every query, and into nothing else', async () => {
    const reply = await send('POST', '/v1/query', QUERY, { key: 'german' })
    expect(reply.json().rows.map((r: { country: string }) => r.country)).toEqual(['DE'])
    expect((await send('POST', '/v1/query', { view: 'shops' }, { key: 'german' })).statusCode).toBe(403)
    expect((await send('POST', '/v1/query/explain', QUERY, { key: 'german' })).statusCode).toBe(403)
    // The ETag of the unfiltered answer does not hold for this key.
    const { etag } = (await send('POST', '/v1/query', QUERY)).headers
    const cached = await send('POST', '/v1/query', QUERY, {
      key: 'german',
      headers: { 'if-none-match': etag as string },
    })
    expect(cached.statusCode).toBe(200)
  })
})

describe('definitions, status, jobs', () => {
  it('describes a view', async () => {
    const view = (await send('GET', '/v1/views/takings')).json()
    expect(view.bucket).toEqual({ name: 'hour', grain: '1 hour' })
    expect(view.measures.find((m: { name: string }) => m.name === 'buyers')).toEqual({
      name: 'buyers',
      type: 'COUNT',
      approximate: true,
    })
    expect((await send('GET', '/v1/views/nothing')).statusCode).toBe(404)
  })
  it('tells where everything is', async () => {
    const status = (await send('GET', '/v1/status')).json()
    const [sales] = status.datasets
    expect(sales.appended).toBe(sales.counted + sales.duplicate + sales.dead)
    const takings = status.views.find((v: { name: string }) => v.name === 'takings')
    expect(takings).toMatchObject({ generation: '1', lag: { records: 0, ms: 0 }, problem: null })
    expect(takings.runs.extend.id).toBe('job-9')
  })
  it('lists jobs for the status once a second, and tells of the end of one that was followed', async () => {
    listings = 0
    await Promise.all(Array.from({ length: 10 }, () => send('GET', '/v1/status')))
    expect(listings).toBeLessThan(10)
    jobs.unshift({ ...jobs[0]!, id: 'job-10' })
    expect((await send('GET', '/v1/jobs/job-10')).json().state).toBe('done')
    const status = (await send('GET', '/v1/status')).json()
    expect(status.views.find((v: { name: string }) => v.name === 'takings').runs.extend.id).toBe('job-10')
    jobs.shift()
  })
  it('counts what was appended beyond the speed side', async () => {
    await lab.append(7, 1)
    const [sales] = (await send('GET', '/v1/status')).json().datasets
    expect(sales.appended).toBe(sales.counted + sales.duplicate + sales.dead + 7)
    await lab.speedUp()
  })
  it('submits jobs for administrators only', async () => {
    const reply = await send('POST', '/v1/views/takings/batch/rollback', { generation: 1, force: true })
    expect([reply.statusCode, reply.json()]).toEqual([202, { id: 'job-1' }])
    expect(submitted.at(-1)).toEqual({ view: 'takings', action: 'rollback', options: { generation: 1, force: true } })
    expect((await send('POST', '/v1/views/takings/batch/extend')).statusCode).toBe(202)
    expect((await send('POST', '/v1/views/takings/batch/explode', {})).statusCode).toBe(400)
    expect((await send('POST', '/v1/views/nothing/batch/extend', {})).statusCode).toBe(404)
    expect((await send('POST', '/v1/views/takings/batch/extend', { force: 'x' })).statusCode).toBe(503)
    expect((await send('POST', '/v1/views/takings/batch/extend', {}, { key: 'takings' })).statusCode).toBe(403)
    expect((await send('GET', '/v1/jobs', undefined, { key: 'takings' })).statusCode).toBe(403)
    expect((await send('GET', '/v1/jobs?limit=1')).json().jobs).toHaveLength(1)
    expect((await send('GET', '/v1/jobs/job-8')).json().state).toBe('failed')
    expect((await send('GET', '/v1/jobs/none')).statusCode).toBe(404)
  })
  it('has a page at / that says nothing to strangers', async () => {
    const stranger = await app.inject({ method: 'GET', url: '/' })
    expect(stranger.statusCode).toBe(200)
    expect(stranger.body).not.toContain('takings')
    const page = await send('GET', '/')
    expect(page.headers['content-type']).toContain('text/html')
    expect(page.body).toContain('takings')
    expect((await send('GET', '/', undefined, { key: 'shops' })).body).not.toContain('takings')
  })
  it('is measured and described', async () => {
    const metrics = (await send('GET', '/metrics')).body
    expect(metrics).toMatch(/weir_query_seconds_count\{view="takings",outcome="answered"\} [1-9]/)
    expect(metrics).toContain('weir_view_lag_records{view="takings"} 0')
    expect(metrics).not.toContain('view="nothing"')
    const openapi = (await app.inject({ method: 'GET', url: '/openapi.json' })).json()
    for (const path of ['/v1/query', '/v1/views', '/v1/views/{view}', '/v1/status', '/v1/jobs/{id}', '/v1/datasets'])
      expect(openapi.paths[path], path).toBeDefined()
  })
})
