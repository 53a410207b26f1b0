/**
 * Follows views in the background, for as long as they are asked. Invariant: one look at a time; a view is looked at again and
 * again until nobody has asked for it for a while; after `close` nothing runs.
 */
import type { View } from '../model/view.ts'

export type Follower = {
  /** The view was asked just now. */
  follow(view: View): void
  /** Resolves when what runs has ended. */
  close(): Promise<void>
}

/** `look` never throws. `everyMs`: from the end of a round to the next one. */
export const openFollower = (
  look: (view: View) => Promise<void>,
  { everyMs, forMs }: { everyMs: number; forMs: number },
): Follower => {
  const asked = new Map<string, { view: View; atMs: number }>()
  let isOpen = true
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  const round = async (): Promise<void> => {
    for (const [name, { view, atMs }] of asked) {
      if (!isOpen) return
      if (atMs + forMs < performance.now()) asked.delete(name)
      else await look(view)
    }
  }
  const schedule = (): void => {
    if (!isOpen || timer !== undefined || running !== undefined || asked.size === 0) return
    timer = setTimeout(() => {
      timer = undefined
      running = round().finally(() => {
        running = undefined
        schedule()
      })
    }, everyMs)
    timer.unref()
  }
  return {
    follow: (view) => {
      // By name: of two versions only the newer one is asked.
      asked.set(view.name, { view, atMs: performance.now() })
      schedule()
    },
    close: async () => {
      isOpen = false
      clearTimeout(timer)
      await running
    },
  }
}
