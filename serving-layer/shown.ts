/**
 * The uppers that this process has shown. Invariant (P6): no answer is below one that was shown before it was planned,
 * unless the log itself has lost the records in between.
 */
import type { EventLog } from '../model/ports/event-log.ts'
import { type Position, samePosition } from '../model/position.ts'
import { misfit } from './errors.ts'
import type { Plan } from './plan.ts'

export type Shown = {
  /** Throws a misfit when the plan would go back. */
  check(dataset: string, plan: Plan): Promise<void>
  note(dataset: string, plan: Plan): void
  /** Without asking the log: whether a position is not below what was shown. */
  isReached(dataset: string, partition: number, upper: Position | undefined): boolean
}

export const openShown = (log: EventLog): Shown => {
  const shown = new Map<string, Position>()
  return {
    isReached: (dataset, partition, upper) => {
      const before = shown.get(`${dataset}/${partition}`)
      return before === undefined || (upper?.logId === before.logId && upper.offset >= before.offset)
    },
    check: async (dataset, plan) => {
      for (const { partition, upper } of plan.partitions) {
        const before = shown.get(`${dataset}/${partition}`)
        if (before === undefined || before.logId !== upper.logId || upper.offset >= before.offset) continue
        const own = await log.positionAt(dataset, partition, before.offset)
        const { startOffset } = await log.range(dataset, partition)
        const lost = own === null ? before.offset >= startOffset : !samePosition(own, before)
        if (lost) shown.delete(`${dataset}/${partition}`)
        else throw misfit('BEHIND', plan.view, `partition ${partition}: ${upper.offset}, shown before ${before.offset}`)
      }
    },
    note: (dataset, plan) => {
      for (const { partition, upper } of plan.partitions) {
        const key = `${dataset}/${partition}`
        const before = shown.get(key)
        if (before === undefined || before.logId !== upper.logId || upper.offset >= before.offset) shown.set(key, upper)
      }
    },
  }
}
