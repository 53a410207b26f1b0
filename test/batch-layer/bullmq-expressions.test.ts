/**
 * A schedule fires at the same instants in both profiles. BullMQ's own reader of expressions is no match over changes of daylight saving
 * time; the second test keeps what it does, so that the reason for not using it (docs/decisions/bullmq-schedules.md) can be checked.
 */
import { defaultRepeatStrategy } from 'bullmq'
import { Cron } from 'croner'
import { describe, expect, it } from 'vitest'
import { repeatStrategy } from '../../batch-layer/bullmq-ticks.ts'

const EXPRESSIONS = [
  '15 3 * * *', // the default of recompute
  '*/5 * * * *',
  '*/10 * * * * *',
  '0 */2 * * *',
  '0 */5 * * *',
  '30 1 * * *',
  '30 2 * * *',
  '0 30 2 * * *',
  '15,45 1-3 * * *',
  '0 1,2,3 25 10 *',
  '*/15 2 29 3 *',
  '0 9-17 * * 1-5',
  '0 12 * * 1',
  '0 2 * * sun',
  '0 0 * * 7',
  '0 0 * * 5#2',
  '0 0 * * 5L',
  '0 0 1 * *',
  '0 0 L * *',
  '0 0 29 2 *',
  '0 3 31 * *',
  '0 0 13 * 5',
  '@daily',
  '@hourly',
]
/** Offsets of whole, half and quarter hours, changes of an hour and of half an hour, both hemispheres, none. */
const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Australia/Lord_Howe',
  'Asia/Kathmandu',
  'Pacific/Auckland',
  'Africa/Casablanca',
]
/** Before and in changes of daylight saving time, and far from any. */
const STARTS = [
  '2026-02-14T00:00:00Z',
  '2026-03-07T12:00:00Z',
  '2026-03-28T12:00:00Z',
  '2026-03-29T00:59:59.500Z',
  '2026-04-04T00:00:00Z',
  '2026-09-26T00:00:00Z',
  '2026-10-03T00:00:00Z',
  '2026-10-24T12:00:00Z',
  '2026-10-31T12:00:00Z',
]
const TIMES = 5
type Strategy = (afterMs: number, options: { pattern: string; tz: string }) => unknown

/** The next fire times, as BullMQ asks for them: one after the other. */
const fires = (strategy: Strategy, pattern: string, tz: string, start: string): string[] => {
  const out: string[] = []
  for (let at = Date.parse(start); out.length < TIMES; ) {
    const next = strategy(at, { pattern, tz })
    if (typeof next !== 'number') return [...out, 'never again']
    out.push(new Date(next).toISOString())
    at = next
  }
  return out
}
const each = (look: (pattern: string, tz: string, start: string) => void): void => {
  for (const pattern of EXPRESSIONS) for (const tz of ZONES) for (const start of STARTS) look(pattern, tz, start)
}

describe('schedule expressions', () => {
  it('fire over BullMQ when they fire in the process', () => {
    each((pattern, tz, start) => {
      const embedded = new Cron(pattern, { timezone: tz, paused: true }).nextRuns(TIMES, new Date(start))
      expect([pattern, tz, start, ...fires(repeatStrategy, pattern, tz, start)]).toEqual([
        pattern,
        tz,
        start,
        ...embedded.map((date) => date.toISOString()),
      ])
    })
  })

  it("would fire otherwise, or never again, by BullMQ's own reader", () => {
    const own = defaultRepeatStrategy as Strategy
    // Where clocks never change both are one.
    for (const pattern of EXPRESSIONS)
      expect(fires(own, pattern, 'UTC', STARTS[2]!)).toEqual(fires(repeatStrategy, pattern, 'UTC', STARTS[2]!))
    const differ = (pattern: string, tz: string, start: string) => [
      fires(repeatStrategy, pattern, tz, start)[0],
      fires(own, pattern, tz, start)[0],
    ]
    // An hour that there is not: at once when clocks have gone forward, or half an hour later.
    expect(differ('30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z')).toEqual([
      '2026-03-29T01:00:00.000Z',
      '2026-03-29T01:30:00.000Z',
    ])
    // A change by half an hour ends the schedule for good, without a word.
    expect(differ('15 3 * * *', 'Australia/Lord_Howe', '2026-04-04T00:00:00Z')).toEqual([
      '2026-04-04T16:45:00.000Z',
      'never again',
    ])
  })

  it('count intervals from the epoch, so that all processes come to the same instants', () => {
    const at = Date.parse('2026-11-24T20:00:01.234Z')
    expect(fires(repeatStrategy, 'every 90 seconds', 'UTC', new Date(at).toISOString()).slice(0, 2)).toEqual([
      '2026-11-24T20:01:30.000Z',
      '2026-11-24T20:03:00.000Z',
    ])
    expect(repeatStrategy(at, { pattern: 'every 1 seconds', tz: 'UTC' })! - at).toBe(766)
    expect(repeatStrategy(Math.floor(at / 1_000) * 1_000, { pattern: 'every 1 seconds', tz: 'UTC' })).toBe(
      Math.floor(at / 1_000) * 1_000 + 1_000,
    )
  })
})
