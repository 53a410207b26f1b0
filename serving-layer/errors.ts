/** Errors of the serving layer. Those that a later try may not meet are retryable: routes answer them with 503 and Retry-After. */
import { WeirError } from '../model/errors.ts'

/** Why the two sides do not make an answer. */
export type Misfit =
  | 'NO_EPOCH'
  | 'DIGEST'
  | 'OTHER_LOG'
  | 'NOT_FED'
  | 'NO_STATE'
  | 'BEHIND'
  | 'AHEAD'
  | 'DROPPED'
  | 'LAKE'
  | 'ENGINE'

const EXPECTED: Record<Misfit, string> = {
  NO_EPOCH: 'epochs of the speed state that go on exactly where the published generation ends',
  DIGEST: 'blocks of the speed state that match their digest',
  OTHER_LOG: 'one log id in the log, the speed state and the published generation',
  NOT_FED: 'a speed state that holds this version of the view',
  NO_STATE: 'a speed state of every partition',
  BEHIND: 'a speed state at least as far as the answers given before',
  AHEAD: 'a speed state that is not ahead of the log',
  DROPPED: 'a version that is not dropped',
  LAKE: 'files of the lake as they were published',
  ENGINE: 'an engine that keeps its tables',
}

/** The parts of an answer do not fit together now. Thrown inside planning, which tries again, and at last to the caller. */
export const misfit = (why: Misfit, view: string, got: string, cause?: unknown): WeirError =>
  new WeirError({
    code: `WEIR_SERVING_${why}`,
    message: `There is no exact answer about ${view} now.`,
    expected: EXPECTED[why],
    got,
    next: 'ask again in a moment; if it stays, see `weir doctor` and the speed worker',
    retryable: true,
    cause,
  })

export const isMisfit = (error: unknown): error is WeirError =>
  error instanceof WeirError && Object.keys(EXPECTED).some((why) => error.code === `WEIR_SERVING_${why}`)

export const unknownView = (name: string): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_NO_VIEW',
    message: `There is no view ${JSON.stringify(name)}.`,
    expected: 'a view of the project that has been adopted',
    got: name,
    next: 'GET /v1/views lists them',
  })

export const unknownDataset = (name: string): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_NO_DATASET',
    message: `There is no dataset ${JSON.stringify(name)}.`,
    expected: 'a dataset of the project',
    got: name,
    next: 'GET /v1/datasets lists them',
  })

export const busy = (waiting: number): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_BUSY',
    message: 'Too many queries are being answered.',
    expected: 'a free place within a moment',
    got: `${waiting} queries waiting`,
    next: 'ask again later, or raise query.concurrent',
    retryable: true,
  })

export const tokenTooEarly = (waitedMs: number): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_NOT_YET',
    message: 'The events of the token are not in the answer yet.',
    expected: 'an answer that has seen them within waitMs',
    got: `none within ${waitedMs} ms`,
    next: 'ask again, or wait longer',
    retryable: true,
  })

export const tokenGone = (got: string): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_TOKEN_GONE',
    message: 'The log that the token speaks of is gone.',
    expected: 'a token of the log as it is now',
    got,
    next: 'send the events again and use the new token, or leave atLeast out',
  })

export const closed = (): WeirError =>
  new WeirError({
    code: 'WEIR_SERVING_CLOSED',
    message: 'The server is stopping.',
    next: 'ask again when it is back',
    retryable: true,
  })
