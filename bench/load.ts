/**
 * Events over HTTP at a steady rate. Invariant: requests go out on a fixed timetable, whatever the answers take (open loop),
 * unless more than `inFlight` are under way: then the timetable waits and `lateMs` says how far it fell behind.
 */
import { type EventOptions, eventChunks } from './events.ts'
import { accepted, type Client, EVENTS_PATH, NDJSON } from './server.ts'

export type Load = {
  sent(): number
  /** Greatest delay against the timetable, ms. */
  lateMs(): number
  /** Stops sending and waits for all answers; throws the first failure. */
  stop(): Promise<void>
}

export type LoadOptions = {
  client: Client
  /** Events per second. */
  rate: number
  /** Events of a request. */
  batch: number
  events: EventOptions
  inFlight?: number
  /** Told of each answer: when its request began (performance.now()), and the token. */
  answered?(beganMs: number, token: string): void
}

export const startLoad = (options: LoadOptions): Load => {
  const { client, rate, batch, inFlight = 16, answered } = options
  const chunks = eventChunks(options.events, batch)
  const began = performance.now()
  const flying = new Set<Promise<void>>()
  let [sent, lateMs] = [0, 0]
  let going = true
  let failure: unknown

  const post = async (bytes: Buffer, events: number): Promise<void> => {
    const beganMs = performance.now()
    const token = accepted(await client.post(EVENTS_PATH, bytes, NDJSON), events)
    answered?.(beganMs, token)
  }
  const run = async (): Promise<void> => {
    for (const { bytes, events } of chunks) {
      const due = began + (sent / rate) * 1_000
      const left = due - performance.now()
      if (left > 0) await new Promise((resolve) => setTimeout(resolve, left))
      else lateMs = Math.max(lateMs, -left)
      while (flying.size >= inFlight) await Promise.race(flying)
      if (!going || failure !== undefined) return
      sent += events
      const one = post(bytes, events)
        .catch((error: unknown) => {
          failure ??= error
        })
        .finally(() => flying.delete(one))
      flying.add(one)
    }
  }
  const running = run()
  return {
    sent: () => sent,
    lateMs: () => lateMs,
    stop: async () => {
      going = false
      await running
      await Promise.all(flying)
      if (failure !== undefined) throw failure
    },
  }
}
