/** Answers that are kept, and questions that are turned away. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WeirError } from '../../model/errors.ts'
import type { Query } from '../../model/query/query.ts'
import { fill, type Lab, openLab, refusal, refused } from './support.ts'

const QUERY: Query = { view: 'takings', dimensions: [], grain: 'all', measures: ['sold'] }

let lab: Lab
const open = async (): Promise<void> => {
  lab = await openLab({ seed: 3 })
}
const close = (): Promise<void> => lab.close()

describe('caches', () => {
  beforeAll(async () => {
    await open()
    await fill(lab)
  })
  afterAll(close)
  it('give the same answer under the same key, and another one when anything changes', async () => {
    let reads = 0
    const { speed } = lab
    const serving = lab.openServing({
      replanMs: 30,
      speed: {
        ...speed,
        changelog: async (key, offset) => {
          reads++
          return speed.changelog(key, offset)
        },
      },
    })
    const first = await serving.answer(QUERY)
    const again = await serving.answer(QUERY)
    expect(again.etag).toBe(first.etag)
    expect(again.answer!.rows).toEqual(first.answer!.rows)
    expect((await serving.answer(QUERY, {}, { ifNoneMatch: [first.etag] })).answer).toBeNull()
    expect((await serving.answer(QUERY, { where: { country: 'DE' } })).etag).not.toBe(first.etag)
    await lab.append(3, 0)
    await lab.speedUp()
    const later = await serving.answer(QUERY, {}, { ifNoneMatch: [first.etag] })
    expect(later.answer!.rows).toEqual([{ sold: 83 }])
    expect(reads).toBeGreaterThan(0)
  })

  it('never show one key’s rows to another', async () => {
    const query: Query = { view: 'takings', dimensions: ['country'], grain: 'all', measures: ['sold'] }
    const keys = ['DE', 'FR', '東京', "O'Hara", ''].map((country) => ({ where: { country } }))
    const asked = Array.from({ length: 40 }, (_, i) => keys[i % keys.length]!)
    const answers = await Promise.all(asked.map((caller) => lab.serving.query(query, caller)))
    for (const [i, answer] of answers.entries())
      expect(answer.rows.map((row) => row.country)).toEqual([asked[i]!.where.country])
    const all = await lab.serving.query(query)
    expect(all.rows.length).toBe(6)
    const forced = await refusal(
      lab.serving.query({ ...QUERY, view: 'shops', grain: undefined }, { where: { country: 'DE' } }),
    )
    expect(forced.code).toBe('WEIR_MODEL_QUERY_FORCED')
    const widened = {
      ...query,
      filters: [
        {
          or: [
            { column: 'country', op: 'isNull' as const },
            { column: 'country', op: '!=' as const, value: 'DE' },
          ],
        },
      ],
    }
    expect((await lab.serving.query(widened, { where: { country: 'DE' } })).rows).toEqual([])
  })
})

describe('limits', () => {
  beforeAll(async () => {
    await open()
    await fill(lab)
  })
  afterAll(close)
  it('of places and of the queue', async () => {
    const tight = await openLab({ settings: 'query: { concurrent: 1, cacheBytes: 0 }' })
    try {
      await tight.append(30)
      await tight.speedUp()
      const asked = await Promise.allSettled(Array.from({ length: 30 }, () => tight.serving.query(QUERY)))
      const codes = asked.flatMap((a) => (a.status === 'rejected' ? [(a.reason as WeirError).code] : []))
      expect(new Set(codes)).toEqual(new Set(['WEIR_SERVING_BUSY']))
      expect(asked.filter((a) => a.status === 'fulfilled').length).toBe(9)
      expect((await tight.serving.query(QUERY)).rows).toEqual([{ sold: 30 }])
    } finally {
      await tight.close()
    }
  })
  it('stop a query whose client went away', async () => {
    const gone = new AbortController()
    gone.abort()
    await refusal(lab.serving.query({ ...QUERY, measures: ['total'] }, {}, { signal: gone.signal }))
    expect((await lab.serving.query(QUERY)).rows).toEqual([{ sold: 80 }])
  })
  it('refuse what nobody knows', async () => {
    expect((await refusal(lab.serving.query({ view: 'nothing' }))).code).toBe('WEIR_SERVING_NO_VIEW')
    await lab.serving.close()
    await refused(lab.serving.query(QUERY), 'CLOSED')
  })
})
