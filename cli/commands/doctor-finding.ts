/** What `weir doctor` found at one place, and how a check of a server is kept short and quiet. */
import { WeirError } from '../../model/errors.ts'

export type Finding = {
  check: string
  state: 'ok' | 'warning' | 'problem'
  /** What is so. Never holds a secret. */
  text: string
  /** How to mend it. */
  next?: string
}

export const ok = (check: string, text: string): Finding => ({ check, state: 'ok', text })
export const warning = (check: string, text: string, next: string): Finding => ({ check, state: 'warning', text, next })
export const problem = (check: string, text: string, next: string): Finding => ({ check, state: 'problem', text, next })

/** An error as a finding. The message of an error that is not ours may hold anything, so only its kind is told. */
export const failed = (check: string, error: unknown): Finding => {
  if (error instanceof WeirError)
    return problem(
      check,
      [error.message, error.got === undefined ? '' : `(${error.got})`, `[${error.code}]`].filter(Boolean).join(' '),
      error.next ?? 'see docs/errors.md',
    )
  const { code, path } = (error ?? {}) as NodeJS.ErrnoException
  const kind = code ?? (error as Error | null)?.name ?? 'unknown'
  // A file that cannot be read, as one of authorities: its name is a setting, not a secret.
  return problem(check, `the check failed: ${kind}${path === undefined ? '' : ` ${path}`}`, 'see the settings')
}

/** Deadline of all that is asked of one server, ms. */
export const SERVER_MS = 6_000
/** Longest wait for one answer, ms: below the deadline, so that a client says what was wrong before it. */
export const ANSWER_MS = 3_000

/** Findings of `look`, or that it failed, or that the server was silent. What it opened it closes itself, also when late. */
export const lookAt = async (
  check: string,
  look: () => Promise<Finding[]>,
  deadlineMs = SERVER_MS,
): Promise<Finding[]> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<Finding[]>((resolve) => {
    const silent = problem(check, `no answer within ${deadlineMs} ms`, 'see that it runs and can be reached from here')
    timer = setTimeout(() => resolve([silent]), deadlineMs)
  })
  const work = look().catch((error: unknown) => [failed(check, error)])
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
