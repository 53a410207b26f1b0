/**
 * Load for demos: synthetic events of every dataset of a project, through HTTP. Invariant: what was made, accepted and
 * rejected is counted, and every event that was made is sent.
 */
import { setTimeout as wait } from 'node:timers/promises'
import type { Dataset } from '../model/dataset.ts'
import type { Client } from './client.ts'
import { type GenerateOptions, generate, type Kind } from './generator.ts'
import { openSender, type Sent } from './sending.ts'

export type Made = Record<Kind, number>
export const DISORDER = { disorder: 0.1, duplicates: 0.03, bad: 0.01 }

export const makeNothing = (): Made => ({ fresh: 0, late: 0, duplicate: 0, bad: 0 })
export const total = (made: Made): number => made.fresh + made.late + made.duplicate + made.bad

/** A stream of one dataset's events that can be sent piece by piece. */
export const openStream = (dataset: Dataset, options: GenerateOptions) => {
  const events = generate(dataset, options)
  const made = makeNothing()
  let line = 0
  return {
    made,
    /** Sends the next `count` events as requests of at most 2,000. */
    send: async (client: Client, count: number): Promise<Sent> => {
      const sender = openSender({ client, dataset: dataset.name, events: 2_000 })
      for (let n = 0; n < count; n++) {
        const event = events.next().value
        made[event.kind]++
        await sender.write(event.line, ++line)
      }
      return sender.end()
    },
  }
}

/** Events per second of each dataset of the demo; others get a tenth of the greatest. */
const SHARES: Record<string, number> = { page_views: 0.5, orders: 0.35, inventory: 0.1, promotions: 0.05 }

export type Steady = { accepted(): number; rejected(): number; stop(): Promise<void> }

/** Sends at a steady rate until stopped; `failed` is told of what a request failed with, and sending goes on. */
export const sendSteadily = (
  client: Client,
  datasets: Dataset[],
  rate: number,
  failed: (error: unknown) => void,
): Steady => {
  const controller = new AbortController()
  let accepted = 0
  let rejected = 0
  // A seed of its own for each run: ids of an earlier run must not come again.
  const seed = Math.floor(Date.now() / 1_000)
  const run = async (dataset: Dataset): Promise<void> => {
    const perSecond = Math.max(1, Math.round(rate * (SHARES[dataset.name] ?? 0.1)))
    const stream = openStream(dataset, { ...DISORDER, seed, startMs: Date.now(), stepMs: 1_000 / perSecond })
    const began = performance.now()
    let sent = 0
    while (!controller.signal.aborted) {
      const due = Math.floor(((performance.now() - began) / 1_000) * perSecond) - sent
      if (due > 0) {
        // Behind by more than five seconds: the machine is too slow for the rate, so the rate gives way.
        const now = Math.min(due, perSecond * 5)
        sent += due
        try {
          const result = await stream.send(client, now)
          accepted += result.accepted
          rejected += result.rejected
        } catch (error) {
          if (!controller.signal.aborted) failed(error)
        }
      }
      await wait(100, undefined, { signal: controller.signal }).catch(() => undefined)
    }
  }
  const running = datasets.map(run)
  return {
    accepted: () => accepted,
    rejected: () => rejected,
    stop: async () => {
      controller.abort()
      await Promise.all(running)
    },
  }
}
