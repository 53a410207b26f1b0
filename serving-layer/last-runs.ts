/**
 * The newest run of each view and action, for status pages. Invariant: however often it is asked, jobs are listed at most once a second
 * (over BullMQ that is many calls of Redis), and what is told is at most that old; what failed is not kept.
 */
import type { Job, JobAction, Scheduler } from '../model/ports/scheduler.ts'

export type LastRuns = {
  of(): Promise<(view: string) => Partial<Record<JobAction, Job>>>
  /** The next one who asks is told what is so now. */
  forget(): void
}

const FRESH_MS = 1_000
/** Jobs that are looked through, newest first. */
const LISTED = 500

export const openLastRuns = (jobs: Pick<Scheduler, 'jobs'>): LastRuns => {
  let kept: { listed: Promise<Job[]>; atMs: number } | null = null

  const list = (): Promise<Job[]> => {
    if (kept !== null && performance.now() - kept.atMs < FRESH_MS) return kept.listed
    const own = { listed: jobs.jobs(LISTED), atMs: performance.now() }
    kept = own
    own.listed.catch(() => {
      if (kept === own) kept = null
    })
    return own.listed
  }

  return {
    of: async () => {
      const all = await list()
      return (view) => {
        const out: Partial<Record<JobAction, Job>> = {}
        for (const job of all) if (job.view === view) out[job.action] ??= job
        return out
      }
    },
    forget: () => {
      kept = null
    },
  }
}
