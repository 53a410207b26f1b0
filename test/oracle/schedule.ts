/**
 * Schedules as plain values. Invariant: each step carries its own seed, so that dropping one leaves the others as they
 * were: that is what lets a failing schedule be shrunk to a minimal trace.
 */
import { type Random, random } from '../../cli/random.ts'
import { type Fault, randomFault } from './nemesis.ts'

export type StepKind =
  | 'append'
  | 'speed'
  | 'archive'
  | 'extend'
  | 'recompute'
  | 'verify'
  | 'rollback'
  | 'define'
  | 'activate'
  | 'drop'
  | 'retire'
  | 'retention'
  | 'compact'
  | 'restart'
  | 'save-store'
  | 'restore-store'
  | 'lose-store'
  | 'delete-blocks'
  | 'old-blocks'
  | 'repair'
  | 'query'
  | 'together'

export type Step = {
  kind: StepKind
  seed: number
  fault: Fault | null
  together?: Step[]
  /** Which runner, and which view: else drawn from the seed. */
  batch?: 0 | 1
  view?: number
  /** From this port call on it waits until those beside it have ended: a job that was paused, and comes back late. */
  stall?: number
  /** Nobody asks around this step. */
  quiet?: boolean
}

export type Schedule = {
  seed: number
  stores: 'memory' | 'lmdb'
  /** How often a step is followed by a question: copies that are seldom asked have much to catch up with at once. */
  asks: number
  steps: Step[]
}

const WEIGHTS: [StepKind, number][] = [
  ['append', 30],
  ['speed', 28],
  ['archive', 8],
  ['extend', 12],
  ['recompute', 3],
  ['verify', 2],
  ['rollback', 6],
  ['define', 4],
  ['activate', 2],
  ['drop', 1],
  ['retire', 5],
  ['retention', 4],
  ['compact', 1],
  ['restart', 2],
  ['save-store', 3],
  ['restore-store', 3],
  ['lose-store', 1],
  ['delete-blocks', 3],
  ['old-blocks', 4],
  ['repair', 2],
  ['query', 3],
  ['together', 10],
]
/** Steps in which a process works: those can meet a fault, and can run beside each other. */
const WORK: StepKind[] = [
  'append',
  'speed',
  'archive',
  'extend',
  'recompute',
  'rollback',
  'define',
  'retire',
  'retention',
  'query',
]
const RIVALS: StepKind[] = ['extend', 'extend', 'extend', 'recompute', 'rollback', 'archive']
const HARMS_MEMORY_ONLY: StepKind[] = ['save-store', 'restore-store', 'lose-store', 'delete-blocks', 'old-blocks']
const NEEDS_SAVED: StepKind[] = ['restore-store', 'old-blocks']

/** Each schedule leaves some kinds of steps out and has more of others: what needs several of one rare kind happens, too. */
const ownWeights = (r: Random): [StepKind, number][] =>
  WEIGHTS.map(([kind, weight]) => [kind, weight > 10 ? weight : weight * r.pick([0, 0.5, 1, 3])])

const weighted = (r: Random, weights: [StepKind, number][]): StepKind => {
  let at = r.next() * weights.reduce((n, [, w]) => n + w, 0)
  for (const [kind, weight] of weights) {
    at -= weight
    if (at < 0) return kind
  }
  return 'append'
}

const seedOf = (r: Random): number => r.int(1, 2 ** 31)

