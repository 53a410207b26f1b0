/** HTTP statuses of the serving layer's errors: the only place that chooses them. */
import { problem } from '../http/problems.ts'
import { WeirError } from '../model/errors.ts'
import { isQueryError } from '../model/query/errors.ts'

const STATUS: Record<string, number> = {
  WEIR_MODEL_QUERY_FORCED: 403,
  WEIR_SERVING_NO_VIEW: 404,
  WEIR_SERVING_NO_DATASET: 404,
  WEIR_SERVING_NO_JOB: 404,
  WEIR_SERVING_TOKEN_GONE: 409,
  WEIR_SERVING_BUSY: 429,
  WEIR_SERVING_NOT_YET: 504,
  WEIR_SERVING_NOT_ACCEPTABLE: 406,
  WEIR_CLI_NO_BATCH_ROLE: 503,
}

/** The error with its status; unforeseen ones stay as they are (and become a 500 without a word about the inside). */
export const asProblem = (error: unknown): unknown => {
  if (!(error instanceof WeirError)) return error
  const status = STATUS[error.code] ?? (error.retryable ? 503 : isQueryError(error) ? 400 : null)
  if (status === null) return error
  return problem(status, error, error.retryable ? { 'retry-after': '1' } : {})
}

/** Runs a handler's work with errors given their statuses. */
export const answered = async <T>(run: () => Promise<T>): Promise<T> => {
  try {
    return await run()
  } catch (error) {
    throw asProblem(error)
  }
}
