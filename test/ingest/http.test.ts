/** The route: forms of bodies, statuses, limits, slow and broken clients. */
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, event, eventsOf, lines, openWorld, readAll, serve } from './support.ts'

afterEach(cleanUp)

type Answer = {
  status: number
  headers: Headers
  body: { code?: string; accepted?: number; rejectedCount?: number; token?: string; rejected?: { index: number }[] }
}

const post = async (
  url: string,
  body: string | Uint8Array | undefined,
  headers: Record<string, string> = {},
): Promise<Answer> => {
  const response = await fetch(url, { method: 'POST', body, headers })
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] }
}

const JSON_TYPE = { 'content-type': 'application/json' }
const NDJSON = { 'content-type': 'application/x-ndjson' }

describe('forms', () => {
  test.each<[string, string | Uint8Array, Record<string, string>, number]>([
    ['an object', event(1), JSON_TYPE, 1],
    ['a pretty object', JSON.stringify(JSON.parse(event(1)), null, 2), JSON_TYPE, 1],
    ['an array', `[${event(1)},${event(2)}]`, JSON_TYPE, 2],
    ['a pretty array', JSON.stringify([JSON.parse(event(1)), JSON.parse(event(2))], null, '\t'), JSON_TYPE, 2],
    ['lines', lines(event(1), event(2), event(3)), NDJSON, 3],
    ['lines sent as JSON', lines(event(1), event(2)), JSON_TYPE, 2],
    ['lines without the last line end', lines(event(1), event(2)).subarray(0, -1), NDJSON, 2],
    ['lines of Windows, blanks, a byte order mark', `\ufeff\r\n ${event(1)}\r\n\t\r\n${event(2)} \r\n`, NDJSON, 2],
    ['gzip', gzipSync(lines(event(1), event(2))), { ...NDJSON, 'content-encoding': 'gzip' }, 2],
    ['gzip that does not say so', gzipSync(`[${event(1)}]`), { 'content-type': 'application/octet-stream' }, 1],
    ['no content type', lines(event(1)), {}, 1],
    ['the content type of curl -d', event(1), { 'content-type': 'application/x-www-form-urlencoded' }, 1],
  ])('%s', async (_name, body, headers, count) => {
    const world = await openWorld()
    const { url } = await serve(world)
    const answer = await post(url, body, headers)
    expect([answer.status, answer.body.accepted, answer.body.rejectedCount]).toEqual([200, count, 0])
    const stored = eventsOf(await readAll(world.log)).flat()
    expect(stored.map((line) => (JSON.parse(line) as { id: string }).id)).toEqual(['1', '2', '3'].slice(0, count))
    for (const line of stored) expect(line).toMatch(/^\{.*\}$/)
  })
})

