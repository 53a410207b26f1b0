/** Queries are checked against the view: every refusal teaches, every default is written out. */
import { describe, expect, it } from 'vitest'
import { WeirError } from '../../model/errors.ts'
import type { Query } from '../../model/query/query.ts'
import { resolvedText } from '../../model/query/resolve.ts'
import { formatTime, parseTime } from '../../model/query/time.ts'
import { DAY, HOUR, MINUTE, MONTH, resolve, salesView, WEEK } from './support.ts'

const refusal = (query: Partial<Query>, view = salesView(), options = {}): WeirError => {
  try {
    resolve(query, view, options)
  } catch (error) {
    if (error instanceof WeirError) return error
    throw error
  }
  throw new Error(`${JSON.stringify(query)} was not refused`)
}
const us = (text: string): bigint => parseTime(text, 'UTC')!

describe('defaults', () => {
  it('asks for all of the view at its own grain', () => {
    expect(resolve({})).toEqual({
      view: 'takings',
      version: '00112233aabbccdd',
      measures: ['sold', 'total', 'mean', 'largest', 'each', 'twice'],
      dimensions: ['country', 'shop', 'paid'],
      bucket: { name: 'at', grain: { unit: 'hour', n: 1 }, timeZone: 'UTC', hop: null },
      range: { fromUs: null, toUs: null },
      filters: [],
      orderBy: [],
      limit: 1000,
      fill: false,
      previous: null,
    })
  })
  it('has no bucket for "all", nor for a view without one', () => {
    expect(resolve({ grain: 'all' }).bucket).toBeNull()
    expect(resolve({}, salesView(null)).bucket).toBeNull()
  })
  it('takes the view grain as it is printed', () => {
    expect(resolve({ grain: '01:00:00' }).bucket?.grain).toEqual({ unit: 'hour', n: 1 })
    expect(resolve({ grain: 'Hours' }).bucket?.grain).toEqual({ unit: 'hour', n: 1 })
    expect(resolve({}, salesView(MONTH)).bucket?.grain).toEqual({ unit: 'month', n: 1 })
    expect(resolve({}, salesView(WEEK)).bucket?.grain).toEqual({ unit: 'week', n: 1 })
  })
  it('writes equal queries as equal text', () => {
    const range = { from: '2026-11-24T08:00:00Z', to: '2026-11-24T11:00:00Z' }
    const same = { from: '2026-11-24T09:00:00+01:00', to: '2026-11-24 11:00Z' }
    expect(resolvedText(resolve({ timeRange: same }))).toBe(resolvedText(resolve({ timeRange: range })))
    expect(resolvedText(resolve({ timeRange: { from: range.from } }))).not.toBe(
      resolvedText(resolve({ timeRange: range })),
    )
  })
})

describe('names', () => {
  it.each<[string, Partial<Query>, string, RegExp]>([
    ['a misspelt measure', { measures: ['totl'] }, 'WEIR_MODEL_QUERY_NAME', /did you mean total/],
    ['a misspelt dimension', { dimensions: ['contry'] }, 'WEIR_MODEL_QUERY_NAME', /did you mean country/],
    ['a dimension as measure', { measures: ['country'] }, 'WEIR_MODEL_QUERY_NAME', /move it to dimensions/],
    ['a measure as dimension', { dimensions: ['sold'] }, 'WEIR_MODEL_QUERY_NAME', /move it to measures/],
    ['the bucket as dimension', { dimensions: ['at'] }, 'WEIR_MODEL_QUERY_NAME', /leave it out/],
    ['a name twice', { measures: ['sold', 'sold'] }, 'WEIR_MODEL_QUERY_NAME', /once/],
    ['nothing at all', { measures: [], dimensions: [], grain: 'all' }, 'WEIR_MODEL_QUERY_NAME', /name a measure/],
    ['an unknown order', { orderBy: [{ column: 'sould' }] }, 'WEIR_MODEL_QUERY_NAME', /did you mean sold/],
    [
      'an order by what is not asked',
      { measures: ['sold'], orderBy: [{ column: 'total' }] },
      'WEIR_MODEL_QUERY_NAME',
      /./,
    ],
    ['an order twice', { orderBy: [{ column: 'sold' }, { column: 'sold' }] }, 'WEIR_MODEL_QUERY_ORDER', /./],
    ['limit 0', { limit: 0 }, 'WEIR_MODEL_QUERY_LIMIT', /coarser/],
    ['a limit too high', { limit: 100_001 }, 'WEIR_MODEL_QUERY_LIMIT', /coarser/],
    ['half a limit', { limit: 1.5 }, 'WEIR_MODEL_QUERY_LIMIT', /coarser/],
  ])('refuses %s', (_, query, code, next) => {
    const error = refusal(query)
    expect(error.code).toBe(code)
    expect(error.next).toMatch(next)
  })
  it('orders by a previous measure', () => {
    const timeRange = { from: '2026-11-24T08:00:00Z', to: '2026-11-24T11:00:00Z' }
    const query = resolve({ timeRange, compareTo: 'previous', orderBy: [{ column: 'sold_previous', desc: true }] })
    expect(query.orderBy).toEqual([{ column: 'sold_previous', desc: true }])
  })
})

