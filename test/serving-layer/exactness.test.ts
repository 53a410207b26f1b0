/** Merged answers equal the reference, wherever the cut lies. */
import { afterEach, describe, expect, it } from 'vitest'
import { random } from '../../cli/random.ts'
import type { Query } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import type { Serving } from '../../serving-layer/serving.ts'
import { takingsQuery } from './queries.ts'
import { referenceRows } from './reference.ts'
import { type Lab, openLab, START, sales } from './support.ts'

const QUERIES = Number(process.env.WEIR_SERVING_QUERIES ?? 16)

let lab: Lab
afterEach(() => lab.close())

const compare = async (query: Query, serving: Serving = lab.serving): Promise<void> => {
  const answer = await serving.query(query)
  const view = await lab.view(query.view)
  const resolved = resolveQuery(query, view, sales, { nowMs: START, limits: lab.settings.query })
  const expected = await referenceRows(lab, view, resolved, answer.asOf.upper)
  expect(answer.rows, JSON.stringify(query)).toEqual(expected)
}

describe('merged answers', () => {
  it('equal the reference before and after each publish, with retired epochs and late events', async () => {
    lab = await openLab({ seed: 5 })
    const r = random(9)
    for (let round = 0; round < 3; round++) {
      await lab.append(60)
      await lab.speedUp()
      if (round > 0) {
        await lab.extend('takings')
        if (round === 1) await lab.extend('shops')
        if (round > 0) await lab.retire('takings')
        await lab.append(30)
        await lab.speedUp()
      }
      await compare({ view: 'shops' })
      await compare({ view: 'takings', limit: 100_000 })
      for (let i = 0; i < QUERIES / 4; i++) await compare(takingsQuery(r))
    }
    // A process that comes later, without memory for parts, says the same.
    const poor = lab.openServing({ batchBytes: 0 })
    for (let i = 0; i < QUERIES / 4; i++) await compare(takingsQuery(r), poor)
    const narrow = lab.openServing({ batchBytes: 40_000 })
    for (let i = 0; i < QUERIES / 4; i++) await compare(takingsQuery(r), narrow)
  })

  it('do not depend on the cut', async () => {
    lab = await openLab({ seed: 6, settings: 'query: { cacheBytes: 0 }' })
    await lab.append(80)
    await lab.speedUp()
    const r = random(4)
    const queries = Array.from({ length: 12 }, () => takingsQuery(r))
    const before = []
    for (const query of queries) before.push((await lab.serving.query(query)).rows)
    await lab.extend()
    for (const [i, query] of queries.entries()) {
      const answer = await lab.serving.query(query)
      expect(answer.asOf.generation).toBe('1')
      expect(answer.rows, JSON.stringify(query)).toEqual(before[i])
    }
  })

  it('follow the changelog while records come in', async () => {
    lab = await openLab({ seed: 7 })
    for (let round = 0; round < 4; round++) {
      await lab.append(25)
      await lab.speedUp()
      if (round === 2) await lab.extend()
      await compare({ view: 'takings', dimensions: ['country'], grain: '1 day' })
    }
  })

  it('have exactly one row without dimensions and buckets, also of nothing', async () => {
    lab = await openLab()
    const query: Query = {
      view: 'takings',
      dimensions: [],
      grain: 'all',
      measures: ['sold', 'total', 'buyers', 'each'],
    }
    expect((await lab.serving.query(query)).rows).toEqual([{ sold: 0, total: null, buyers: 0, each: null }])
    await lab.append(20)
    await lab.speedUp()
    const none = { ...query, filters: [{ column: 'country', op: '=' as const, value: 'nowhere' }] }
    expect((await lab.serving.query(none)).rows).toEqual([{ sold: 0, total: null, buyers: 0, each: null }])
    await compare(query)
    await compare({ ...none, compareTo: 'previous', timeRange: { last: '1 day' } })
  })

  it('see one snapshot each while many are asked at once', async () => {
    lab = await openLab({ seed: 8, settings: 'query: { cacheBytes: 0 }' })
    await lab.append(50)
    await lab.speedUp()
    const query: Query = { view: 'takings', dimensions: ['shop'], grain: 'all', limit: 1000 }
    const asked: Promise<void>[] = []
    for (let i = 0; i < 4; i++) {
      for (let n = 0; n < 4; n++) asked.push(compare({ ...query, limit: 100 + n }))
      await lab.append(20)
      await lab.speedUp()
      if (i === 2) await lab.extend()
    }
    await Promise.all(asked)
  })

  it('are truncated honestly', async () => {
    lab = await openLab()
    await lab.append(60)
    await lab.speedUp()
    const all = await lab.serving.query({ view: 'takings', dimensions: ['country'], grain: 'all' })
    expect(all.truncated).toBeUndefined()
    const two = await lab.serving.query({ view: 'takings', dimensions: ['country'], grain: 'all', limit: 2 })
    expect(two.truncated).toBe(true)
    expect(two.rows).toEqual(all.rows.slice(0, 2))
    const exact = await lab.serving.query({
      view: 'takings',
      dimensions: ['country'],
      grain: 'all',
      limit: all.rows.length,
    })
    expect(exact.truncated).toBeUndefined()
  })
})