describe('statuses', () => {
  const line = event(1)
  test.each<[string, string | Uint8Array | undefined, Record<string, string>, number, string | undefined]>([
    ['nothing', undefined, {}, 400, 'WEIR_INGEST_NO_EVENTS'],
    ['empty', '', NDJSON, 400, 'WEIR_INGEST_NO_EVENTS'],
    ['blanks', ' \n\t\r\n', NDJSON, 400, 'WEIR_INGEST_NO_EVENTS'],
    ['an empty array', ' [ \n ] ', JSON_TYPE, 400, 'WEIR_INGEST_NO_EVENTS'],
    ['an open array', `[${line}`, JSON_TYPE, 400, 'WEIR_INGEST_BAD_BODY'],
    ['an array with a hole', `[${line},,${line}]`, JSON_TYPE, 400, 'WEIR_INGEST_BAD_BODY'],
    ['an array with a comma too many', `[${line},]`, JSON_TYPE, 400, 'WEIR_INGEST_BAD_BODY'],
    ['an array with something behind', `[${line}] x`, JSON_TYPE, 400, 'WEIR_INGEST_BAD_BODY'],
    ['an open string in an array', `[${line.slice(0, -3)}]`, JSON_TYPE, 400, 'WEIR_INGEST_BAD_BODY'],
    ['no gzip', line, { 'content-encoding': 'gzip' }, 400, 'WEIR_INGEST_BAD_GZIP'],
    ['half a gzip', gzipSync(line).subarray(0, 40), NDJSON, 400, 'WEIR_INGEST_BAD_GZIP'],
    ['a key too long', line, { 'idempotency-key': 'k'.repeat(256) }, 400, 'WEIR_INGEST_BAD_KEY'],
    ['an empty key', line, { 'idempotency-key': '' }, 400, 'WEIR_INGEST_BAD_KEY'],
    ['deflate', line, { 'content-encoding': 'deflate' }, 415, 'WEIR_INGEST_ENCODING'],
    ['a form', line, { 'content-type': 'multipart/form-data; boundary=x' }, 415, 'WEIR_INGEST_MEDIA_TYPE'],
    ['latin1', line, { 'content-type': 'application/json; charset=latin1' }, 415, 'WEIR_INGEST_MEDIA_TYPE'],
    [
      'a body too large',
      lines(...Array.from({ length: 900 }, (_, i) => event(i))),
      NDJSON,
      413,
      'WEIR_INGEST_TOO_LARGE',
    ],
    ['too many events', '{}\n'.repeat(1_001), NDJSON, 413, 'WEIR_INGEST_TOO_MANY_EVENTS'],
    ['too many events in an array', `[${'1,'.repeat(1_000)}1]`, JSON_TYPE, 413, 'WEIR_INGEST_TOO_MANY_EVENTS'],
    ['only bad events', '{}\n{}', NDJSON, 422, undefined],
    ['text', 'hello', { 'content-type': 'text/plain' }, 422, undefined],
  ])('%s', async (name, body, headers, status, code) => {
    const world = await openWorld({ ingest: { bodyBytes: 50_000, eventsPerRequest: 1_000 } })
    const { url } = await serve(world)
    const answer = await post(url, body, headers)
    expect([answer.status, answer.body.code], name).toEqual([status, code])
    if (status === 422) {
      expect(answer.body.accepted).toBe(0)
      expect(answer.body.rejectedCount).toBeGreaterThan(0)
      expect(answer.body.token).toBeUndefined()
    } else expect(answer.headers.get('content-type')).toMatch('application/problem+json')
    expect(await readAll(world.log)).toEqual([])
    expect(world.door.inFlightBytes()).toBe(0)
    // and the next one is served
    expect((await post(url, line)).status).toBe(200)
  })

  test('an unknown dataset is 404, and a closed door 503 with Retry-After', async () => {
    const world = await openWorld()
    const { url } = await serve(world)
    const unknown = await post(url.replace('orders', 'nothing'), event(1))
    expect([unknown.status, unknown.body.code]).toEqual([404, 'WEIR_INGEST_UNKNOWN_DATASET'])
    await world.door.close()
    const stopped = await post(url, event(1))
    expect([stopped.status, stopped.body.code, stopped.headers.get('retry-after')]).toEqual([
      503,
      'WEIR_INGEST_STOPPING',
      '1',
    ])
  })

  test('at most 1,000 rejections are listed, all are counted', async () => {
    const world = await openWorld()
    const { url } = await serve(world)
    const answer = await post(url, `${'{}\n'.repeat(1_500)}${event(1)}\n`, NDJSON)
    expect([answer.status, answer.body.accepted, answer.body.rejectedCount]).toEqual([200, 1, 1_500])
    expect(answer.body.rejected!.length).toBe(1_000)
    expect((await world.rejects.counts('orders')).kept).toBe(1_500)
  })

  test('metrics count what was answered', async () => {
    const world = await openWorld()
    const { app, url } = await serve(world)
    await post(url, `${event(1)}\n{}\n`, NDJSON)
    const text = (await app.inject('/metrics')).body
    expect(text).toMatch('weir_ingest_accepted_events_total{dataset="orders"} 1')
    expect(text).toMatch('weir_ingest_rejected_events_total{dataset="orders"} 1')
    expect(text).toMatch(/weir_ingest_durable_seconds_count\{dataset="orders"\} 1/)
    expect((await app.inject('/openapi.json')).json().paths['/v1/events/{dataset}'].post.responses['422']).toBeDefined()
  })
})

