/**
 * HTTP front end of the door: `POST /v1/events/:dataset`. Invariant: the body is never read further than the door takes
 * it (back-pressure down to the socket), and a refused body is not followed to its end for long.
 */
import type { Readable } from 'node:stream'
import Type from 'typebox'
import { type FastifyInstance, type FastifyRequest, requireScope } from '../http/app.ts'
import { allows } from '../http/auth.ts'
import { problem } from '../http/problems.ts'
import { WeirError } from '../model/errors.ts'
import type { AcceptOptions, Door } from './door.ts'
import { badEncoding, badMediaType, STATUS, unknownDataset } from './errors.ts'
import { observeDoor } from './metrics.ts'

/** After a refusal the client may go on sending for this long and this much, so that it gets to read the answer. */
const LINGER_MS = 1_000
const LINGER_BYTES = 4 * 1024 * 1024
const RETRY_AFTER_S = 1

const Rejection = Type.Object({ index: Type.Integer(), code: Type.String(), reason: Type.String() })
const Answer = Type.Object({
  accepted: Type.Integer(),
  rejected: Type.Array(Rejection, { description: 'the first 1,000; index counts events, blank lines apart' }),
  rejectedCount: Type.Integer(),
  token: Type.Optional(Type.String({ description: 'for atLeast of a query: reads what this request wrote' })),
})

const nameOf = (request: FastifyRequest): string => (request.params as { dataset: string }).dataset

/** How the headers say that the body is to be read. Throws problems 415. */
const howOf = (request: FastifyRequest): AcceptOptions => {
  const type = (request.headers['content-type'] ?? '').toLowerCase()
  const media = type.split(';')[0]!.trim()
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/.exec(type)?.[1]
  if (media.startsWith('multipart/') || (charset !== undefined && !/^(utf-?8|us-ascii)$/.test(charset)))
    throw problem(415, badMediaType(type.slice(0, 200)))
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (!/^(gzip|x-gzip|identity)$/.test(encoding)) throw problem(415, badEncoding(encoding.slice(0, 200)))
  const key = request.headers['idempotency-key']
  return {
    gzip: encoding !== 'identity',
    ndjson: /^application\/(x-)?(ndjson|jsonl|jsonlines|json-lines)$/.test(media),
    ...(key === undefined ? {} : { idempotencyKey: String(key) }),
  }
}

/** Reads on, throwing away, until the body ends or a bound is met; true when it has ended. */
const drain = (body: Readable): Promise<boolean> =>
  new Promise((resolve) => {
    let left = LINGER_BYTES
    const done = (): void => {
      clearTimeout(timer)
      body.off('readable', pull)
      for (const event of ['end', 'close', 'error']) body.off(event, done)
      resolve(body.readableEnded || body.destroyed)
    }
    const pull = (): void => {
      for (let chunk = body.read(); chunk !== null; chunk = body.read()) left -= (chunk as Buffer).byteLength
      if (left < 0 || body.readableEnded || body.destroyed) done()
    }
    const timer = setTimeout(done, LINGER_MS)
    for (const event of ['end', 'close', 'error']) body.on(event, done)
    body.on('readable', pull)
    pull()
  })

const refusal = (error: unknown, headers: Record<string, string>): unknown => {
  if (!(error instanceof WeirError)) return error
  const status = STATUS[error.code] ?? (error.retryable ? 503 : undefined)
  if (status === undefined) return error
  const retry: Record<string, string> = status === 429 || status === 503 ? { 'retry-after': String(RETRY_AFTER_S) } : {}
  return problem(status, error, { ...headers, ...retry })
}

/** Adds the door's route and metrics to the app. */
export const ingestRoutes = (app: FastifyInstance, door: Door): void => {
  observeDoor(app.metrics, door)
  void app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    scope.post('/v1/events/:dataset', {
      onRequest: requireScope('ingest', nameOf),
      // The body is a stream: what it holds is judged by the door.
      validatorCompiler: () => (value) => ({ value }),
      schema: {
        summary: 'Send events: one JSON object, an array, or one per line (NDJSON), plain or gzipped',
        description:
          'Every event is accepted, and then durable, or rejected with its index, a code and a reason. With an Idempotency-Key a retry of the same body is harmless.',
        tags: ['events'],
        consumes: ['application/json', 'application/x-ndjson'],
        params: Type.Object({ dataset: Type.String() }),
        headers: Type.Object({ 'idempotency-key': Type.Optional(Type.String({ maxLength: 255 })) }),
        response: { 200: Answer, 422: Answer },
      },
      handler: async (request, reply) => {
        const body = request.body as Readable | undefined
        try {
          const how = howOf(request)
          const declared = Number(request.headers['content-length'] ?? 0)
          door.admit(nameOf(request), declared, how.gzip ?? false)
          const source = body ?? new Uint8Array(0)
          const outcome = await door.accept(nameOf(request), source, { ...how, declaredBytes: declared })
          return await reply.code(outcome.accepted === 0 ? 422 : 200).send(outcome)
        } catch (thrown) {
          // The names of other datasets are for keys that may write to all of them.
          const isUnknown = thrown instanceof WeirError && thrown.code === 'WEIR_INGEST_UNKNOWN_DATASET'
          const hide = isUnknown && !allows(request.auth, 'ingest', '*')
          const error = hide ? unknownDataset(nameOf(request), []) : thrown
          const ended = body === undefined || body.readableEnded || (await drain(body))
          throw refusal(error, ended ? {} : { connection: 'close' })
        }
      },
    })
  })
}
