/** Fused parts equal each view's own partial SQL, for random sets of views over random rows. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import { cellColumns, partialSql } from '../../model/cells.ts'
import { ident } from '../../model/ident.ts'
import type { View } from '../../model/view.ts'
import { aggregate, fuse } from '../../speed-layer/aggregate.ts'
import { below, type Rng, rng } from '../support/orders.ts'
import { byCountry, ids } from './support.ts'

const DIMENSIONS = [
  { name: 'a', type: 'VARCHAR', sql: '"a"' },
  { name: 'b', type: 'INTEGER', sql: '"b"' },
  { name: 'A b', type: 'VARCHAR', sql: `("a" || '!')` },
  { name: 'again', type: 'VARCHAR', sql: '"a"' },
]
const BUCKETS = ['1 minute', '1 hour'].map((grain) => ({
  name: 'bucket',
  grain: { interval: grain, us: null, months: null },
  sql: `time_bucket(INTERVAL '${grain}', "t")`,
}))
const WHERES = [null, null, '("b" > 2)', `("a" = 'x')`, '(NULL)']
const STATES: [string, string][] = [
  ['BIGINT', 'count(*)'],
  ['DECIMAL(38,2)', 'sum("v")'],
  ['INTEGER', `max("b") FILTER (WHERE "a" = 'x')`],
  ['BIGINT', 'count("a")'],
]

const randomView = (random: Rng, i: number): View => {
  const pick = <T>(list: T[]): T => list[below(random, list.length)]!
  const chosen = STATES.filter(() => random() < 0.6)
  return {
    ...byCountry,
    name: `v${i}`,
    version: String(i).padStart(16, '0'),
    bucket: random() < 0.5 ? pick(BUCKETS) : null,
    dimensions: DIMENSIONS.filter(() => random() < 0.4),
    where: pick(WHERES),
    states: (chosen.length ? chosen : STATES).map(([type, partial], n) => ({
      name: `_s${n}`,
      type,
      partial,
      merge: `${partial.startsWith('max') ? 'max' : 'sum'}(_s${n})`,
      heavy: partial === 'count("a")' && random() < 0.3,
    })),
  }
}

describe('fused partials', () => {
  let engine: Engine
  let session: Session
  beforeAll(async () => {
    engine = await openEngine()
    session = await engine.session()
  })
  afterAll(async () => {
    session.close()
    await engine.close()
  })
  const cells = async (view: View, sql: string): Promise<string[]> => {
    const columns = cellColumns(view).map((c) => ident(c.name))
    const rows = await session.rows<{ t: string }>(
      `SELECT to_json(c)::VARCHAR AS t FROM (SELECT ${columns.join(', ')} FROM (${sql})) c ORDER BY 1`,
    )
    return rows.map((r) => r.t)
  }

  it('are the views of their own', async () => {
    let fusedViews = 0
    for (let seed = 0; seed < 40; seed++) {
      const random = rng(seed)
      const rows = seed % 8 === 0 ? 0 : below(random, 200)
      await session.run(`CREATE OR REPLACE TEMP TABLE decoded AS
        SELECT CASE WHEN h % 4 = 0 THEN NULL WHEN h % 4 = 1 THEN 'x' ELSE 'y' END AS a,
          CASE WHEN h % 7 = 0 THEN NULL ELSE (h // 7 % 5)::INTEGER END AS b,
          make_timestamptz((h // 11 % 300)::BIGINT * 10000000) AS t, (h // 13 % 1000)::DECIMAL(18,2) / 4 AS v
        FROM (SELECT (hash(i + ${seed} * 1000) % 1000003)::BIGINT AS h FROM range(${rows}) r(i))`)
      const views = Array.from({ length: 1 + below(random, 6) }, (_, i) => randomView(random, i))
      fusedViews += fuse(views).fused.reduce((n, f) => n + f.views.length, 0)
      const parts = await aggregate(session, views, 'decoded', 'p')
      expect(parts.map((p) => p.view.name).sort()).toEqual(views.map((v) => v.name).sort())
      for (const { view, sql } of parts)
        expect(await cells(view, sql), `seed ${seed}, ${view.name}`).toEqual(
          await cells(view, partialSql(view, 'decoded')),
        )
    }
    expect(fusedViews).toBeGreaterThan(60)
  })

  it('keep heavy views, and those that speak of their own inner columns, apart', () => {
    const own = { ...byCountry, states: [{ ...byCountry.states[0]!, partial: 'count("_d:country")' }] }
    expect(fuse([ids, own, byCountry])).toEqual({ fused: [], alone: [ids, own, byCountry] })
    expect(fuse([byCountry, { ...byCountry, name: 'again' }, ids]).alone).toEqual([ids])
  })
})