describe('ranges', () => {
  it('names the two nearest boundaries', () => {
    const error = refusal({ timeRange: { from: '2026-11-24T08:20:00Z' } })
    expect(error.code).toBe('WEIR_MODEL_QUERY_TIME')
    expect(error.expected).toBe('2026-11-24T08:00:00Z or 2026-11-24T09:00:00Z')
  })
  it('names months', () => {
    const error = refusal({ timeRange: { to: '2026-11-24' } }, salesView(MONTH))
    expect(error.expected).toBe('2026-11-01T00:00:00Z or 2026-12-01T00:00:00Z')
  })
  it('may cut the asked buckets, but not those of the view', () => {
    const { range } = resolve({
      grain: '1 day',
      timeRange: { from: '2026-11-24T08:00:00Z', to: '2026-11-25T03:00:00Z' },
    })
    expect(range).toEqual({ fromUs: us('2026-11-24T08:00:00Z'), toUs: us('2026-11-25T03:00:00Z') })
  })
  it('reads dates in the zone', () => {
    const { range } = resolve({
      grain: '1 day',
      timeZone: 'Europe/Berlin',
      timeRange: { from: '2026-11-24', to: '2026-11-25' },
    })
    expect(formatTime(range.fromUs!)).toBe('2026-11-23T23:00:00Z')
    expect(formatTime(range.toUs!)).toBe('2026-11-24T23:00:00Z')
  })
  it.each<[string, string | undefined, string, string, string]>([
    ['24 hours', undefined, 'UTC', '2026-11-23T10:00:00Z', '2026-11-24T11:00:00Z'],
    ['24 hours', 'all', 'UTC', '2026-11-23T10:00:00Z', '2026-11-24T11:00:00Z'],
    ['7 days', '1 day', 'UTC', '2026-11-17T00:00:00Z', '2026-11-25T00:00:00Z'],
    ['7 days', '1 day', 'Europe/Berlin', '2026-11-16T23:00:00Z', '2026-11-24T23:00:00Z'],
    ['2 weeks', '1 week', 'UTC', '2026-11-09T00:00:00Z', '2026-11-30T00:00:00Z'],
    ['3 months', '1 month', 'UTC', '2026-08-01T00:00:00Z', '2026-12-01T00:00:00Z'],
    ['1 year', '1 quarter', 'UTC', '2025-10-01T00:00:00Z', '2027-01-01T00:00:00Z'],
  ])('resolves last %s outward (%s, %s)', (last, grain, timeZone, from, to) => {
    const { range } = resolve({ timeRange: { last }, timeZone, ...(grain === undefined ? {} : { grain }) })
    expect([formatTime(range.fromUs!), formatTime(range.toUs!)]).toEqual([from, to])
  })
  it.each<[string, Partial<Query>, string]>([
    ['no time', { timeRange: { from: 'yesterday' } }, 'WEIR_MODEL_QUERY_TIME'],
    ['a day that is none', { timeRange: { from: '2026-02-30' } }, 'WEIR_MODEL_QUERY_TIME'],
    ['an empty range', { timeRange: { from: '2026-11-24', to: '2026-11-24' } }, 'WEIR_MODEL_QUERY_TIME'],
    ['no length', { timeRange: { last: 'a while' } }, 'WEIR_MODEL_QUERY_TIME'],
    ['no zone', { timeZone: 'Mars/Olympus' }, 'WEIR_MODEL_QUERY_ZONE'],
    ['an offset as zone', { timeZone: '+05:30' }, 'WEIR_MODEL_QUERY_ZONE'],
    ['SQL as zone', { timeZone: "UTC'; DROP" }, 'WEIR_MODEL_QUERY_ZONE'],
    ['no grain', { grain: 'fortnight' }, 'WEIR_MODEL_QUERY_GRAIN'],
    ['zero of a grain', { grain: '0 hours' }, 'WEIR_MODEL_QUERY_GRAIN'],
  ])('refuses %s', (_, query, code) => {
    expect(refusal(query).code).toBe(code)
  })
  it('refuses times for a view without a bucket', () => {
    expect(refusal({ timeRange: { last: '1 day' } }, salesView(null)).code).toBe('WEIR_MODEL_QUERY_TIME')
    expect(refusal({ grain: '1 day' }, salesView(null)).code).toBe('WEIR_MODEL_QUERY_GRAIN')
  })
})