describe('bounds', () => {
  test('lines and depth: the event is rejected, its neighbours are not', async () => {
    const world = await openWorld({ ingest: { lineBytes: 300, depth: 4 } })
    const { url } = await serve(world)
    const deep = (n: number) => event(n, { x: '@' }).replace('"@"', `${'['.repeat(n)}${']'.repeat(n)}`)
    const body = [event(0), event(1, { note: 'x'.repeat(300) }), deep(3), deep(4), event(4, { note: '[[[[[[[[[[' })]
    for (const [headers, text] of [
      [NDJSON, body.join('\n')],
      [JSON_TYPE, `[${body.join(',')}]`],
    ] as const) {
      const answer = await post(url, text, headers)
      expect(answer.body).toMatchObject({
        accepted: 3,
        rejected: [
          { index: 1, code: 'WEIR_INGEST_EVENT_TOO_LONG' },
          { index: 3, code: 'WEIR_INGEST_EVENT_TOO_DEEP' },
        ],
      })
    }
  })

  test('a million brackets are one rejected event', async () => {
    const world = await openWorld({ ingest: { lineBytes: 16 * 1024 * 1024 } })
    const { url } = await serve(world)
    const n = 1_000_000
    const bomb = `{"x":${'['.repeat(n)}${']'.repeat(n)}}`
    expect((await post(url, `${bomb}\n${event(1)}`, NDJSON)).body).toMatchObject({ accepted: 1, rejectedCount: 1 })
    expect((await post(url, `[${bomb}]`, JSON_TYPE)).status).toBe(422)
    expect((await post(url, '['.repeat(n), JSON_TYPE)).status).toBe(400)
  })

  test('gzip bombs are met while they inflate', async () => {
    const world = await openWorld({ ingest: { bodyBytes: 8 * 1024 * 1024, inflateRatio: 100 } })
    const { url } = await serve(world)
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 32))
    expect((await post(url, bomb, { 'content-encoding': 'gzip' })).body.code).toBe('WEIR_INGEST_RATIO')
    const dense = gzipSync(Buffer.alloc(16 * 1024 * 1024, 'abcdefghij\n'), { level: 0 })
    expect((await post(url, dense, { 'content-encoding': 'gzip' })).body.code).toBe('WEIR_INGEST_TOO_LARGE')
    const twice = gzipSync(gzipSync(event(1)))
    expect((await post(url, twice, { 'content-encoding': 'gzip' })).status).toBe(422)
    expect(world.door.inFlightBytes()).toBe(0)
  })

  test('above the bytes in flight: 429 with Retry-After, and the same request passes later', async () => {
    let release: () => void = () => undefined
    const gate = new Promise<void>((resolve) => {
      release = resolve
    })
    const world = await openWorld({
      ingest: { inFlightBytes: 1_024, bodyBytes: 1_024 },
      log: (log) => ({
        ...log,
        append: async (...of) => {
          await gate
          return log.append(...of)
        },
      }),
    })
    const { url } = await serve(world)
    const first = post(url, lines(event(1, { note: 'x'.repeat(800) })), NDJSON)
    await expect.poll(() => world.door.inFlightBytes(), { timeout: 10_000, interval: 5 }).toBeGreaterThan(800)
    const second = await post(url, lines(event(2, { note: 'x'.repeat(800) })), { ...NDJSON, 'idempotency-key': 'a' })
    expect([second.status, second.headers.get('retry-after')]).toEqual([429, '1'])
    release()
    expect((await first).status).toBe(200)
    const again = await post(url, lines(event(2, { note: 'x'.repeat(800) })), { ...NDJSON, 'idempotency-key': 'a' })
    expect(again.status).toBe(200)
    expect(eventsOf(await readAll(world.log)).flat().length).toBe(2)
  })
})

