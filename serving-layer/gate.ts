/**
 * How many queries run at a time. Invariant: at most `places` hold a place; those that wait do so in order, not longer than
 * asked, and are at most `queue`.
 */
import { busy } from './errors.ts'

export type Gate = {
  /** Resolves to the function that frees the place. Throws WEIR_SERVING_BUSY. */
  enter(waitMs: number, signal?: AbortSignal): Promise<() => void>
  state(): { running: number; waiting: number }
}

export const openGate = (places: number, queue: number): Gate => {
  let running = 0
  const waiting: (() => void)[] = []
  const leave = (): (() => void) => {
    let left = false
    return () => {
      if (left) return
      left = true
      const next = waiting.shift()
      // The place goes over to the next one as it is.
      if (next) next()
      else running--
    }
  }
  return {
    state: () => ({ running, waiting: waiting.length }),
    enter: (waitMs, signal) => {
      if (running < places) {
        running++
        return Promise.resolve(leave())
      }
      if (waiting.length >= queue) return Promise.reject(busy(waiting.length))
      return new Promise((resolve, reject) => {
        const done = (): void => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', giveUp)
        }
        const go = (): void => {
          done()
          resolve(leave())
        }
        const giveUp = (): void => {
          done()
          const at = waiting.indexOf(go)
          if (at >= 0) waiting.splice(at, 1)
          reject(busy(waiting.length))
        }
        const timer = setTimeout(giveUp, waitMs)
        signal?.addEventListener('abort', giveUp, { once: true })
        waiting.push(go)
      })
    },
  }
}

/** Runs one thing at a time, in order of arrival. */
export type Mutex = <T>(run: () => Promise<T>) => Promise<T>
export const mutex = (): Mutex => {
  let last: Promise<unknown> = Promise.resolve()
  return (run) => {
    const next = last.then(run, run)
    last = next.catch(() => undefined)
    return next
  }
}