describe('grains that do not nest', () => {
  it.each<[string, typeof HOUR, Partial<Query>, string]>([
    ['finer than the view', HOUR, { grain: '15 minutes' }, '15 minutes'],
    ['no multiple', HOUR, { grain: '90 minutes' }, '90 minutes'],
    ['Kolkata days of hours', HOUR, { grain: '1 day', timeZone: 'Asia/Kolkata' }, '30 minutes'],
    ['Kolkata hours of hours', HOUR, { grain: '1 hour', timeZone: 'Asia/Kolkata' }, '30 minutes'],
    ['Kathmandu days of hours', HOUR, { grain: '1 day', timeZone: 'Asia/Kathmandu' }, '15 minutes'],
    ['Berlin days of UTC days', DAY, { grain: '1 day', timeZone: 'Europe/Berlin' }, '1 hour'],
    ['months of weeks', WEEK, { grain: '1 month' }, '1 day'],
    ['days of weeks', WEEK, { grain: '1 day' }, '1 day'],
    ['weeks of months', MONTH, { grain: '1 week' }, '1 week'],
    ['New York months of UTC months', MONTH, { grain: '1 month', timeZone: 'America/New_York' }, '1 hour'],
  ])('%s', (_, grain, query, needed) => {
    const timeRange = { from: '2026-03-01T00:00:00Z', to: '2026-12-01T00:00:00Z' }
    const error = refusal({ ...query, ...(grain === WEEK ? {} : { timeRange }) }, salesView(grain))
    expect(error.code).toBe('WEIR_MODEL_QUERY_GRAIN')
    expect(error.expected).toContain(`a grain of ${needed} `)
  })
  it.each<[string, typeof HOUR, Partial<Query>]>([
    ['Berlin days of hours', HOUR, { grain: '1 day', timeZone: 'Europe/Berlin' }],
    ['Kolkata days of minutes', MINUTE, { grain: '1 day', timeZone: 'Asia/Kolkata' }],
    ['weeks of days', DAY, { grain: '1 week' }],
    ['two weeks of weeks', WEEK, { grain: '2 weeks' }],
    ['quarters of months', MONTH, { grain: '1 quarter' }],
    ['years of days', DAY, { grain: '1 year' }],
    [
      'London winter days of UTC days',
      DAY,
      { grain: '1 day', timeZone: 'Europe/London', timeRange: { from: '2026-12-01', to: '2027-01-01' } },
    ],
  ])('but these do: %s', (_, grain, query) => {
    expect(resolve(query, salesView(grain)).bucket).not.toBeNull()
  })
})

