/**
 * Errors that teach: what was expected, what came, what to do next.
 * Operating errors are `WeirError`s and say whether to retry; everything else is a programmer error and crashes.
 * HTTP statuses are chosen in the ingest and serving rooms only.
 */

export type WeirErrorDetails = {
  /** `WEIR_<ROOM>_<WHAT>`; listed in docs/errors.md. */
  code: string
  /** One sentence: what is wrong, with the offending value. */
  message: string
  expected?: string
  got?: string
  /** What to do next. */
  next?: string
  /** True when the same call may succeed later without a change by anybody. */
  retryable?: boolean
  /** Where, for definitions: file, 1-based line. */
  file?: string
  line?: number
  cause?: unknown
}

export class WeirError extends Error {
  readonly code: string
  readonly expected: string | undefined
  readonly got: string | undefined
  readonly next: string | undefined
  readonly retryable: boolean
  readonly file: string | undefined
  readonly line: number | undefined

  constructor(details: WeirErrorDetails) {
    super(details.message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'WeirError'
    this.code = details.code
    this.expected = details.expected
    this.got = details.got
    this.next = details.next
    this.retryable = details.retryable ?? false
    this.file = details.file
    this.line = details.line
  }
}

/** The error as people read it in a terminal: place, message, expected / got / next, each on its own line. */
export const formatError = (error: unknown): string => {
  if (!(error instanceof WeirError)) return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  const place = error.file === undefined ? '' : `${error.file}${error.line === undefined ? '' : `:${error.line}`}: `
  const lines = [`${place}${error.message} [${error.code}]`]
  if (error.expected !== undefined) lines.push(`  expected: ${error.expected}`)
  if (error.got !== undefined) lines.push(`  got:      ${error.got}`)
  if (error.next !== undefined) lines.push(`  next:     ${error.next}`)
  return lines.join('\n')
}
