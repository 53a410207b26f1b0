/**
 * All jobs of the queues, newest first. Invariant: a job that moves meanwhile is shown once, in its later state. Records of ended jobs
 * never change (the board is read-only, nothing is tried again after its end), so each is read from Redis once and then remembered here.
 */
import type { Job } from '../model/ports/scheduler.ts'
import { type JobQueues, shown } from './bullmq-job.ts'
import type { Lanes } from './bullmq-lanes.ts'
import type { LaneKind } from './scheduling.ts'

type Listed = { order: number; job: Job }

const STATES = ['wait', 'delayed', 'active', 'completed', 'failed'] as const

/** `keep`: ended jobs that Redis keeps per queue and outcome. */
export const openJobList = (
  queues: JobQueues,
  lanes: Pick<Lanes, 'holders'>,
  keep: number,
): ((limit: number) => Promise<Job[]>) => {
  const kinds = Object.keys(queues) as LaneKind[]
  const ended = new Map<string, Listed>()
  const most = keep * kinds.length * 2

  const remember = (id: string, listed: Listed): void => {
    ended.set(id, listed)
    for (const oldest of ended.keys()) {
      if (ended.size <= most) return
      ended.delete(oldest)
    }
  }

  return async (limit) => {
    if (limit <= 0) return []
    const found = new Map<string, Listed>()
    const holders = await lanes.holders()
    // In the order in which a job goes through them.
    for (const state of STATES)
      for (const kind of kinds) {
        const hasEnded = state === 'completed' || state === 'failed'
        const unknown: string[] = []
        for (const id of await queues[kind].getRanges([state], 0, limit - 1, false)) {
          const known = hasEnded ? ended.get(id) : undefined
          if (known === undefined) unknown.push(id)
          else found.set(id, known)
        }
        for (const kept of await Promise.all(unknown.map((id) => queues[kind].getJob(id)))) {
          if (kept?.data?.request === undefined) continue
          const id = kept.id!
          const listed = { order: kept.data.order, job: shown(kept, state, holders.has(id)) }
          found.set(id, listed)
          if (hasEnded) remember(id, listed)
        }
      }
    return [...found.values()]
      .sort((a, b) => b.order - a.order)
      .slice(0, limit)
      .map(({ job }) => ({ ...job }))
  }
}
