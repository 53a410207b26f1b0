/**
 * An HTTP proxy in front of an S3 store that injects faults by a plan. It keeps the Host header, which the client's signature covers, so
 * that the store accepts what was signed for the proxy's address. Bodies are held in memory: objects of tests are small.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { random } from '../../cli/random.ts'

export type Fault =
  /** Answered here; the store never sees it. 200: an empty answer, as of a store that does not do what it says. */
  | 200
  | 409
  | 412
  | 500
  | 503
  /** The connection is cut and nothing forwarded. */
  | 'cut-before'
  /** Forwarded and done; the connection is cut instead of an answer. */
  | 'cut-after'
  /** The connection is cut after the head and half of the answer's body. */
  | 'cut-body'
  /** The same, and the connection stays open. */
  | 'stall'
  /** The connection is cut at once; forwarded after the next request was served, or by `flush`: an attempt that lands late. */
  | 'late'
  /** One bit of the answer's body is flipped. */
  | 'flip'
  | { delayMs: number }

/** `n` counts requests from 1; `path` is decoded, with the bucket; `size` is of the body sent. */
export type ProxyRequest = { n: number; method: string; path: string; query: string; size: number; range?: string }
export type FaultPlan = (request: ProxyRequest) => Fault | null

export type S3Proxy = {
  endpoint: string
  /** The plan from now on. */
  plan(next: FaultPlan): void
  /** What came so far, with what happened to it. */
  seen: (ProxyRequest & { fault: Fault | null; status?: number })[]
  /** Forwards what is held back for late. */
  flush(): Promise<void>
  close(): Promise<void>
}

export const noFaults: FaultPlan = () => null

/** A seeded plan: each request meets one of `faults` with a probability. */
export const seededFaults = (seed: number, probability: number, faults: Fault[]): FaultPlan => {
  const { chance, pick } = random(seed)
  return () => (chance(probability) ? pick(faults) : null)
}

const CODES = {
  200: '',
  409: 'ConditionalRequestConflict',
  412: 'PreconditionFailed',
  500: 'InternalError',
  503: 'SlowDown',
} as const

const bodyOf = async (message: IncomingMessage): Promise<Buffer> => {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

type Answer = { status: number; headers: IncomingMessage['headers']; body: Buffer }

export const startS3Proxy = async (target: string): Promise<S3Proxy> => {
  const { hostname, port } = new URL(target)
  const seen: S3Proxy['seen'] = []
  let decide = noFaults
  let held: (() => Promise<Answer>)[] = []

  const forward = async (from: IncomingMessage, body: Buffer): Promise<Answer> => {
    const out = request({ hostname, port, method: from.method, path: from.url, headers: from.headers, agent: false })
    // After an early answer (412) the store cuts off the rest of the body; before one, `once` rejects.
    out.on('error', () => undefined)
    out.end(body)
    const [answer] = (await once(out, 'response')) as [IncomingMessage]
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await bodyOf(answer) }
  }

  const flush = async (): Promise<void> => {
    const late = held
    held = []
    for (const run of late) await run()
  }

  const reply = (to: ServerResponse, { status, headers, body }: Answer, fault: Fault | null = null): void => {
    // A HEAD's length is that of the object.
    const size = to.req.method === 'HEAD' ? headers['content-length'] : String(body.length)
    const { 'transfer-encoding': _, connection: __, ...rest } = headers
    to.writeHead(status, { ...rest, ...(size === undefined ? {} : { 'content-length': size }) })
    if (fault !== 'cut-body' && fault !== 'stall') to.end(body)
    else to.write(body.subarray(0, body.length >> 1), () => (fault === 'cut-body' ? to.destroy() : undefined))
  }

  const serve = async (from: IncomingMessage, to: ServerResponse): Promise<void> => {
    const body = await bodyOf(from)
    const [path = '', query = ''] = (from.url ?? '').split('?')
    const { method = '', headers } = from
    const asked = { n: seen.length + 1, method, path: decodeURIComponent(path), query, size: body.length }
    const entry: S3Proxy['seen'][number] = { ...asked, range: headers.range, fault: decide(asked) }
    seen.push(entry)
    const { fault } = entry
    if (typeof fault === 'number') {
      const xml = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${CODES[fault]}</Code><Message>injected</Message></Error>`
      const injected = method === 'HEAD' || fault === 200 ? Buffer.alloc(0) : Buffer.from(xml)
      entry.status = fault
      reply(to, { status: fault, headers: { 'content-type': 'application/xml' }, body: injected })
      return
    }
    if (fault === 'cut-before' || fault === 'late') {
      if (fault === 'late') held.push(() => forward(from, body))
      from.socket.destroy()
      return
    }
    if (typeof fault === 'object' && fault !== null) await sleep(fault.delayMs)
    const answer = await forward(from, body)
    entry.status = answer.status
    await flush()
    if (fault === 'flip' && answer.body.length > 0) answer.body[answer.body.length >> 1]! ^= 1
    if (fault === 'cut-after') from.socket.destroy()
    else reply(to, answer, fault)
  }

  const server = createServer((from, to) => {
    // The store went away or the client did: either way this connection is over.
    serve(from, to).catch(() => from.socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    plan: (next) => {
      decide = next
    },
    seen,
    flush,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