export const randomSchedule = (seed: number): Schedule => {
  const r = random(seed)
  const stores = r.chance(0.15) ? 'lmdb' : 'memory'
  const faults = r.chance(0.8)
  const asks = r.pick([1, 0.6, 0.3])
  const weights = ownWeights(r)
  const work = (kind: StepKind): Step => ({
    kind,
    seed: seedOf(r),
    fault: faults && WORK.includes(kind) && r.chance(kind === 'speed' ? 0.4 : 0.25) ? randomFault(r) : null,
  })
  const late = (steps: Step[], chance: number): Step[] => {
    if (r.chance(chance)) steps[r.int(0, steps.length)]!.stall = Math.floor(r.next() ** 1.5 * 40)
    return steps
  }
  const together = (): Step[] => {
    const kind = r.next()
    // Two runners of one view: the commit decides.
    const view = r.int(0, 3)
    const rival = (batch: 0 | 1): Step => ({ ...work(r.pick(RIVALS)), batch, view })
    if (kind < 0.4) return late([rival(0), rival(1), ...(r.chance(0.5) ? [work('speed')] : [])], 0.6)
    // A reader while what it reads is written.
    if (kind < 0.55) return late([work('query'), work('speed'), ...(r.chance(0.3) ? [rival(0)] : [])], 0.6)
    // Speed workers most often: who owns a partition is decided at every apply.
    return late(
      Array.from({ length: r.int(2, 4) }, () => work(r.chance(0.35) ? 'speed' : r.pick(WORK))),
      0.3,
    )
  }
  const steps: Step[] = [work('append'), work('speed')]
  const length = r.int(8, 22)
  let saved = false
  while (steps.length < length) {
    let kind = weighted(r, weights)
    if (stores === 'lmdb' && HARMS_MEMORY_ONLY.includes(kind)) continue
    if (NEEDS_SAVED.includes(kind) && !saved) kind = 'save-store'
    saved ||= kind === 'save-store'
    if (kind === 'together') steps.push({ kind, seed: seedOf(r), fault: null, together: together() })
    else if (kind === 'rollback' && r.chance(0.5)) {
      // Back behind something: a generation of its own, with records of its own.
      const view = r.int(0, 3)
      steps.push(work('append'), work('speed'), { ...work('extend'), view }, { ...work(kind), view })
    } else if (kind === 'extend' && r.chance(0.3)) {
      // A copy that was not asked meanwhile has a change of epochs to catch up with at once.
      const quiet = (['append', 'speed', 'extend', 'append'] as const).map((k) => ({ ...work(k), quiet: true }))
      steps.push(...quiet, work('speed'))
    } else steps.push(work(kind))
  }
  return { seed, stores, asks, steps }
}

export const printStep = (step: Step): string => {
  const fault =
    step.fault === null ? '' : ` [${step.fault.kind} at ${step.fault.writes ? 'write' : 'call'} ${step.fault.call}]`
  const stall = step.stall === undefined ? '' : ` [waits at call ${step.stall}]`
  const inner = step.together ? ` (${step.together.map(printStep).join(' | ')})` : ''
  return `${step.kind}#${step.seed}${fault}${stall}${inner}`
}

/** Smaller and smaller schedules that still fail (delta debugging over steps, then faults). `fails` is bounded by `budget` runs. */
export const shrink = async (
  schedule: Schedule,
  fails: (schedule: Schedule) => Promise<boolean>,
  budget = 60,
): Promise<Schedule> => {
  let best = schedule
  let runs = 0
  const attempt = async (steps: Step[]): Promise<boolean> => {
    if (runs++ >= budget) return false
    const next = { ...best, steps }
    if (!(await fails(next))) return false
    best = next
    return true
  }
  for (let size = Math.ceil(best.steps.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < best.steps.length && runs < budget; ) {
      const steps = [...best.steps.slice(0, at), ...best.steps.slice(at + size)]
      if (!(await attempt(steps))) at += size
    }
  }
  for (let at = 0; at < best.steps.length && runs < budget; at++) {
    const step = best.steps[at]!
    const plainer: Step[] = step.together
      ? step.together.map((s) => ({ ...s }))
      : step.fault
        ? [{ ...step, fault: null }]
        : []
    if (plainer.length > 0) await attempt([...best.steps.slice(0, at), ...plainer, ...best.steps.slice(at + 1)])
  }
  return best
}