describe('windows, fill, comparison', () => {
  const timeRange = { from: '2026-11-24T00:00:00Z', to: '2026-11-25T00:00:00Z' }
  it('counts windows in multiples of the grain', () => {
    const { bucket } = resolve({ window: '1 day', every: '6 hours' })
    expect(bucket?.hop).toEqual({ windowUs: 86_400_000_000n, everyUs: 21_600_000_000n })
    expect(resolve({ window: '3 hours' }).bucket?.hop?.everyUs).toBe(3_600_000_000n)
  })
  it('goes back by as many buckets, or by the same length', () => {
    const month = resolve({
      grain: '1 month',
      timeRange: { from: '2026-03-01', to: '2026-05-01' },
      compareTo: 'previous',
    })
    expect(month.previous).toEqual({ fromUs: us('2026-01-01'), toUs: us('2026-03-01') })
    const day = resolve({ timeRange, compareTo: 'previous' })
    expect(day.previous).toEqual({ fromUs: us('2026-11-23'), toUs: us('2026-11-24') })
    const zone = { timeZone: 'Europe/Berlin', grain: '1 day' }
    const autumn = resolve({ ...zone, timeRange: { from: '2026-10-26', to: '2026-10-27' }, compareTo: 'previous' })
    expect(formatTime(autumn.previous!.fromUs)).toBe('2026-10-24T22:00:00Z')
  })
  it.each<[string, Partial<Query>, string]>([
    ['a window that is no multiple', { window: '90 minutes' }, 'WEIR_MODEL_QUERY_WINDOW'],
    ['a window of months', { window: '1 month' }, 'WEIR_MODEL_QUERY_WINDOW'],
    ['every without window', { every: '1 hour' }, 'WEIR_MODEL_QUERY_WINDOW'],
    ['a window without grain', { window: '1 day', grain: 'all' }, 'WEIR_MODEL_QUERY_WINDOW'],
    ['too many windows', { window: '2000 hours' }, 'WEIR_MODEL_QUERY_WINDOW'],
    [
      'windows over a change of clocks',
      {
        window: '2 hours',
        timeZone: 'Europe/Berlin',
        timeRange: { from: '2026-10-24T00:00:00Z', to: '2026-10-26T00:00:00Z' },
      },
      'WEIR_MODEL_QUERY_WINDOW',
    ],
    ['fill without an end', { fill: true, timeRange: { from: '2026-11-24' } }, 'WEIR_MODEL_QUERY_FILL'],
    ['fill without buckets', { fill: true, grain: 'all', timeRange }, 'WEIR_MODEL_QUERY_FILL'],
    [
      'fill of too many buckets',
      { fill: true, timeRange: { from: '2000-01-01', to: '2026-01-01' } },
      'WEIR_MODEL_QUERY_FILL',
    ],
    ['comparison without a range', { compareTo: 'previous' }, 'WEIR_MODEL_QUERY_COMPARE'],
  ])('refuses %s', (_, query, code) => {
    expect(refusal(query).code).toBe(code)
  })
})

describe('forced filters', () => {
  it('are one more AND, typed by the dimension', () => {
    const query = resolve({ filters: [{ column: 'country', op: '=', value: 'DE' }] }, salesView(), {
      forced: { shop: '7', country: 'DE' },
    })
    expect(query.filters).toEqual([
      { column: 'country', op: '=', value: 'DE' },
      { column: 'country', op: '=', value: 'DE' },
      { column: 'shop', op: '=', value: '7' },
    ])
  })
  it('refuse a view that does not tell rows apart', () => {
    expect(refusal({}, salesView(), { forced: { customer: '7' } }).code).toBe('WEIR_MODEL_QUERY_FORCED')
    expect(refusal({}, salesView(), { forced: { shop: 'x' } }).code).toBe('WEIR_MODEL_QUERY_VALUE')
  })
})
