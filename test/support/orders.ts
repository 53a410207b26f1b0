/** Orders for the tests of the speed and the batch layer: one shape, odd events, and verdicts by the rule of DESIGN §7, written plainly. */
import type { Dataset } from '../../model/dataset.ts'
import type { NewRecord } from '../../model/ports/event-log.ts'
import type { View } from '../../model/view.ts'

const HOUR = 3_600_000

export const orders = (parts: Pick<Dataset, 'partitions'> & { dedupeWindowMs: number }): Dataset => ({
  name: 'orders',
  columns: [
    { name: 'id', type: 'VARCHAR', required: true },
    { name: 'ts', type: 'TIMESTAMPTZ', required: true },
    { name: 'country', type: 'VARCHAR', required: false },
    { name: 'amount', type: 'DECIMAL(18,2)', required: false },
    { name: 'n', type: 'BIGINT', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'id',
  extra: 'keep',
  ...parts,
})

export const viewOf = <T extends Partial<View> & { name: string; version: string }>(parts: T): View & T => ({
  dataset: 'orders',
  sql: `SELECT '${parts.name} ${parts.version}'`,
  bucket: null,
  dimensions: [],
  states: [],
  measures: [],
  where: null,
  columns: ['id', 'ts', 'country', 'amount', 'n'],
  needsPosition: false,
  needsAppendTime: false,
  ...parts,
})

/** `@` in `merge` is the state itself. */
export const stateOf = (i: number, type: string, partial: string, merge: string, heavy = false) => ({
  name: `_s${i}`,
  type,
  partial,
  merge: merge.replaceAll('@', `_s${i}`),
  heavy,
})

export type Rng = () => number
export const rng = (seed: number): Rng => {
  let s = seed >>> 0
  return () => {
    s = (s + 0x6d2b79f5) >>> 0
    let t = Math.imul(s ^ (s >>> 15), 1 | s)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
export const below = (random: Rng, n: number): number => Math.floor(random() * n)

export type OrderEvent = { dead: boolean; line: string; json: Record<string, unknown> }
/** A record as the reference knows it: what was appended, with its effective time and verdicts. */
export type Known = {
  record: NewRecord
  partition: number
  offset: number
  events: OrderEvent[]
  effectiveMs: number
  verdicts: ('counted' | 'duplicate' | 'dead')[]
}

const COUNTRIES = ['DE', 'de', 'FR', '東京', null, '']

/** `ids`: how many different ones; `lateMs`: how late at most; `earlyMs`: how far in the future the few future ones are. */
export const randomOrder = (
  random: Rng,
  now: number,
  { ids, lateMs, earlyMs }: { ids: number; lateMs: number; earlyMs: number },
): OrderEvent => {
  const kind = random()
  if (kind < 0.02) return { dead: true, line: '{"id": 1, "ts"', json: {} }
  if (kind < 0.04) return { dead: true, line: '{"id":"x","ts":"never"}', json: {} }
  const json: Record<string, unknown> = {
    id: `e${below(random, ids)}`,
    ts: new Date(now - below(random, lateMs) + (random() < 0.02 ? earlyMs : 0)).toISOString(),
    amount: below(random, 2_000) / 100,
  }
  const country = COUNTRIES[below(random, COUNTRIES.length)]
  if (country !== null) json.country = country
  if (random() < 0.7) json.n = below(random, 1_000)
  if (random() < 0.1) json.colour = '東'
  return { dead: false, line: JSON.stringify(json), json }
}

/** Sets the verdicts of all that is known, in the order in which it was appended. */
export const judge = (known: Known[], windowMs: number): void => {
  const events = new Map<string, number>()
  const records = new Map<string, number>()
  for (const k of known) {
    const recordKey = `${k.partition}/${k.record.recordId}`
    const lastRecord = records.get(recordKey)
    const repeated = lastRecord !== undefined && k.effectiveMs - lastRecord < HOUR
    k.verdicts = k.events.map((e) => {
      if (e.dead) return 'dead'
      records.set(recordKey, k.effectiveMs)
      const id = `${k.partition}/${e.json.id as string}`
      const last = events.get(id)
      events.set(id, k.effectiveMs)
      return repeated || (last !== undefined && k.effectiveMs - last < windowMs) ? 'duplicate' : 'counted'
    })
  }
}
