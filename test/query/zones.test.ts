/** Buckets in zones: JavaScript and the engine agree, and days have the hours that clocks say. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { random } from '../../cli/random.ts'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { bucketKey, bucketLabel } from '../../model/query/buckets.ts'
import { boundaries, boundaryAt, labelOf, nextBoundary, printGrain } from '../../model/query/grain.ts'
import type { QueryGrain } from '../../model/query/query.ts'
import { formatTime, parseTime } from '../../model/query/time.ts'
import { firstInstantAt } from '../../model/query/zone.ts'
import { type Event, HOUR, MINUTE, mergedRows, resolve, salesView } from './support.ts'

// Zones of which both time zone databases say the same: the engine brings its own (docs/decisions/query-time.md).
const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'America/Sao_Paulo',
  'America/Havana',
  'Asia/Kolkata',
  'Asia/Kathmandu',
  'Australia/Lord_Howe',
  'Asia/Tokyo',
  'Pacific/Apia',
  'America/Santiago',
]
const GRAINS: QueryGrain[] = [
  { unit: 'minute', n: 15 },
  { unit: 'hour', n: 1 },
  { unit: 'hour', n: 6 },
  { unit: 'hour', n: 24 },
  { unit: 'day', n: 1 },
  { unit: 'day', n: 3 },
  { unit: 'week', n: 1 },
  { unit: 'month', n: 1 },
  { unit: 'month', n: 5 },
  { unit: 'quarter', n: 1 },
  { unit: 'year', n: 1 },
]
const us = (text: string, zone = 'UTC'): bigint => parseTime(text, zone)!

describe('labels', () => {
  let engine: Engine
  beforeAll(async () => {
    engine = await openEngine()
  })
  afterAll(() => engine.close())

  it.each(ZONES)('are the same in JavaScript and in SQL: %s', async (zone) => {
    const r = random(7)
    const instants: bigint[] = []
    for (let i = 0; i < 200; i++)
      instants.push(BigInt(r.int(-200_000, 2_300_000)) * 3_600_000_000n + BigInt(r.int(0, 4)) * 900_000_000n)
    // Around midnights and changes of clocks, where it hurts.
    for (const year of [2011, 2018, 2026])
      for (let day = 0; day < 365; day += 2) {
        const midnight = firstInstantAt(zone, Date.UTC(year, 0, 1 + day) / 1000)
        instants.push(BigInt(midnight) * 1_000_000n, BigInt(midnight) * 1_000_000n - 1n)
      }
    await engine.withSession(async (session) => {
      await session.run(
        `CREATE TEMP TABLE t AS SELECT unnest([${instants.join(', ')}]::BIGINT[]) AS u, unnest(range(${instants.length})) AS i`,
      )
      for (const grain of GRAINS) {
        const label = bucketLabel(grain, zone, bucketKey(grain, zone, 'make_timestamptz(u)'))
        const [labels] = await session.columns(`SELECT epoch_us(${label}) FROM t ORDER BY i`)
        const wrong = instants.filter((at, i) => labelOf(grain, zone, at) !== labels![i])
        expect(wrong.map((w) => `${printGrain(grain)} ${formatTime(w)}`)).toEqual([])
      }
    })
  })

  it('change exactly at boundaries', () => {
    const r = random(3)
    for (const zone of ZONES)
      for (const grain of GRAINS.slice(0, 7))
        for (let i = 0; i < 8; i++) {
          const at = us('2026-01-01T00:00:00Z') + BigInt(r.int(0, 365 * 24 * 4)) * 900_000_000n
          const [start, end] = [boundaryAt(grain, zone, at), nextBoundary(grain, zone, at)]
          expect(start <= at && at < end).toBe(true)
          const label = labelOf(grain, zone, at)
          for (const inside of [start, end - 1n]) expect(labelOf(grain, zone, inside)).toBe(label)
          for (const outside of [start - 1n, end]) expect(labelOf(grain, zone, outside)).not.toBe(label)
        }
  })

  it('lists 23, 24 and 25 hours', () => {
    const hours = (day: string, next: string): number =>
      boundaries(
        { unit: 'hour', n: 1 },
        'Europe/Berlin',
        { fromUs: us(day, 'Europe/Berlin'), toUs: us(next, 'Europe/Berlin') },
        100,
      )!.length
    expect(hours('2026-03-29', '2026-03-30')).toBe(23)
    expect(hours('2026-10-25', '2026-10-26')).toBe(25)
    expect(hours('2026-10-26', '2026-10-27')).toBe(24)
  })

  it('take the first of two midnights, and the jump over a missing one', () => {
    const day: QueryGrain = { unit: 'day', n: 1 }
    expect(formatTime(labelOf(day, 'America/Havana', us('2026-11-01T12:00:00Z')))).toBe('2026-11-01T04:00:00Z')
    expect(formatTime(labelOf(day, 'America/Sao_Paulo', us('2018-11-04T12:00:00Z')))).toBe('2018-11-04T03:00:00Z')
  })

  it('begin weeks on Monday', () => {
    expect(formatTime(labelOf({ unit: 'week', n: 1 }, 'UTC', us('2026-11-29T23:59:59Z')))).toBe('2026-11-23T00:00:00Z')
    expect(formatTime(labelOf({ unit: 'week', n: 1 }, 'Asia/Tokyo', us('2026-11-29T15:00:00Z')))).toBe(
      '2026-11-29T15:00:00Z',
    )
  })
})

describe('answers in zones', () => {
  let engine: Engine
  beforeAll(async () => {
    engine = await openEngine()
  })
  afterAll(() => engine.close())
  const hourly = (from: string, hours: number): Event[] =>
    Array.from({ length: hours }, (_, i) => ({
      ts: `${formatTime(us(from) + BigInt(i) * 3_600_000_000n + 60_000_000n).replace('Z', '+00')}`,
      country: 'DE',
    }))

  it('has 25 rows on a day of 25 hours, and one day', async () => {
    const events = hourly('2026-10-24T22:00:00Z', 25)
    const timeRange = { from: '2026-10-25', to: '2026-10-26' }
    const base = { timeZone: 'Europe/Berlin', dimensions: [], measures: ['sold'], timeRange }
    const hours = await mergedRows(engine, salesView(HOUR), resolve({ ...base, grain: '1 hour' }), events)
    expect(hours).toHaveLength(25)
    expect(hours.every((row) => row.sold === 1)).toBe(true)
    const day = await mergedRows(engine, salesView(HOUR), resolve({ ...base, grain: '1 day' }), events)
    expect(day).toEqual([{ at: '2026-10-24T22:00:00Z', sold: 25 }])
  })

  it('fills the 23 hours of a short day', async () => {
    const query = { timeZone: 'Europe/Berlin', dimensions: ['country'], measures: ['sold', 'total'], fill: true }
    const timeRange = { from: '2026-03-29', to: '2026-03-30' }
    const rows = await mergedRows(
      engine,
      salesView(HOUR),
      resolve({ ...query, grain: '1 hour', timeRange }),
      hourly('2026-03-29T05:00:00Z', 1),
    )
    expect(rows).toHaveLength(23)
    expect(rows.filter((row) => row.sold === 1)).toEqual([
      { at: '2026-03-29T05:00:00Z', country: 'DE', sold: 1, total: null },
    ])
    expect(rows.filter((row) => row.sold === 0)).toHaveLength(22)
  })

  it('gives Kolkata its days from minutes', async () => {
    const query = { timeZone: 'Asia/Kolkata', dimensions: [], measures: ['sold'], grain: '1 day' }
    const rows = await mergedRows(
      engine,
      salesView(MINUTE),
      resolve(query, salesView(MINUTE)),
      hourly('2026-11-23T18:00:00Z', 2),
    )
    expect(rows).toEqual([
      { at: '2026-11-22T18:30:00Z', sold: 1 },
      { at: '2026-11-23T18:30:00Z', sold: 1 },
    ])
  })

  it('compares bucket by bucket, also across a change of clocks', async () => {
    const query = {
      timeZone: 'Europe/Berlin',
      dimensions: [],
      measures: ['sold'],
      grain: '1 day',
      compareTo: 'previous' as const,
    }
    const timeRange = { from: '2026-10-25', to: '2026-10-27' }
    const rows = await mergedRows(
      engine,
      salesView(HOUR),
      resolve({ ...query, timeRange }),
      hourly('2026-10-22T22:00:00Z', 97),
    )
    expect(rows).toEqual([
      { at: '2026-10-24T22:00:00Z', sold: 25, sold_previous: 24 },
      { at: '2026-10-25T23:00:00Z', sold: 24, sold_previous: 24 },
    ])
  })

  it('has only windows that lie wholly in the range', async () => {
    const query = { dimensions: [], measures: ['sold'], window: '3 hours', every: '2 hours' }
    const timeRange = { from: '2026-11-24T01:00:00Z', to: '2026-11-24T08:00:00Z' }
    const events = hourly('2026-11-24T00:00:00Z', 12)
    const rows = await mergedRows(engine, salesView(HOUR), resolve({ ...query, timeRange }), events)
    expect(rows).toEqual([
      { at: '2026-11-24T02:00:00Z', sold: 3 },
      { at: '2026-11-24T04:00:00Z', sold: 3 },
    ])
    const open = await mergedRows(engine, salesView(HOUR), resolve(query), events)
    expect(open.map((row) => row.sold)).toEqual([1, 3, 3, 3, 3, 3, 2])
  })
})
