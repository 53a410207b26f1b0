/**
 * Problem documents (RFC 9457), the one form of every error that leaves a Weir server.
 * Invariant: a request can never cause a 5xx by its content, and no 5xx tells anything about the inside.
 */
import { WeirError, type WeirErrorDetails } from '../model/errors.ts'

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'

export type ProblemDocument = {
  type: string
  title: string
  status: number
  detail: string
  code: string
  expected?: string
  got?: string
  next?: string
  retryable?: boolean
}

/** An error that already knows its HTTP status; throw it from a handler. */
export type Problem = Error & { weirProblem: true; status: number; headers: Record<string, string>; error: WeirError }

const TITLES: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  409: 'Conflict',
  413: 'Content Too Large',
  414: 'URI Too Long',
  415: 'Unsupported Media Type',
  421: 'Misdirected Request',
  422: 'Unprocessable Content',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** Wraps an error with the status (and headers) that it shall have: `throw problem(404, new WeirError({…}))`. */
export const problem = (
  status: number,
  error: WeirError | WeirErrorDetails,
  headers: Record<string, string> = {},
): Problem => {
  const inner = error instanceof WeirError ? error : new WeirError(error)
  return Object.assign(new Error(inner.message, { cause: inner }), {
    weirProblem: true as const,
    status,
    headers,
    error: inner,
  })
}

export const isProblem = (error: unknown): error is Problem =>
  error instanceof Error && (error as Partial<Problem>).weirProblem === true

// What clients sent is echoed shortened: a problem document is bounded, whatever came.
const short = (text: string | undefined): string | undefined =>
  text !== undefined && text.length > 500 ? `${text.slice(0, 500)}…` : text

export const problemDocument = (status: number, error: WeirError): ProblemDocument => ({
  type: `https://weir.dev/errors#${error.code}`,
  title: TITLES[status] ?? 'Error',
  status,
  detail: short(error.message)!,
  code: error.code,
  ...(error.expected === undefined ? {} : { expected: short(error.expected) }),
  ...(error.got === undefined ? {} : { got: short(error.got) }),
  ...(error.next === undefined ? {} : { next: short(error.next) }),
  ...(error.retryable ? { retryable: true } : {}),
})

const FASTIFY: Record<string, { code: string; expected?: string; next?: string }> = {
  FST_ERR_CTP_BODY_TOO_LARGE: {
    code: 'WEIR_HTTP_BODY_TOO_LARGE',
    expected: 'a smaller body',
    next: 'send less in one request',
  },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    code: 'WEIR_HTTP_MEDIA_TYPE',
    expected: 'application/json',
    next: 'set the header Content-Type',
  },
  FST_ERR_CTP_EMPTY_JSON_BODY: {
    code: 'WEIR_HTTP_BAD_JSON',
    expected: 'a JSON document',
    next: 'send a body, or leave Content-Type out',
  },
  FST_ERR_CTP_INVALID_JSON_BODY: { code: 'WEIR_HTTP_BAD_JSON', expected: 'a JSON document' },
  FST_ERR_VALIDATION: { code: 'WEIR_HTTP_BAD_REQUEST', next: 'see /docs for what this route takes' },
}

/** Status, headers and document of whatever was thrown. `detail` of an unforeseen error stays inside. */
export const toProblem = (
  thrown: unknown,
): { status: number; headers: Record<string, string>; document: ProblemDocument; unforeseen: boolean } => {
  if (isProblem(thrown))
    return {
      status: thrown.status,
      headers: thrown.headers,
      document: problemDocument(thrown.status, thrown.error),
      unforeseen: false,
    }
  if (thrown instanceof WeirError && thrown.retryable)
    return { status: 503, headers: { 'retry-after': '1' }, document: problemDocument(503, thrown), unforeseen: false }
  const known = thrown as { statusCode?: number; code?: string; message?: string } | null
  const status = typeof known?.statusCode === 'number' ? known.statusCode : 500
  if (status >= 400 && status < 500) {
    const of = FASTIFY[known?.code ?? ''] ?? {
      code: thrown instanceof SyntaxError ? 'WEIR_HTTP_BAD_JSON' : 'WEIR_HTTP_BAD_REQUEST',
    }
    const error = new WeirError({ message: known?.message ?? 'The request is not understood.', ...of })
    return { status, headers: {}, document: problemDocument(status, error), unforeseen: false }
  }
  const error = new WeirError({
    code: 'WEIR_HTTP_INTERNAL',
    message: 'Something went wrong inside.',
    next: 'the server log has the cause; try again later',
    retryable: true,
  })
  return { status: 500, headers: {}, document: problemDocument(500, error), unforeseen: true }
}
