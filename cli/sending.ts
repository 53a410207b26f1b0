/**
 * Events to the server in bounded requests. Invariant: at most `parallel` requests are under way and `write` waits for a
 * place; each request has its own Idempotency-Key, so that a repeat after a lost answer counts nothing twice.
 */
import { randomUUID } from 'node:crypto'
import { type Client, problemError } from './client.ts'

export type Rejection = { line: number; code: string; reason: string }

export type Sent = {
  events: number
  accepted: number
  rejected: number
  /** The first ones, with the number of the line they came from. */
  rejections: Rejection[]
  requests: number
  /** For `atLeast` of a query: it sees everything sent here (one token per dataset, the newest). */
  token: string | null
}

export type SenderOptions = {
  client: Client
  dataset: string
  events?: number
  bytes?: number
  parallel?: number
  /** Start of the keys; the same one and the same input make a repeated run harmless (within the window of an hour). */
  runId?: string
  progress?: (sent: Sent) => void
}

export type Sender = {
  write(line: Uint8Array | string, lineNumber: number): Promise<void>
  /** Sends what is left and waits for all answers. Throws the first failure. */
  end(): Promise<Sent>
}

const KEPT = 20
type IngestAnswer = {
  accepted: number
  rejected: { index: number; code: string; reason: string }[]
  rejectedCount: number
  token?: string
}

export const openSender = (options: SenderOptions): Sender => {
  const { client, dataset, parallel = 1 } = options
  const maxEvents = options.events ?? 5_000
  const maxBytes = options.bytes ?? 1024 * 1024
  const runId = options.runId ?? randomUUID()
  const sent: Sent = { events: 0, accepted: 0, rejected: 0, rejections: [], requests: 0, token: null }
  let lines: Uint8Array[] = []
  let numbers: number[] = []
  let size = 0
  let failure: unknown
  const running = new Set<Promise<void>>()

  const post = async (body: Uint8Array, of: number[], key: string): Promise<void> => {
    const answer = await client.send('POST', `/v1/events/${encodeURIComponent(dataset)}`, {
      body,
      headers: { 'content-type': 'application/x-ndjson', 'idempotency-key': key, accept: 'application/json' },
      retry: true,
    })
    if (answer.status !== 200 && answer.status !== 422) throw problemError(answer, client.url)
    const result = JSON.parse(answer.body.toString('utf8')) as IngestAnswer
    if (result.rejected === undefined) throw problemError(answer, client.url)
    sent.accepted += result.accepted
    sent.rejected += result.rejectedCount
    for (const r of result.rejected)
      if (sent.rejections.length < KEPT)
        sent.rejections.push({ line: of[r.index] ?? 0, code: r.code, reason: r.reason })
    if (result.token !== undefined) sent.token = result.token
    options.progress?.(sent)
  }

  const flush = async (): Promise<void> => {
    if (lines.length === 0) return
    const body = Buffer.concat(lines)
    const of = numbers
    lines = []
    numbers = []
    size = 0
    const key = `${runId}-${sent.requests++}`
    while (running.size >= parallel) await Promise.race(running)
    if (failure !== undefined) throw failure
    const one = post(body, of, key)
      .catch((error: unknown) => {
        failure ??= error
      })
      .finally(() => running.delete(one))
    running.add(one)
  }

  return {
    write: async (line, lineNumber) => {
      const bytes = typeof line === 'string' ? Buffer.from(line) : line
      lines.push(bytes, NEWLINE)
      numbers.push(lineNumber)
      size += bytes.length + 1
      sent.events++
      if (numbers.length >= maxEvents || size >= maxBytes) await flush()
    },
    end: async () => {
      await flush()
      await Promise.all(running)
      if (failure !== undefined) throw failure
      return sent
    },
  }
}

const NEWLINE = Buffer.from('\n')

/** What a command prints about it. */
export const sentText = (sent: Sent): string => `accepted ${sent.accepted}  rejected ${sent.rejected}`
export const rejectionLines = (sent: Sent): string[] => [
  ...sent.rejections.map((r) => `line ${r.line}: ${r.reason} [${r.code}]`),
  ...(sent.rejected > sent.rejections.length ? [`… and ${sent.rejected - sent.rejections.length} more`] : []),
]
