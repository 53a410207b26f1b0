/** Batches aggregated straight from their bytes equal the same batches decoded into a table, whatever the records hold. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import { cellColumns, partialSql } from '../../model/cells.ts'
import { createSeen } from '../../model/decode/seen.ts'
import { ident } from '../../model/ident.ts'
import type { LogRecord } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import type { View } from '../../model/view.ts'
import { type BatchContext, decode, newHabit, positionAfter } from '../../speed-layer/batch.ts'
import { below, type Rng, rng } from '../support/orders.ts'
import { byCountry, dataset as deduped, first, ids, randomEvent, START, total } from './support.ts'

const { dedupeWindowMs: _, ...dataset } = deduped
const byMinute: View = { ...byCountry, name: 'by_minute', version: '5555555555555555', dimensions: [] }
const LIGHT = [byCountry, total, first, byMinute]
const LONG_WAY = { skip: Number.POSITIVE_INFINITY, failed: 0, times: 0 }

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

const ODD = [
  '{"id":"far","ts":"9999-12-31T00:00:00Z"}',
  '{"id":"before","ts":"0001-01-01T00:00:00Z"}',
  '{"id":"x","ts":"2026-11-24T00:00:00Z","n":"12a"}',
  '{"id":"n","ts":"2026-11-24T00:00:00Z","n":9223372036854775807,"amount":"1.25"}',
  '[]',
  '',
]

/** `clean`: no line that cannot be read, so that the short way is open; `ahead`: events from the future. */
const randomRecords = (random: Rng, from: Position, now: number): LogRecord[] => {
  const clean = random() < 0.7
  const ahead = random() < 0.5
  return Array.from({ length: 1 + below(random, 6) }, (_, i) => {
    const lines = Array.from({ length: random() < 0.3 ? 1 : 1 + below(random, 40) }, () => {
      if (random() < (clean ? 0.03 : 0.1)) return ODD[below(random, ODD.length)]!
      for (;;) {
        const { dead, line, json } = randomEvent(random, ahead ? now + 9_000 : now)
        if (clean && dead) continue
        if (!ahead && !dead && Date.parse(String(json.ts)) > now - 10_000) continue
        return line
      }
    })
    return {
      offset: from.offset + i,
      recordId: below(random, random() < 0.1 ? 4 : 2 ** 30)
        .toString(16)
        .padStart(32, '0'),
      fingerprint: String(i).padStart(16, '0'),
      appendTimeMs: now + i * 2_000 - (random() < 0.1 ? 5_000 : 0),
      events: lines.length,
      bytes: Buffer.from(`${lines.join('\n')}\n`),
    }
  })
}

const cellsOf = async (view: View, sql: string): Promise<string[]> => {
  const columns = cellColumns(view).map((c) => ident(c.name))
  const rows = await session.rows<{ t: string }>(
    `SELECT to_json(c)::VARCHAR AS t FROM (SELECT ${columns.join(', ')} FROM (${sql})) c ORDER BY 1`,
  )
  return rows.map((r) => r.t)
}

it('equals the way through a table', async () => {
  const used = { short: 0, dead: 0, timely: 0, table: 0 }
  for (let seed = 1; seed <= 12; seed++) {
    const random = rng(seed)
    let at = genesis('log')
    const seen = [createSeen(at, { capacity: 10_000 }), createSeen(at, { capacity: 10_000 })]
    const views = LIGHT.filter(() => random() < 0.6)
    if (views.length === 0) views.push(byMinute)
    const base = { engine, session, dataset, partition: 3 }
    for (let batch = 0; batch < 4; batch++) {
      const records = randomRecords(random, at, START + batch * 60_000)
      const ctx: BatchContext = { ...base, habit: { ...newHabit(), times: random() < 0.3 ? 1 : 0 } }
      const short = await decode(ctx, 'short_way', at, records, views, seen[0]!)
      const long = await decode({ ...base, habit: { ...LONG_WAY } }, 'long_way', at, records, views, seen[1]!)
      const { counted, duplicate, dead, watermarkUs } = long
      const label = `seed ${seed}, batch ${batch}`
      expect(short, label).toMatchObject({ counted, duplicate, dead, watermarkUs })
      for (const view of views) {
        const part = short.parts?.find((p) => p.view === view)?.sql ?? partialSql(view, 'short_way')
        expect(await cellsOf(view, part), `${label}, ${view.name}`).toEqual(
          await cellsOf(view, partialSql(view, 'long_way')),
        )
      }
      expect(short.parts === undefined || duplicate === 0, label).toBe(true)
      if (short.parts === undefined) used.table++
      else {
        used.short++
        if (dead > 0) used.dead++
        if (ctx.habit.times > 1) used.timely++
      }
      at = positionAfter(at, records)
      seen[0]!.accept(short.change, at)
      seen[1]!.accept(long.change, at)
      expect(seen[0]!.records, label).toBe(seen[1]!.records)
    }
  }
  for (const [way, times] of Object.entries(used)) expect(times, `${way} of ${JSON.stringify(used)}`).toBeGreaterThan(2)
})

it('is not taken where rows are needed: sketches, ids to remember', async () => {
  const at = genesis('log')
  const records = randomRecords(rng(3), at, START)
  const run = async (of: typeof deduped, views: View[]) =>
    decode(
      { engine, session, dataset: of, partition: 0, habit: newHabit() },
      'long_way',
      at,
      records,
      views,
      createSeen(at, { capacity: 10_000, windowMs: 5_000 }),
    )
  expect((await run(deduped, [byCountry])).parts).toBeUndefined()
  expect((await run(dataset as typeof deduped, [byCountry, ids])).parts).toBeUndefined()
})
