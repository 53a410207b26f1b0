/** Sending: chunks, numbers of lines, keys that stay the same over a retry, back-pressure, refusals. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { afterEach, expect, test } from 'vitest'
import { openClient } from '../../cli/client.ts'
import { linesOf } from '../../cli/lines.ts'
import { openSender } from '../../cli/sending.ts'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

type Handler = (body: string, request: IncomingMessage, response: ServerResponse) => void
const serve = async (handler: Handler): Promise<string> => {
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (c: Buffer) => parts.push(c))
    request.on('end', () => handler(Buffer.concat(parts).toString('utf8'), request, response))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(() => server.close())
  closing.push(() => server.closeAllConnections())
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`
}
const answer = (response: ServerResponse, status: number, body: unknown, headers = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

test('chunks by events; rejections name their line; one key per chunk', async () => {
  const keys: string[] = []
  const url = await serve((body, request, response) => {
    keys.push(String(request.headers['idempotency-key']))
    const lines = body.trim().split('\n')
    const rejected = lines.flatMap((l, index) => (l.includes('bad') ? [{ index, code: 'WEIR_X', reason: l }] : []))
    answer(response, 200, {
      accepted: lines.length - rejected.length,
      rejected,
      rejectedCount: rejected.length,
      token: `t${keys.length}`,
    })
  })
  const sender = openSender({ client: openClient({ url }), dataset: 'd', events: 2, runId: 'run' })
  for (const [i, line] of ['a', 'b', 'c', 'bad', 'e'].entries()) await sender.write(line, (i + 1) * 10)
  expect(await sender.end()).toMatchObject({
    events: 5,
    accepted: 4,
    rejected: 1,
    requests: 3,
    token: 't3',
    rejections: [{ line: 40, code: 'WEIR_X', reason: 'bad' }],
  })
  expect(keys).toEqual(['run-0', 'run-1', 'run-2'])
})

test('an overload and a broken connection are retried under the same key', async () => {
  const keys: string[] = []
  const url = await serve((_body, request, response) => {
    keys.push(String(request.headers['idempotency-key']))
    if (keys.length === 1) answer(response, 503, {}, { 'retry-after': '0.01' })
    else if (keys.length === 2) request.socket.destroy()
    else answer(response, 200, { accepted: 1, rejected: [], rejectedCount: 0, token: 't' })
  })
  const sender = openSender({ client: openClient({ url }), dataset: 'd' })
  await sender.write('{}', 1)
  expect(await sender.end()).toMatchObject({ accepted: 1 })
  expect(new Set(keys).size).toBe(1)
  expect(keys).toHaveLength(3)
})

test('a refusal is thrown as the error it tells of', async () => {
  const url = await serve((_b, _r, response) =>
    answer(response, 404, { code: 'WEIR_INGEST_UNKNOWN_DATASET', detail: 'There is no dataset d.', next: 'check' }),
  )
  const sender = openSender({ client: openClient({ url }), dataset: 'd' })
  await sender.write('{}', 1)
  await expect(sender.end()).rejects.toMatchObject({ code: 'WEIR_INGEST_UNKNOWN_DATASET', next: 'check' })
})

test('no more requests at a time than asked', async () => {
  let running = 0
  let most = 0
  const url = await serve((_b, _r, response) => {
    most = Math.max(most, ++running)
    setImmediate(() => {
      running--
      answer(response, 200, { accepted: 1, rejected: [], rejectedCount: 0, token: 't' })
    })
  })
  const sender = openSender({ client: openClient({ url }), dataset: 'd', events: 1, parallel: 2 })
  for (let i = 0; i < 20; i++) await sender.write('{}', i)
  expect(await sender.end()).toMatchObject({ accepted: 20, requests: 20 })
  expect(most).toBeLessThanOrEqual(2)
})

test('lines keep their bytes, wherever the stream is cut', async () => {
  const text = Buffer.from('one\r\n\n{"ü":"\xff"}\nlast', 'latin1')
  for (let size = 1; size <= text.length; size++) {
    const chunks = Array.from({ length: Math.ceil(text.length / size) }, (_, i) =>
      text.subarray(i * size, (i + 1) * size),
    )
    const lines: string[] = []
    for await (const line of linesOf(Readable.from(chunks))) lines.push(line.toString('latin1'))
    expect(lines).toEqual(['one\r', '', '{"ü":"\xff"}', 'last'])
  }
})
