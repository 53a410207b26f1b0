/**
 * Loops that never end by themselves: step, pause, step, …; a failed step raises an alarm and is tried again, later each
 * time. Invariant: one step at a time; after `stop` resolves no step runs and none begins.
 */
import type { Alarms } from './alarms.ts'

export type LoopOptions = {
  name: string
  /** One bounded piece of work; returns how long to pause before the next one, in ms (0: at once). */
  step(signal: AbortSignal): Promise<number>
  alarms: Alarms
  /** First pause after a failure; doubled each time, up to `maxBackoffMs`. */
  backoffMs?: number
  maxBackoffMs?: number
}

export type Loop = {
  name: string
  /** Ends the pause. */
  wake(): void
  stop(): Promise<void>
}

/** A pause that a signal or `wake` ends early. */
const openPause = () => {
  let end: (() => void) | undefined
  return {
    wake: () => end?.(),
    sleep: (ms: number, signal: AbortSignal): Promise<void> =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve()
        const done = (): void => {
          clearTimeout(timer)
          signal.removeEventListener('abort', done)
          end = undefined
          resolve()
        }
        const timer = setTimeout(done, ms)
        signal.addEventListener('abort', done, { once: true })
        end = done
      }),
  }
}

const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export const startLoop = (options: LoopOptions): Loop => {
  const { name, step, alarms, backoffMs = 100, maxBackoffMs = 10_000 } = options
  const controller = new AbortController()
  const { signal } = controller
  const pause = openPause()

  const run = async (): Promise<void> => {
    let failures = 0
    while (!signal.aborted) {
      let pauseMs: number
      try {
        pauseMs = await step(signal)
        failures = 0
        alarms.clear(name)
      } catch (error) {
        if (signal.aborted) return
        alarms.raise(name, error)
        pauseMs = Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(failures++, 20))
      }
      if (pauseMs > 0) await pause.sleep(pauseMs, signal)
      else await breathe()
    }
  }
  const running = run()
  return {
    name,
    wake: pause.wake,
    stop: async () => {
      controller.abort()
      await running
    },
  }
}
