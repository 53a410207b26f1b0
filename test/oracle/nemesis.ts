/**
 * Faults at the ports. Every component ("process") of a world reaches its durable ports through wrappers made here.
 * Invariant: when a process has crashed, nothing it still tries has an effect; the same schedule meets the same faults.
 *
 * With a turn-taker, port calls of several processes are let through one at a time in an order drawn from the seed, so
 * that interleavings are replayable.
 */
import type { Random } from '../../cli/random.ts'
import { WeirError } from '../../model/errors.ts'

export type FaultKind =
  /** The process dies before the call has an effect / after it, before the reply. */
  | 'crash-before'
  | 'crash-after'
  /** The call has its effect, and the caller gets an error / has none, and the caller gets an error. */
  | 'lost-reply'
  | 'refused'
export type Fault = {
  kind: FaultKind
  /** Number of the port call that it hits, from 0. */
  call: number
  /** Count only the calls that change what is stored: those are few, and where it matters. */
  writes: boolean
}

const WRITES =
  /^(log\.(append|trim)|speed\.(apply|rebuild|install|cut|retire|sweep|dropVersion)|objects\.(put|publish|delete))/

export class Crash extends Error {
  constructor() {
    super('the process was killed')
    this.name = 'Crash'
  }
}

export const unreachable = (what: string): WeirError =>
  new WeirError({
    code: 'WEIR_TEST_UNREACHABLE',
    message: `No answer from ${what}.`,
    next: 'read again what was stored',
    retryable: true,
  })

/** Lets parked calls go one at a time. */
export type Turns = { wait(): Promise<void>; done(): void }

export type Process = {
  name: string
  /** Arms a fault for the calls to come. */
  arm(fault: Fault | null): void
  crashed(): boolean
  /** Port calls since `arm`. */
  calls(): number
  turns: Turns | null
  wrap<T extends object>(port: T, what: string): T
}

export const openProcess = (name: string): Process => {
  let armed: Fault | null = null
  let calls = 0
  let dead = false

  const call = async (what: string, run: () => Promise<unknown>): Promise<unknown> => {
    const turns = process.turns
    await turns?.wait()
    try {
      return await hit(what, run)
    } finally {
      turns?.done()
    }
  }

  const hit = async (what: string, run: () => Promise<unknown>): Promise<unknown> => {
    if (dead) throw new Crash()
    const counted = armed !== null && (!armed.writes || WRITES.test(what))
    const fault = counted && calls++ === armed!.call ? armed!.kind : null
    if (fault === 'crash-before') {
      dead = true
      throw new Crash()
    }
    if (fault === 'refused') throw unreachable(what)
    const result = await run()
    if (fault === 'crash-after') dead = true
    if (dead) throw new Crash()
    if (fault === 'lost-reply') throw unreachable(what)
    return result
  }

  const process: Process = {
    name,
    arm: (fault) => {
      armed = fault
      calls = 0
    },
    crashed: () => dead,
    calls: () => calls,
    turns: null,
    wrap: <T extends object>(port: T, what: string): T =>
      new Proxy(port, {
        get: (target, key, receiver) => {
          const member: unknown = Reflect.get(target, key, receiver)
          if (typeof member !== 'function' || key === 'close') return member
          return (...args: unknown[]) =>
            call(`${what}.${String(key)}`, () => Promise.resolve((member as (...a: unknown[]) => unknown)(...args)))
        },
      }),
  }
  return process
}

export const randomFault = (r: Random): Fault => {
  const writes = r.chance(0.6)
  return {
    kind: r.pick(['crash-before', 'crash-after', 'lost-reply', 'refused'] as const),
    call: Math.floor(r.next() ** (writes ? 3 : 2) * (writes ? 8 : 25)),
    writes,
  }
}

/**
 * Runs tasks whose processes take turns at their port calls. A call waits until every other running task is waiting too
 * (or has ended), then one is drawn. A task with `stall` waits from that call of its own on until the others have ended.
 */
export const interleave = async (
  r: Random,
  tasks: { process: Process; run: () => Promise<unknown>; stall?: number | undefined }[],
): Promise<void> => {
  type Waiting = { task: number; go: () => void }
  const waiting: Waiting[] = []
  const running = new Set(tasks.map((_, i) => i))
  const late = tasks.findIndex((t) => t.stall !== undefined)
  let lateCalls = 0
  let failure: unknown
  const next = (): void => {
    const parked = new Set(waiting.map((w) => w.task))
    if ([...running].some((t) => !parked.has(t)) || waiting.length === 0) return
    const stalled = late >= 0 && lateCalls > tasks[late]!.stall! && [...running].some((t) => t !== late)
    const chosen = r.pick(stalled ? waiting.filter((w) => w.task !== late) : waiting)
    waiting.splice(waiting.indexOf(chosen), 1)
    chosen.go()
  }
  await Promise.all(
    tasks.map(async ({ process, run }, task) => {
      process.turns = {
        wait: () =>
          new Promise<void>((go) => {
            if (task === late) lateCalls++
            waiting.push({ task, go })
            next()
          }),
        // For calls in parallel: the others of the task may go on while its continuation still waits for all of them.
        done: () => void setImmediate(next),
      }
      try {
        await run()
      } catch (error) {
        failure ??= error
      } finally {
        process.turns = null
        running.delete(task)
        // What the task left behind (calls that nobody awaits) goes through at once.
        for (const left of waiting.splice(0)) {
          if (left.task === task) left.go()
          else waiting.push(left)
        }
        next()
      }
    }),
  )
  if (failure !== undefined) throw failure
}
