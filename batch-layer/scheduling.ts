/**
 * What both schedulers mean by their words: lanes, equal requests, expressions, and the errors that they tell people.
 * Invariant: nothing here knows where jobs are kept.
 */
import { Cron } from 'croner'
import { WeirError } from '../model/errors.ts'
import type { Job, JobAction, JobRequest } from '../model/ports/scheduler.ts'

/** Jobs over whole histories count apart from the others, so that they hold up no extend. */
export type LaneKind = 'long' | 'short'
const LONG: readonly JobAction[] = ['recompute', 'verify', 'compact']
export const kindOf = ({ action }: Pick<JobRequest, 'action'>): LaneKind => (LONG.includes(action) ? 'long' : 'short')

/** One job of a lane runs at a time. */
export const laneOf = (request: JobRequest): string => JSON.stringify([request.view, request.action])
/** Requests of one key that wait are one job. */
export const keyOf = (request: JobRequest): string =>
  JSON.stringify([request.view, request.action, request.options ?? {}])

const UNIT_MS = { second: 1_000, minute: 60_000, hour: 3_600_000 } as const
/** Longest delay that a timer takes. */
const MAX_TIMER_MS = 2_147_483_647

/** `every <n> seconds|minutes|hours` in ms; null for anything else. */
export const intervalMs = (expression: string): number | null => {
  const found = /^\s*every\s+(\d{1,9})\s+(second|minute|hour)s?\s*$/i.exec(expression)
  if (!found) return null
  const ms = Number(found[1]) * UNIT_MS[found[2]!.toLowerCase() as keyof typeof UNIT_MS]
  return ms > 0 && ms <= MAX_TIMER_MS ? ms : null
}

/** Calls `make`, and tells what an expression must be if it throws. */
export const readable = <T>(name: string, expression: string, timeZone: string, make: () => T): T => {
  try {
    return make()
  } catch (cause) {
    throw new WeirError({
      code: 'WEIR_BATCH_EXPRESSION',
      message: `The schedule of ${name} cannot be read: ${expression} (${String(cause)})`,
      expected: 'a cron expression such as "15 3 * * *", or "every <n> seconds|minutes|hours"; an IANA time zone',
      got: `${expression} in ${timeZone}`,
      next: 'correct it in weir.yaml, or set it to off',
      cause,
    })
  }
}

/**
 * When an expression fires next, strictly after an instant (ms); null: never again. Intervals count from the epoch, so that any number of
 * processes come to the same instants. Throws what croner throws.
 */
export const nextTime = (expression: string, timeZone: string, afterMs: number): number | null => {
  const every = intervalMs(expression)
  if (every !== null) return (Math.floor(afterMs / every) + 1) * every
  return new Cron(expression, { timezone: timeZone, paused: true }).nextRun(new Date(afterMs))?.getTime() ?? null
}

export const cancelled = (cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_BATCH_CANCELLED',
    message: 'The job was cancelled.',
    expected: 'a job that runs to its end',
    next: 'submit it again; nothing half-done is visible',
    retryable: true,
    cause,
  })

export const refused = (message: string, next: string): WeirError =>
  new WeirError({ code: 'WEIR_BATCH_BUSY', message, expected: 'room for another job', next, retryable: true })

/** What a job record tells of a failure. */
export const failureOf = (error: unknown): NonNullable<Job['error']> => {
  const known = error instanceof WeirError ? error : null
  return {
    code: known?.code ?? 'WEIR_BATCH_JOB',
    message: error instanceof Error ? error.message : String(error),
    ...(known?.next === undefined ? {} : { next: known.next }),
  }
}

/** Whether the work ended within the time. */
export const within = async (work: Promise<unknown>, ms: number): Promise<boolean> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  try {
    return await Promise.race([work.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
