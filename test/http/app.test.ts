/** The shared app: problem documents for everything, keys, scopes, binding, health, OpenAPI, slow clients. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Type from 'typebox'
import { afterEach, describe, expect, test } from 'vitest'
import { createApp, type FastifyInstance, requireScope } from '../../http/app.ts'
import { assertBinding, newKey } from '../../http/auth.ts'
import { openFolderKeys } from '../../http/folder-keys.ts'
import { problem } from '../../http/problems.ts'
import { WeirError } from '../../model/errors.ts'
import type { ApiKey, KeyStore } from '../../model/ports/rejects.ts'

const closing: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const memoryKeys = (keys: ApiKey[]): KeyStore => ({
  list: async () => keys,
  add: async (key) => void keys.push(key),
  revoke: async (id) => {
    const key = keys.find((k) => k.id === id)
    if (key) key.revokedAt = 'now'
    return key !== undefined
  },
})

const app = async (options: Partial<Parameters<typeof createApp>[0]> = {}): Promise<FastifyInstance> => {
  const made = await createApp({ keys: null, version: '0', ...options })
  closing.push(() => made.close())
  made.get('/admin/page', { onRequest: requireScope('admin') }, async () => 'a page')
  made.post('/v1/things/:thing', {
    preHandler: requireScope('query', (r) => (r.params as { thing: string }).thing),
    schema: { body: Type.Object({ n: Type.Integer() }, { additionalProperties: false }) },
    handler: async (r) => ({ n: (r.body as { n: number }).n, where: r.auth.where ?? null }),
  })
  made.get('/v1/list', {
    onRequest: requireScope('query'),
    schema: { querystring: Type.Object({ limit: Type.Integer({ default: 7, minimum: 1 }) }) },
    handler: async (r) => r.query,
  })
  made.get('/v1/throws/:how', {
    handler: async (r) => {
      const how = (r.params as { how: string }).how
      if (how === 'plain') throw new Error('secret inside')
      if (how === 'retry') throw new WeirError({ code: 'WEIR_X_Y', message: 'later', retryable: true })
      throw problem(422, { code: 'WEIR_X_Z', message: 'm', expected: 'e', got: 'g', next: 'n' })
    },
  })
  return made
}

describe('problems', () => {
  test('a server with a part of the routes says so to who asks for another', async () => {
    const a = await app({ part: 'this server has the role ingest: others have the rest' })
    const r = await a.inject({ method: 'GET', url: '/v1/query' })
    expect(r.json()).toMatchObject({
      code: 'WEIR_HTTP_NOT_FOUND',
      next: 'this server has the role ingest: others have the rest; see /docs for its routes',
    })
  })

  test.each([
    ['GET', '/nowhere', undefined, undefined, 404, 'WEIR_HTTP_NOT_FOUND'],
    ['GET', '/v1/things/a', undefined, undefined, 405, 'WEIR_HTTP_METHOD'],
    ['POST', '/v1/things/a', '{', 'application/json', 400, 'WEIR_HTTP_BAD_JSON'],
    ['POST', '/v1/things/a', '', 'application/json', 400, 'WEIR_HTTP_BAD_JSON'],
    ['POST', '/v1/things/a', '{"n":1,"__proto__":{}}', 'application/json', 400, 'WEIR_HTTP_BAD_JSON'],
    ['POST', '/v1/things/a', '{"n":"1"}', 'application/json', 400, 'WEIR_HTTP_BAD_REQUEST'],
    ['POST', '/v1/things/a', '{"n":1,"m":2}', 'application/json', 400, 'WEIR_HTTP_BAD_REQUEST'],
    ['POST', '/v1/things/a', 'n=1', 'application/x-www-form-urlencoded', 415, 'WEIR_HTTP_MEDIA_TYPE'],
    ['POST', '/v1/things/a', `"${'x'.repeat(2000)}"`, 'application/json', 413, 'WEIR_HTTP_BODY_TOO_LARGE'],
    ['GET', '/v1/list?limit=none', undefined, undefined, 400, 'WEIR_HTTP_BAD_REQUEST'],
    ['GET', '/v1/%ff', undefined, undefined, 400, 'WEIR_HTTP_BAD_REQUEST'],
    ['GET', '/v1/throws/x', undefined, undefined, 422, 'WEIR_X_Z'],
    ['GET', '/v1/throws/retry', undefined, undefined, 503, 'WEIR_X_Y'],
    ['GET', '/v1/throws/plain', undefined, undefined, 500, 'WEIR_HTTP_INTERNAL'],
  ] as const)('%s %s %s', async (method, url, payload, type, status, code) => {
    const a = await app({ limits: { bodyBytes: 1000 } })
    const r = await a.inject({ method, url, payload, headers: type ? { 'content-type': type } : {} })
    expect([r.statusCode, r.json().code]).toEqual([status, code])
    expect(r.headers['content-type']).toMatch('application/problem+json')
    expect(r.json().status).toBe(status)
    expect(r.body).not.toContain('secret')
    if (status === 405) expect(r.headers.allow).toBe('POST')
    if (status === 503) expect(r.headers['retry-after']).toBe('1')
  })

  test('query strings are converted, defaults filled in', async () => {
    const a = await app()
    expect((await a.inject('/v1/list?limit=12')).json()).toEqual({ limit: 12 })
    expect((await a.inject('/v1/list')).json()).toEqual({ limit: 7 })
  })
})

describe('keys', () => {
  const made = {
    reader: newKey('r', ['query:a'], { customer: '42' }),
    writer: newKey('w', ['ingest:a']),
    admin: newKey('a', ['admin']),
    all: newKey('all', ['*']),
  }
  const keyed = () => app({ keys: memoryKeys(Object.values(made).map((m) => ({ ...m.key }))) })
  const ask = async (a: FastifyInstance, token: string | null, url = '/v1/things/a') =>
    a.inject({ method: 'POST', url, payload: { n: 1 }, headers: token ? { authorization: `Bearer ${token}` } : {} })

  test('401 without or with a wrong key, 403 without the scope, forced filters for the handler', async () => {
    const a = await keyed()
    expect((await ask(a, null)).statusCode).toBe(401)
    expect((await ask(a, null)).headers['www-authenticate']).toMatch('Bearer')
    // A browser that is asked for a password sends the key as one.
    const basic = (password: string) => ({ authorization: `Basic ${Buffer.from(`me:${password}`).toString('base64')}` })
    const page = (headers: Record<string, string>, url = '/admin/page') => a.inject({ method: 'GET', url, headers })
    expect((await page(basic(made.admin.token))).statusCode).toBe(200)
    expect((await page(basic(`${made.admin.token}0`))).statusCode).toBe(401)
    expect((await page({ authorization: 'Basic !!!' })).statusCode).toBe(401)
    // Only for pages: what a browser sends by itself, another site can make it send.
    expect((await page(basic(made.admin.token), '/metrics')).statusCode).toBe(401)
    expect((await a.inject({ method: 'POST', url: '/v1/things/a', headers: basic(made.all.token) })).statusCode).toBe(
      401,
    )
    expect((await ask(a, 'wk_abc_def')).statusCode).toBe(401)
    expect((await ask(a, `${made.reader.token}0`)).statusCode).toBe(401)
    expect((await ask(a, made.reader.token)).json()).toEqual({ n: 1, where: { customer: '42' } })
    expect((await ask(a, made.reader.token, '/v1/things/b')).statusCode).toBe(403)
    for (const other of [made.writer, made.admin]) expect((await ask(a, other.token)).statusCode).toBe(403)
    expect((await ask(a, made.all.token)).statusCode).toBe(200)
  })

  test('public routes need none, metrics need their scope, a revoked key is out at once', async () => {
    const keys = memoryKeys(Object.values(made).map((m) => ({ ...m.key })))
    const a = await app({ keys, readiness: async () => ({ ready: false, reasons: ['orders: no log'] }) })
    for (const url of ['/healthz', '/openapi.json', '/docs']) expect((await a.inject(url)).statusCode, url).toBe(200)
    expect((await a.inject('/readyz')).json()).toEqual({ ready: false })
    const admin = { authorization: `Bearer ${made.admin.token}` }
    expect((await a.inject({ url: '/readyz', headers: admin })).json().reasons).toEqual(['orders: no log'])
    expect((await a.inject('/metrics')).statusCode).toBe(401)
    expect((await a.inject({ url: '/metrics', headers: admin })).statusCode).toBe(200)
    await keys.revoke(made.admin.key.id)
    expect((await a.inject({ url: '/metrics', headers: admin })).statusCode).toBe(401)
  })

  test('the key file survives, keeps no secret, and is read anew when it changes', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weir-keys-'))
    closing.push(() => rm(folder, { recursive: true }))
    const one = await openFolderKeys(folder)
    const two = await openFolderKeys(folder)
    expect(await two.list()).toEqual([])
    await Promise.all([one.add(made.reader.key), one.add(made.writer.key)])
    expect((await two.list()).map((k) => k.name)).toEqual(['r', 'w'])
    expect(await two.revoke(made.reader.key.id)).toBe(true)
    expect(await two.revoke('none')).toBe(false)
    expect((await one.list())[0]!.revokedAt).toBeDefined()
    const text = await readFile(join(folder, 'keys.json'), 'utf8')
    expect(text).not.toContain(made.reader.token.split('_')[2])
    expect((await stat(join(folder, 'keys.json'))).mode & 0o077).toBe(0)
  })

  test('scopes are checked when a key is made; no keys means loopback', () => {
    expect(() => newKey('x', ['ingest'])).toThrow('not a scope')
    expect(() => newKey('x', [])).toThrow('scope')
    for (const host of ['127.0.0.1', '::1', 'localhost']) assertBinding(host, false)
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'example.com', '127.0.0.1.example.com'])
      expect(() => assertBinding(host, false)).toThrow('does not listen')
    assertBinding('0.0.0.0', true)
  })

  test('without keys, a foreign Host name or another site is refused', async () => {
    const a = await app()
    expect((await a.inject({ url: '/healthz', headers: { host: 'evil.example:8080' } })).statusCode).toBe(403)
    const cross = { 'sec-fetch-site': 'cross-site' }
    const r = await a.inject({ method: 'POST', url: '/v1/things/a', payload: { n: 1 }, headers: cross })
    expect(r.statusCode).toBe(403)
  })
})

test('OpenAPI 3.1 lists the routes; metrics count requests; security headers are set', async () => {
  const a = await app()
  const spec = (await a.inject('/openapi.json')).json()
  expect(spec.openapi).toBe('3.1.0')
  expect(Object.keys(spec.paths)).toContain('/v1/things/{thing}')
  const health = await a.inject('/healthz')
  expect(health.headers['x-content-type-options']).toBe('nosniff')
  expect((await a.inject('/metrics')).body).toMatch(/weir_http_request_seconds_count\{.*route="\/healthz".*\} 1/)
})

test('slow headers, slow bodies and noise are answered and closed', async () => {
  const a = await app({ limits: { requestTimeoutMs: 300 } })
  await a.listen({ port: 0, host: '127.0.0.1' })
  const port = (a.server.address() as { port: number }).port
  const talk = (text: string): Promise<string> =>
    new Promise((resolve) => {
      let got = ''
      const socket = connect(port, '127.0.0.1', () => socket.write(text))
      socket.on('data', (d) => {
        got += d
      })
      socket.on('error', () => undefined)
      socket.on('close', () => resolve(got))
    })
  const [headers, body, noise, large] = await Promise.all([
    talk('POST /v1/things/a HTTP/1.1\r\nHost: localhost\r\n'),
    talk(
      'POST /v1/things/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
    ),
    talk('\0\0\0 nothing\r\n\r\n'),
    talk(`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`),
  ])
  for (const answer of [headers, body]) expect(answer).toMatch(/^HTTP\/1.1 408 [\s\S]*WEIR_HTTP_TOO_SLOW/)
  expect(noise).toMatch(/^HTTP\/1.1 400 [\s\S]*WEIR_HTTP_NOT_HTTP/)
  expect(large).toMatch(/^HTTP\/1.1 431 /)
})
