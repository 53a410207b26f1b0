/**
 * Bad input over a listening server: no crash, no 5xx, no silent drop; and what was accepted, the decoder accepts.
 * WEIR_TEST_BAD_INPUTS malformed bodies and events (default 10,000); WEIR_TEST_SEED for others.
 */
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import type { Dataset } from '../../model/dataset.ts'
import { badRequest } from './bad-input.ts'
import { cleanUp, column, decodeLog, event, openWorld, orders, serve } from './support.ts'

afterEach(cleanUp)

const INPUTS = Number(process.env.WEIR_TEST_BAD_INPUTS ?? 10_000)
const SEED = Number(process.env.WEIR_TEST_SEED ?? 1)
const CONNECTIONS = 48

const wide: Dataset = orders({
  name: 'wide',
  partitions: 3,
  key: 'user',
  columns: [
    ...orders().columns,
    column('flag', 'BOOLEAN'),
    column('tiny', 'TINYINT'),
    column('big', 'BIGINT'),
    column('huge', 'UBIGINT'),
    column('x', 'DOUBLE'),
    column('day', 'DATE'),
    column('at', 'TIMESTAMPTZ', { unit: 'ms' }),
    column('uuid', 'UUID'),
    column('doc', 'JSON'),
  ],
})
const strict = orders({ name: 'strict', extra: 'reject' })
const datasets = [orders(), wide, strict]
const columns = wide.columns.map((c) => c.name)

type Answer = { status: number; accepted: number; rejected: number; code?: string }

const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
const send = (port: number, dataset: string, headers: Record<string, string>, body: Buffer): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const path = `/v1/events/${dataset}`
    const sent = request(
      { port, host: '127.0.0.1', path, method: 'POST', agent, headers: latin1(headers) },
      (answer) => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (d: string) => {
          text += d
        })
        answer.on('error', reject)
        answer.on('end', () => {
          const of = JSON.parse(text) as { accepted?: number; rejectedCount?: number; code?: string }
          const { accepted = 0, rejectedCount: rejected = 0, code } = of
          resolve({ status: answer.statusCode!, accepted, rejected, ...(code === undefined ? {} : { code }) })
        })
      },
    )
    sent.on('error', reject)
    sent.end(body)
  })

const latin1 = (headers: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, Buffer.from(v, 'utf8').toString('latin1')]))

test(
  `${INPUTS} malformed bodies and events`,
  async () => {
    const world = await openWorld({ datasets, ingest: { lineBytes: 20_000, depth: 64 } })
    const { port, url } = await serve(world)
    const accepted: Record<string, number> = { orders: 0, wide: 0, strict: 0 }
    const rejected: Record<string, number> = { orders: 0, wide: 0, strict: 0 }
    const statuses: Record<number, number> = {}
    let inputs = 0
    let next = SEED * 1_000_000
    const worker = async (): Promise<void> => {
      while (inputs < INPUTS) {
        const seed = next++
        const made = badRequest(seed, columns)
        inputs += made.inputs
        const dataset = datasets[seed % datasets.length]!.name
        const answer = await send(port, dataset, made.headers, made.body)
        const what = `seed ${seed}: ${JSON.stringify(answer)}`
        expect([200, 400, 413, 415, 422], what).toContain(answer.status)
        statuses[answer.status] = (statuses[answer.status] ?? 0) + 1
        const judged = answer.status === 200 || answer.status === 422
        if (judged) {
          expect(answer.accepted + answer.rejected, what).toBeGreaterThan(0)
          expect(answer.accepted > 0, what).toBe(answer.status === 200)
          if (made.events !== null) expect(answer.accepted + answer.rejected, what).toBe(made.events)
        } else {
          expect(answer.code, what).toMatch(/^WEIR_/)
          expect(answer.accepted + answer.rejected, what).toBe(0)
        }
        accepted[dataset]! += answer.accepted
        rejected[dataset]! += answer.rejected
      }
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, worker))
    // Each kind of answer was met, or the generator is too tame.
    for (const status of [200, 400, 415, 422]) expect(statuses[status] ?? 0, `status ${status}`).toBeGreaterThan(0)
    for (const dataset of datasets) {
      let rows = 0
      for (let p = 0; p < dataset.partitions; p++) {
        const found = await decodeLog(world, dataset, p)
        expect(found.dead, `${dataset.name}/${p}`).toEqual([])
        rows += found.rows
      }
      expect(rows, dataset.name).toBe(accepted[dataset.name])
      const { kept, overflowed } = await world.rejects.counts(dataset.name)
      expect(kept + overflowed, dataset.name).toBe(rejected[dataset.name])
    }
    expect(world.door.inFlightBytes()).toBe(0)
    expect((await fetch(url, { method: 'POST', body: event('last') })).status).toBe(200)
  },
  30_000 + INPUTS * 20,
)

test('noise instead of HTTP: every connection is answered 4xx or closed, and the next request is served', async () => {
  const world = await openWorld()
  const { port, url } = await serve(world)
  const heads = [
    'GET / HTTP/9.9',
    'POST',
    'POST /v1/events/orders HTTP/1.1',
    '\0\xff\xfe',
    'PRI * HTTP/2.0',
    'POST /v1/events/%00 HTTP/1.1',
    'POST /v1/events/../../etc HTTP/1.1',
  ]
  const fields = [
    'Host: localhost',
    'Content-Length: -1',
    'Content-Length: 1e9',
    'Content-Length: 5\r\nContent-Length: 6',
    'Transfer-Encoding: x',
    'Transfer-Encoding: chunked\r\nContent-Length: 3',
    'Content-Type: \xff',
    ': x',
    'Content-Encoding: gzip',
  ]
  const bodies = ['', '{}', '5\r\n{"id"\r\n0\r\n\r\n', 'zz\r\n', '\xff\xff\r\n\r\n']
  const talks: Promise<string>[] = []
  for (const head of heads)
    for (const field of fields)
      for (const body of bodies)
        talks.push(
          new Promise((resolve) => {
            let got = ''
            const socket = connect(port, '127.0.0.1', () => {
              socket.end(Buffer.from(`${head}\r\nHost: localhost\r\n${field}\r\n\r\n${body}`, 'latin1'))
            })
            socket.on('data', (d) => {
              got += d
            })
            socket.on('error', () => undefined)
            socket.on('close', () => resolve(got))
          }),
        )
  for (const got of await Promise.all(talks)) expect(got).not.toMatch(/HTTP\/1.1 5\d\d/)
  expect((await fetch(url, { method: 'POST', body: event('last') })).status).toBe(200)
})
