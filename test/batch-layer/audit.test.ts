/** Audit: the reference over lake and log, wherever the seam between them lies; and that it sees a wrong answer. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { archiverOf } from '../../batch-layer/archiver.ts'
import { audit, referenceRows, wholeQuery } from '../../batch-layer/audit.ts'
import { countedRows } from '../../batch-layer/counted-rows.ts'
import { partialCells } from '../../batch-layer/extend.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { compileView } from '../../model/compile/compile.ts'
import { type Cut, genesis } from '../../model/position.ts'
import { answerSql } from '../../model/query/answer-sql.ts'
import { jsonRows } from '../../model/query/json.ts'
import type { View } from '../../model/view.ts'
import { rng } from '../support/orders.ts'
import { dataset, openWorld, type World } from './support.ts'

let w: World
let view: View
let upper: Cut
const sql = `SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, country, count(*) AS events, sum(amount) AS revenue,
  sum(amount) FILTER (WHERE n > 500) AS large, min(n) AS low, avg(amount) AS mean, events * 2 AS twice FROM orders GROUP BY ALL`

beforeAll(async () => {
  w = await openWorld({ views: [] })
  view = await compileView({ name: 'audited', sql, dataset }, sqlTools(w.engine))
  await w.append(rng(41), 80)
  upper = {}
  for (const p of [0, 1])
    upper[String(p)] = (await w.log.positionAt('orders', p, (await w.log.range('orders', p)).endOffset))!
})
afterAll(() => w.close())

/** The merged answer over the lake's cells, as serving makes it. */
const answer = (below: Cut) =>
  w.engine.withSession(async (session) => {
    const from = Object.fromEntries(Object.entries(below).map(([p, at]) => [p, genesis(at.logId)]))
    await partialCells(w.ctx, session, view, from, below, 'cells')
    const printed = answerSql(view, wholeQuery(view, w.ctx), 'cells')
    return jsonRows(printed.columns, await session.columns(printed.sql))
  })

const count = async (cut: Cut): Promise<number> =>
  w.engine.withSession((session) => countedRows(w.ctx, session, dataset, cut, 'counted'))
const expected = (cut: Cut): number =>
  Object.entries(cut).reduce((n, [p, at]) => n + w.counts(Number(p), at.offset).counted, 0)

describe('counted rows', () => {
  it('are the same wherever the lake ends', async () => {
    const half: Cut = {}
    for (const p of [0, 1])
      half[String(p)] = (await w.log.positionAt('orders', p, Math.floor(upper[String(p)]!.offset / 2)))!
    const before = await referenceRows(w.ctx, view, upper, wholeQuery(view, w.ctx))
    expect(before.events).toBe(expected(upper))
    for (const upTo of [3, 10, 20, 1_000]) {
      for (const p of [0, 1]) while ((await archiverOf(w.ctx, 'orders').step(p, { upTo })) === 'archived');
      expect(await count(upper)).toBe(expected(upper))
      expect(await count(half)).toBe(expected(half))
      expect(await referenceRows(w.ctx, view, upper, wholeQuery(view, w.ctx))).toEqual(before)
    }
  })

  it('refuse an upper of another history', async () => {
    const forged = { ...upper, '0': { ...upper['0']!, fingerprint: '00000000000000aa' } }
    await expect(count(forged)).rejects.toMatchObject({ code: 'WEIR_BATCH_HISTORY' })
    const beyond = { ...upper, '1': { ...upper['1']!, offset: upper['1']!.offset + 3 } }
    await expect(count(beyond)).rejects.toMatchObject({ code: 'WEIR_BATCH_HISTORY' })
  })
})

describe('audit', () => {
  it('finds nothing in a right answer, and every cell of a wrong one', async () => {
    for (const p of [0, 1]) while ((await archiverOf(w.ctx, 'orders').step(p, { force: true })) === 'archived');
    const rows = await answer(upper)
    expect(rows.length).toBeGreaterThan(20)
    expect(await audit(w.ctx, view, upper, rows)).toMatchObject({ differing: 0, cells: [], rows: rows.length })
    const wrong = rows.map((row, i) => (i === 3 ? { ...row, revenue: '1.00', events: 99 } : row))
    const found = await audit(w.ctx, view, upper, wrong)
    expect(found.differing).toBe(2)
    expect(found.cells.map((c) => c.column).sort()).toEqual(['events', 'revenue'])
    expect(found.cells[0]!.key).toEqual({ hour: rows[3]!.hour, country: rows[3]!.country })
    expect((await audit(w.ctx, view, upper, rows.slice(1))).differing).toBe(6)
    expect((await audit(w.ctx, view, upper, [...rows, rows[0]!])).differing).toBe(1)
    const short = { ...upper, '0': (await w.log.positionAt('orders', 0, upper['0']!.offset - 4))! }
    expect((await audit(w.ctx, view, short, rows)).differing).toBeGreaterThan(0)
    expect((await audit(w.ctx, view, short, await answer(short))).differing).toBe(0)
  })
})

describe('sketches and other compiled measures', () => {
  it('come out of extends and a recompute as the reference has them', async () => {
    const { adoptViews } = await import('../../batch-layer/adopt.ts')
    const { extend } = await import('../../batch-layer/extend.ts')
    const { recompute } = await import('../../batch-layer/recompute.ts')
    const { cellsOf } = await import('../../batch-layer/parts.ts')
    const sketched = await compileView(
      {
        name: 'sketched',
        sql: `SELECT time_bucket(INTERVAL '1 day', ts) AS day, country, approx_count_distinct(id) AS ids, approx_quantile(amount, 0.9) AS p90,
          first(n) AS opening, avg(amount) AS mean, stddev(n::INTEGER) AS spread FROM orders GROUP BY ALL`.replace(
          'n::INTEGER',
          'TRY_CAST(n AS INTEGER)',
        ),
        dataset,
      },
      sqlTools(w.engine),
    )
    w.views = [{ ...sketched, reference: '' }]
    await adoptViews(w.ctx, [sketched])
    const random = rng(42)
    const check = async (): Promise<void> => {
      const pointer = await w.published(sketched)
      const query = wholeQuery(sketched, w.ctx)
      const cells = await cellsOf(w.store, sketched, pointer.files)
      const rows = await w.engine.withSession(async (session) => {
        const printed = answerSql(sketched, query, cells)
        return jsonRows(printed.columns, await session.columns(printed.sql))
      })
      expect(await audit(w.ctx, sketched, pointer.cut, rows)).toMatchObject({ differing: 0, rows: rows.length })
      expect(rows.length).toBeGreaterThan(5)
    }
    for (let round = 0; round < 2; round++) {
      await w.append(random, 30)
      await w.speedUp()
      expect(await extend(w.ctx, sketched)).toMatchObject({
        outcome: 'published',
        verified: { differing: 0, skipped: {} },
      })
      await check()
    }
    expect(await recompute(w.ctx, sketched, { shardBytes: 1, mergeCells: 5 })).toMatchObject({
      outcome: 'published',
      differing: 0,
    })
    await check()
  })
})
