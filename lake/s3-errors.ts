/**
 * What an answer of an S3 store means, and how it is told. Invariants: only the name, status and message of a client's error are ever
 * kept: its other fields carry signatures and key ids; an endpoint is told by its host alone.
 */
import { WeirError } from '../model/errors.ts'

/**
 * `missing`: no such object (never: no such bucket). `taken`: the condition did not hold. `passing`: the same request may succeed later,
 * and if it was a write, nobody knows whether it was done. `refused`: it never will. `defect`: not an answer at all.
 */
export type Failure = 'missing' | 'taken' | 'passing' | 'refused' | 'defect'

type ClientError = Error & { code?: string; Code?: string; $metadata?: { httpStatusCode?: number } }

const MISSING = ['NoSuchKey', 'NotFound', 'NoSuchUpload']
/** A status 400 or 409 that says "once more". 409 without a body (after a HEAD, or from a proxy) is taken for one. */
const ONCE_MORE = ['RequestTimeout', 'ConditionalRequestConflict', 'OperationAborted', 'Unknown']
const NETWORK =
  /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_|EHOST|ENET|ESOCKET|EPROTO|HPE_|ERR_STREAM_PREMATURE_CLOSE|ERR_SSL|UND_ERR)/

const CERTIFICATE = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS/

/** A body that ended early, or other bytes than were asked for. */
export class BrokenTransfer extends Error {
  override name = 'BrokenTransfer'
}

/** There is no such object. In place of the client's own error, which would tell too much. */
export class Missing extends Error {
  override name = 'Missing'
}

export const failureOf = (error: unknown): Failure => {
  if (!(error instanceof Error)) return 'defect'
  if (error instanceof Missing) return 'missing'
  const { name, code, $metadata } = error as ClientError
  const status = $metadata?.httpStatusCode
  if (error instanceof BrokenTransfer || name === 'TimeoutError' || NETWORK.test(code ?? '')) return 'passing'
  if (name === 'CredentialsProviderError' || CERTIFICATE.test(code ?? '')) return 'refused'
  if (status === undefined || status < 300)
    // A cut inside an answer's XML reaches us as the parser's complaint about a request that got its 200.
    return status === undefined ? 'defect' : 'passing'
  if (status === 404) return MISSING.includes(name) ? 'missing' : 'refused'
  if (status === 412) return 'taken'
  if ((status >= 500 && status !== 501) || status === 429 || status === 408 || status === 425) return 'passing'
  return (status === 400 || status === 409) && ONCE_MORE.includes(name) ? 'passing' : 'refused'
}

/** `PreconditionFailed (412): …`: all that is told of a client's error. */
export const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return typeof error
  const { name, code, message, $metadata } = error as ClientError
  const status = $metadata?.httpStatusCode
  const marks = [status, code].filter((m) => m !== undefined)
  return `${name}${marks.length === 0 ? '' : ` (${marks.join(', ')})`}: ${message}`
}

/** A cause to chain that holds nothing but the description. */
const causeOf = (error: unknown): Error => {
  const cause = new Error(describe(error))
  cause.name = 'S3Error'
  return cause
}

/** Where a store is, without credentials: `host/bucket`. */
export const unreachable = (where: string, what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_UNREACHABLE',
    message: `The object store did not do its part: ${what}.`,
    expected: `an answer from ${where}`,
    got: describe(cause),
    next: 'check the network and the store; whether a write was done is told by reading it back',
    retryable: true,
    cause: causeOf(cause),
  })

const NEXT: Record<string, string> = {
  NoSuchBucket: 'create the bucket, or correct its name',
  RequestTimeTooSkewed: 'set the clock of this machine',
  PermanentRedirect: 'give the region that the bucket is in',
  AuthorizationHeaderMalformed: 'give the region that the bucket is in',
  CredentialsProviderError: 'give an access key and its secret, or a role of the machine',
}

export const refused = (where: string, what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_ACCESS',
    message: `The object store refuses: ${what}.`,
    expected: `the right to read, write, list and delete in ${where}`,
    got: describe(cause),
    next:
      NEXT[(cause as Error).name] ??
      'check the endpoint, its certificate, the credentials, the policy of the bucket, its name and region',
    cause: causeOf(cause),
  })

export const unfit = (where: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_STORE',
    message: `The object store ${where} lacks what the lake stands on.`,
    expected,
    got,
    next: 'use a store that keeps conditional writes (If-None-Match: *) and user metadata',
  })

export const corrupt = (key: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_CORRUPT',
    message: `The stored object ${key} is not what was written.`,
    expected,
    got,
    next: 'restore the object from a copy, or recompute what was derived from it',
  })

export const existsAlready = (key: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_EXISTS',
    message: `An object ${key} exists already; objects are never overwritten.`,
    expected: 'a fresh name for each file',
    got: key,
    next: 'this is a defect in the caller: names must carry a unique part',
  })
