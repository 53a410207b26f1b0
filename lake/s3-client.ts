/**
 * The S3 client of the lake. Loaded when a store is opened, so that a folder lake never pays for it.
 * Invariants: the client itself never tries twice (a repeated conditional write that had won answers itself 412); `retry` does, with
 * jittered exponential backoff, until a deadline without progress.
 */
import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { S3Client } from '@aws-sdk/client-s3'
import { describe, failureOf, Missing, refused, unreachable } from './s3-errors.ts'

export type S3Sdk = typeof import('@aws-sdk/client-s3')

export type S3Options = {
  /** URL of the store; left out: AWS in the region. */
  endpoint?: string
  region: string
  bucket: string
  /** Folder inside the bucket, '' or ending in '/'. Default ''. */
  prefix?: string
  /** Left out: the SDK's chain (environment, shared files, role of the machine). */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string }
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`. Default: true with an endpoint. */
  forcePathStyle?: boolean
  /** One operation is tried for this long, as long as it makes no progress. Default 60 s. */
  deadlineMs?: number
  /** One attempt waits this long for its answer (and longer for a body: 256 KiB/s are expected). Default 10 s. */
  attemptMs?: number
  /** The first pause between two attempts is at most this; the next ones twice as long each, up to 3 s. Default 50 ms. */
  pauseMs?: number
}

/** Options of one attempt, for `client.send`. */
export type Attempt = { abortSignal: AbortSignal; requestTimeout: number }

export type S3 = {
  sdk: S3Sdk
  client: S3Client
  bucket: string
  prefix: string
  /** `host/bucket`, to be told. */
  where: string
  /** Options of an attempt that sends so many bytes. */
  attempt(bytes?: number): Attempt
  /**
   * Runs `once`, no conditional write, until it succeeds, fails for good, or the deadline is over. `what` is told ("reading a/b"). Throws
   * Missing for an absent object; else WEIR_LAKE_UNREACHABLE or WEIR_LAKE_ACCESS. `progressed` starts the deadline anew; `startedMs` (of
   * `performance.now()`) is when it began, and one attempt is always made.
   */
  retry<T>(what: string, once: (progressed: () => void) => Promise<T>, startedMs?: number): Promise<T>
  /** Waits after attempt n (from 1); false when `startedMs` is so long ago that there is to be no other, or the store was closed. */
  backoff(n: number, startedMs: number): Promise<boolean>
  /** What a failure means, when something can be done about it; else throws it, told in our words. */
  failed(what: string, error: unknown): 'missing' | 'taken' | 'passing'
  /** Ends what is under way. */
  close(): void
}

const LONGEST_PAUSE_MS = 3_000
const BYTES_PER_MS = 256
const SOCKETS = 128
/** The SDK's own switch for its note on Node versions to come: engines are checked where packages are chosen, not at each start. */
const QUIET = 'AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'

const quietly = <T>(make: () => T): T => {
  const before = process.env[QUIET]
  process.env[QUIET] = 'true'
  try {
    return make()
  } finally {
    if (before === undefined) delete process.env[QUIET]
    else process.env[QUIET] = before
  }
}

export const connectS3 = async (options: S3Options): Promise<S3> => {
  const { endpoint, region, bucket, credentials, prefix = '' } = options
  const { attemptMs = 10_000, deadlineMs = 60_000, pauseMs = 50 } = options
  const sdk = await import('@aws-sdk/client-s3')
  const client = quietly(
    () =>
      new sdk.S3Client({
        region,
        ...(endpoint === undefined ? {} : { endpoint }),
        ...(credentials === undefined ? {} : { credentials }),
        forcePathStyle: options.forcePathStyle ?? endpoint !== undefined,
        maxAttempts: 1,
        // Ours are sent as plain headers: every store takes those, not every one the SDK's trailers. What is read has its own digest.
        requestChecksumCalculation: 'WHEN_REQUIRED',
        responseChecksumValidation: 'WHEN_REQUIRED',
        // It would open a connection of its own for each larger body.
        expectContinueHeader: false,
        requestHandler: {
          connectionTimeout: Math.min(attemptMs, 5_000),
          requestTimeout: attemptMs,
          throwOnRequestTimeout: true,
          socketTimeout: attemptMs,
          httpAgent: { keepAlive: true, maxSockets: SOCKETS },
          httpsAgent: { keepAlive: true, maxSockets: SOCKETS },
        },
      }),
  )
  const where = `${endpoint === undefined ? `s3.${region}` : new URL(endpoint).host}/${bucket}`
  const ending = new AbortController()
  // One listener for each request under way: not a leak.
  setMaxListeners(0, ending.signal)

  const backoff: S3['backoff'] = async (n, startedMs) => {
    const pause = Math.random() * Math.min(LONGEST_PAUSE_MS, pauseMs * 2 ** (n - 1))
    if (ending.signal.aborted || performance.now() + pause - startedMs > deadlineMs) return false
    return sleep(pause, true, { signal: ending.signal }).catch(() => false)
  }

  const failed: S3['failed'] = (what, error) => {
    if (ending.signal.aborted) throw unreachable(where, `${what} (the store was closed)`, error)
    const failure = failureOf(error)
    if (failure === 'refused') throw refused(where, what, error)
    if (failure === 'defect') throw error
    return failure
  }

  return {
    sdk,
    client,
    bucket,
    prefix,
    where,
    attempt: (bytes = 0) => ({
      abortSignal: ending.signal,
      requestTimeout: attemptMs + Math.ceil(bytes / BYTES_PER_MS),
    }),
    failed,
    backoff,
    retry: async (what, once, begunMs = performance.now()) => {
      let startedMs = begunMs
      let attempts = 0
      const progressed = (): void => {
        startedMs = performance.now()
        attempts = 0
      }
      for (;;) {
        try {
          return await once(progressed)
        } catch (error) {
          // An unconditional request that is answered 412 met something in between.
          if (failed(what, error) === 'missing') throw new Missing(describe(error))
          if (!(await backoff(++attempts, startedMs))) throw unreachable(where, what, error)
        }
      }
    },
    close: () => {
      ending.abort()
      client.destroy()
    },
  }
}
