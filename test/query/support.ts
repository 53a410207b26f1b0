/** A view by hand (what the compiler would make of it), and events for it. */
import type { Engine, Session } from '../../engine/engine.ts'
import { partialSql } from '../../model/cells.ts'
import type { Dataset } from '../../model/dataset.ts'
import { answerSql } from '../../model/query/answer-sql.ts'
import { jsonRows } from '../../model/query/json.ts'
import type { Query, ResolvedQuery, Scalar } from '../../model/query/query.ts'
import { type ResolveOptions, resolveQuery } from '../../model/query/resolve.ts'
import type { Grain, View } from '../../model/view.ts'

export const LIMITS = { defaultLimit: 1_000, maxLimit: 100_000 }
/** 2026-11-24T10:20:30Z */
export const NOW = Date.UTC(2026, 10, 24, 10, 20, 30)

export const sales: Dataset = {
  name: 'sales',
  columns: [
    { name: 'id', type: 'VARCHAR', required: true },
    { name: 'ts', type: 'TIMESTAMPTZ', required: true },
    { name: 'country', type: 'VARCHAR', required: false },
    { name: 'shop', type: 'BIGINT', required: false },
    { name: 'paid', type: 'BOOLEAN', required: false },
    { name: 'amount', type: 'DECIMAL(18,2)', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'id',
  extra: 'keep',
  partitions: 1,
}

export const MINUTE: Grain = { interval: '00:01:00', us: 60_000_000n, months: null }
export const HOUR: Grain = { interval: '01:00:00', us: 3_600_000_000n, months: null }
export const DAY: Grain = { interval: '1 day', us: 86_400_000_000n, months: null }
export const WEEK: Grain = { interval: '7 days', us: 604_800_000_000n, months: null }
export const MONTH: Grain = { interval: '1 month', us: null, months: 1 }

export const salesView = (grain: Grain | null = HOUR): View => ({
  name: 'takings',
  dataset: 'sales',
  version: '00112233aabbccdd',
  sql: 'SELECT …',
  bucket:
    grain === null
      ? null
      : {
          name: 'at',
          grain,
          sql: `time_bucket(${grain.us === null ? `to_months(${grain.months})` : `to_microseconds(${grain.us})`}, ts)`,
        },
  dimensions: [
    { name: 'country', type: 'VARCHAR', sql: 'country' },
    { name: 'shop', type: 'BIGINT', sql: 'shop' },
    { name: 'paid', type: 'BOOLEAN', sql: 'paid' },
  ],
  states: [
    { name: '_s0', type: 'BIGINT', partial: 'count(*)', merge: 'coalesce(sum(_s0), 0)', heavy: false },
    { name: '_s1', type: 'DECIMAL(38,2)', partial: 'sum(amount)', merge: 'sum(_s1)', heavy: false },
    { name: '_s2', type: 'BIGINT', partial: 'count(amount)', merge: 'coalesce(sum(_s2), 0)', heavy: false },
    { name: '_s3', type: 'DECIMAL(18,2)', partial: 'max(amount)', merge: 'max(_s3)', heavy: false },
  ],
  measures: [
    { name: 'sold', type: 'COUNT', approximate: false, states: ['_s0'], present: '_s0', reference: 'count(*)' },
    {
      name: 'total',
      type: 'DECIMAL(38,2)',
      approximate: false,
      states: ['_s1'],
      present: '_s1',
      reference: 'sum(amount)',
    },
    {
      name: 'mean',
      type: 'DOUBLE',
      approximate: false,
      states: ['_s1', '_s2'],
      present: '_s1::DOUBLE / _s2',
      reference: 'sum(amount)::DOUBLE / count(amount)',
    },
    {
      name: 'largest',
      type: 'DECIMAL(18,2)',
      approximate: false,
      states: ['_s3'],
      present: '_s3',
      reference: 'max(amount)',
    },
    {
      name: 'each',
      type: 'DOUBLE',
      approximate: false,
      states: [],
      present: 'total::DOUBLE / nullif(sold, 0)',
      reference: null,
    },
    { name: 'twice', type: 'DOUBLE', approximate: false, states: [], present: 'each * 2', reference: null },
  ],
  where: null,
  columns: ['ts', 'country', 'shop', 'paid', 'amount'],
  needsPosition: false,
  needsAppendTime: false,
})

export const resolve = (
  query: Partial<Query>,
  view = salesView(),
  options: Partial<ResolveOptions> = {},
): ResolvedQuery => resolveQuery({ view: view.name, ...query }, view, sales, { nowMs: NOW, limits: LIMITS, ...options })

export type Event = {
  ts: string
  country?: string | null
  shop?: number | null
  paid?: boolean | null
  amount?: string | null
}

const lit = (v: string | number | boolean | null | undefined): string =>
  v === null || v === undefined ? 'NULL' : typeof v === 'string' ? `'${v.replaceAll("'", "''")}'` : String(v)

/** Creates the table `rows` of decoded events. */
export const loadEvents = async (session: Session, events: Event[], table = 'rows'): Promise<void> => {
  await session.run(
    `CREATE OR REPLACE TEMP TABLE ${table} (ts TIMESTAMPTZ, country VARCHAR, shop BIGINT, paid BOOLEAN, amount DECIMAL(18,2))`,
  )
  if (events.length === 0) return
  const values = events.map((e) => `(${[e.ts, e.country, e.shop, e.paid, e.amount].map(lit).join(', ')})`)
  await session.run(`INSERT INTO ${table} VALUES ${values.join(', ')}`)
}

/** The merged answer's rows over cells that come in two parts (even and odd events). */
export const mergedRows = async (
  engine: Engine,
  view: View,
  query: ResolvedQuery,
  events: Event[],
): Promise<Record<string, Scalar>[]> =>
  engine.withSession(async (session) => {
    await loadEvents(
      session,
      events.filter((_, i) => i % 2 === 0),
      'a',
    )
    await loadEvents(
      session,
      events.filter((_, i) => i % 2 === 1),
      'b',
    )
    const { sql, columns } = answerSql(view, query, `(${partialSql(view, 'a')} UNION ALL ${partialSql(view, 'b')})`)
    return jsonRows(columns, await session.columns(sql))
  })
