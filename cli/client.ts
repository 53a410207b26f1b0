/**
 * HTTP client of a running server. Invariant: a request is retried only where a retry is safe (GET, queries, and ingest
 * under one Idempotency-Key), with back-off that honours Retry-After and a bound on the number of tries.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { WeirError } from '../model/errors.ts'

export type ClientOptions = { url: string; key?: string; retries?: number; signal?: AbortSignal }

export type Answered = { status: number; headers: Headers; body: Buffer }

export type Client = {
  url: string
  /** The answer whatever its status below 500; retries 429, 503, 504 and broken connections when `retry`. */
  send(
    method: string,
    path: string,
    options?: { body?: Uint8Array | string; headers?: Record<string, string>; retry?: boolean },
  ): Promise<Answered>
  /** JSON of a 2xx answer; problem documents become errors. */
  json<T>(method: string, path: string, body?: unknown, options?: { retry?: boolean; accept?: string }): Promise<T>
}

const RETRIED = new Set([429, 502, 503, 504])

/** A problem document as the error it came from. */
export const problemError = (answer: Answered, url: string): WeirError => {
  let doc: Record<string, unknown> = {}
  try {
    const parsed: unknown = JSON.parse(answer.body.toString('utf8'))
    if (typeof parsed === 'object' && parsed !== null) doc = parsed as Record<string, unknown>
  } catch {
    doc = { detail: answer.body.toString('utf8').slice(0, 200) }
  }
  const text = (key: string): string | undefined => (typeof doc[key] === 'string' ? (doc[key] as string) : undefined)
  return new WeirError({
    code: text('code') ?? 'WEIR_CLI_HTTP',
    message: text('detail') ?? text('title') ?? `${url} answered ${answer.status}.`,
    expected: text('expected'),
    got: text('got'),
    next:
      text('next') ?? (answer.status === 401 ? 'set WEIR_API_KEY, or make a key with `weir keys create`' : undefined),
    retryable: RETRIED.has(answer.status),
  })
}

export const openClient = (options: ClientOptions): Client => {
  const base = options.url.replace(/\/+$/, '')
  const tries = (options.retries ?? 8) + 1
  // A server that has answered before and is gone is restarting, most likely: worth waiting for. One that never was is not.
  let reached = false
  const once = async (
    method: string,
    path: string,
    body: Uint8Array | string | undefined,
    headers: Record<string, string>,
  ) => {
    const response = await fetch(base + path, {
      method,
      body,
      headers: { ...headers, ...(options.key ? { authorization: `Bearer ${options.key}` } : {}) },
      signal: options.signal,
    })
    reached = true
    return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) }
  }
  const send: Client['send'] = async (method, path, { body, headers = {}, retry = method === 'GET' } = {}) => {
    for (let attempt = 1; ; attempt++) {
      let delayMs = Math.min(5_000, 100 * 2 ** attempt)
      try {
        const answer = await once(method, path, body, headers)
        if (!retry || !RETRIED.has(answer.status) || attempt >= tries) return answer
        const after = Number(answer.headers.get('retry-after'))
        if (Number.isFinite(after) && after > 0) delayMs = Math.min(30_000, after * 1_000)
      } catch (cause) {
        if (options.signal?.aborted) throw cause
        if (!retry || attempt >= tries || (!reached && attempt >= 3))
          throw new WeirError({
            code: 'WEIR_CLI_UNREACHABLE',
            message: `No server answers at ${base}.`,
            expected: 'a running server',
            got: String((cause as { cause?: unknown }).cause ?? cause).split('\n')[0],
            next: 'start one with `weir start`, or name it: --url or WEIR_URL',
            retryable: true,
            cause,
          })
      }
      await wait(delayMs, undefined, { signal: options.signal })
    }
  }
  return {
    url: base,
    send,
    json: async <T>(method: string, path: string, body?: unknown, more: { retry?: boolean; accept?: string } = {}) => {
      const answer = await send(method, path, {
        retry: more.retry ?? method === 'GET',
        headers: {
          accept: more.accept ?? 'application/json',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      if (answer.status < 200 || answer.status > 299) throw problemError(answer, base + path)
      return JSON.parse(answer.body.toString('utf8')) as T
    },
  }
}
