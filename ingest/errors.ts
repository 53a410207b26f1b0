/**
 * Errors of the door and the HTTP status of each. Invariant: only what a client can mend is a 4xx, and whatever asks for
 * a retry (429, 503) has stored nothing of the request that a retry would not find again under its Idempotency-Key.
 */
import { WeirError } from '../model/errors.ts'

export const STATUS: Readonly<Record<string, number>> = {
  WEIR_INGEST_NO_EVENTS: 400,
  WEIR_INGEST_BAD_BODY: 400,
  WEIR_INGEST_BAD_GZIP: 400,
  WEIR_INGEST_BAD_KEY: 400,
  WEIR_INGEST_ABORTED: 400,
  WEIR_INGEST_UNKNOWN_DATASET: 404,
  WEIR_INGEST_TOO_LARGE: 413,
  WEIR_INGEST_TOO_MANY_EVENTS: 413,
  WEIR_INGEST_RATIO: 413,
  WEIR_INGEST_MEDIA_TYPE: 415,
  WEIR_INGEST_ENCODING: 415,
  WEIR_INGEST_OVERLOAD: 429,
  WEIR_INGEST_STOPPING: 503,
  WEIR_INGEST_UNAVAILABLE: 503,
}

export const noEvents = (): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_NO_EVENTS',
    message: 'The body holds no event.',
    expected: 'one JSON object, an array of objects, or one object per line (NDJSON)',
    got: 'nothing but blanks',
    next: 'send at least one event',
  })

export const badBody = (message: string, got?: string): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_BAD_BODY',
    message,
    expected: 'one JSON object, an array of objects, or one object per line (NDJSON)',
    got,
    next: 'correct the body; nothing of it was stored',
  })

export const badGzip = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_BAD_GZIP',
    message: 'The body cannot be unzipped.',
    expected: 'one whole gzip stream',
    got: cause instanceof Error ? cause.message : String(cause),
    next: 'compress the body again; nothing of it was stored',
    cause,
  })

export const badKey = (): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_BAD_KEY',
    message: 'The Idempotency-Key cannot be used.',
    expected: '1 to 255 printable ASCII characters',
    next: 'use a UUID, one for each body',
  })

export const aborted = (cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_ABORTED',
    message: 'The request ended before its body was whole.',
    expected: 'the whole body',
    next: 'send it again; nothing of it was stored',
    cause,
  })

export const unknownDataset = (name: string, known: string[]): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_UNKNOWN_DATASET',
    message: `There is no dataset ${JSON.stringify(name.slice(0, 100))}.`,
    ...(known.length > 0 && known.length <= 20 ? { expected: `one of ${known.join(', ')}` } : {}),
    next: 'define it in datasets/<name>.yaml',
  })

export const tooLarge = (limit: number): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_TOO_LARGE',
    message: 'The body is too large.',
    expected: `at most ${limit} bytes, after decompression (ingest.bodyBytes)`,
    next: 'split it into several requests; nothing of it was stored',
  })

export const tooManyEvents = (limit: number): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_TOO_MANY_EVENTS',
    message: 'The request holds too many events.',
    expected: `at most ${limit} events (ingest.eventsPerRequest)`,
    next: 'split it into several requests; nothing of it was stored',
  })

export const badRatio = (limit: number): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_RATIO',
    message: 'The body inflates far more than events do.',
    expected: `at most ${limit} times its compressed size`,
    next: 'send it uncompressed, or in smaller requests; nothing of it was stored',
  })

export const badMediaType = (got: string): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_MEDIA_TYPE',
    message: 'Events do not come in this media type.',
    expected: 'application/json or application/x-ndjson, in UTF-8',
    got,
    next: 'set the header Content-Type',
  })

export const badEncoding = (got: string): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_ENCODING',
    message: 'The door does not know this Content-Encoding.',
    expected: 'gzip or identity',
    got,
    next: 'send the body plain or gzipped',
  })

export const overload = (limit: number): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_OVERLOAD',
    message: 'Too many bytes are being taken in at the moment.',
    expected: `at most ${limit} bytes in flight (ingest.inFlightBytes)`,
    next: 'retry after the time in Retry-After; nothing of this request was stored',
    retryable: true,
  })

export const stopping = (): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_STOPPING',
    message: 'The server is stopping.',
    next: 'retry when it runs again; nothing of this request was stored',
    retryable: true,
  })

/** The log or the engine did not do its part: whether the events are stored is known only if `cause` says so. */
export const unavailable = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_UNAVAILABLE',
    message: 'The events could not be made durable.',
    ...(cause instanceof WeirError ? { got: cause.message } : {}),
    next: 'retry with the same Idempotency-Key: what was stored already is recognised',
    retryable: true,
    cause,
  })

/** Some partitions took their events and another one did not. */
export const storedInPart = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_INGEST_UNAVAILABLE',
    message: 'Only a part of the events could be made durable.',
    ...(cause instanceof WeirError ? { got: cause.message } : {}),
    next: 'retry with the same Idempotency-Key: what was stored already is recognised; without a key only ids tell',
    retryable: true,
    cause,
  })