test('a body larger than the bytes in flight passes when it is alone', async () => {
  const world = await openWorld({ ingest: { inFlightBytes: 1_024, bodyBytes: 200_000 } })
  const { url } = await serve(world)
  const answer = await post(url, lines(...Array.from({ length: 1_000 }, (_, i) => event(i))), NDJSON)
  expect([answer.status, answer.body.accepted]).toEqual([200, 1_000])
})

/** Sends raw text, in pieces as the server takes them, and gives back all that comes until the connection closes. */
const talk = (port: number, pieces: string[]): Promise<string> =>
  new Promise((resolve) => {
    let got = ''
    const socket = connect(port, '127.0.0.1', () => {
      for (const piece of pieces) socket.write(piece)
    })
    socket.on('data', (d) => {
      got += d
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(got))
  })

const head = (length: number | string): string =>
  `POST /v1/events/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n${
    typeof length === 'number' ? `Content-Length: ${length}` : length
  }\r\n\r\n`

describe('broken clients', () => {
  test('a body that stops in the middle is answered 408 and holds nothing', async () => {
    const world = await openWorld()
    const { port, url } = await serve(world, { requestTimeoutMs: 300 })
    const [slow, chunked] = await Promise.all([
      talk(port, [head(500), event(1)]),
      talk(port, [head('Transfer-Encoding: chunked'), '5\r\n{"id"\r\n']),
    ])
    expect(slow).toMatch(/^HTTP\/1.1 408 /)
    expect(chunked).toMatch(/^HTTP\/1.1 408 /)
    expect(world.door.inFlightBytes()).toBe(0)
    expect(await readAll(world.log)).toEqual([])
    expect((await post(url, event(1))).status).toBe(200)
  })

  test('a client that leaves in the middle leaves nothing', async () => {
    const world = await openWorld()
    const { port, url } = await serve(world)
    await new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.write(head(5_000) + lines(event(1), event(2)).toString()))
      void expect
        .poll(() => world.door.inFlightBytes(), { timeout: 10_000, interval: 5 })
        .toBeGreaterThan(0)
        .then(() => socket.destroy())
      socket.on('close', () => resolve())
    })
    await expect.poll(() => world.door.inFlightBytes(), { timeout: 10_000, interval: 5 }).toBe(0)
    expect(await readAll(world.log)).toEqual([])
    expect((await post(url, event(1))).status).toBe(200)
  })

  test('a body that claims or sends too much is answered 413 at once and not read to its end', async () => {
    const world = await openWorld({ ingest: { bodyBytes: 10_000 } })
    const { port } = await serve(world)
    const claimed = talk(port, [head(1_000_000_000), event(1)])
    const endless = talk(port, [
      head('Transfer-Encoding: chunked'),
      ...Array.from({ length: 20 }, () => `1000\r\n${' '.repeat(4096)}\r\n`),
    ])
    for (const answer of [await claimed, await endless]) {
      expect(answer).toMatch(/^HTTP\/1.1 413 /)
      expect(answer).toMatch('WEIR_INGEST_TOO_LARGE')
      expect(answer.toLowerCase()).toMatch('connection: close')
    }
    expect(world.door.inFlightBytes()).toBe(0)
  })

  test('two requests on one connection, the first refused whole: the second is served', async () => {
    const world = await openWorld({ ingest: { bodyBytes: 1_024 } })
    const { port } = await serve(world)
    const first = `${head(2_000)}${' '.repeat(2_000)}`
    const second = `${head(event(1).length).replace('localhost', 'localhost\r\nConnection: close')}${event(1)}`
    const answers = await talk(port, [first, second])
    expect(answers.match(/HTTP\/1.1 \d+/g)).toEqual(['HTTP/1.1 413', 'HTTP/1.1 200'])
  })
})
