/** P14: a recompute takes the calendar's last day, too (eventTimeRange may reach to the end of 9999). */
import { expect, it } from 'vitest'
import { adoptViews } from '../../batch-layer/adopt.ts'
import { extend } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { byHour, dataset, openWorld } from './support.ts'

it('9999-12-31', async () => {
  dataset.eventTimeRangeUs.to = BigInt(Date.UTC(10_000, 0, 1)) * 1_000n
  const w = await openWorld({ views: [byHour] })
  try {
    await adoptViews(w.ctx, w.views)
    const bytes = Buffer.from('{"id":"a","ts":"9999-12-31T23:30:00Z"}\n{"id":"b","ts":"1970-01-01T00:00:00Z"}\n')
    await w.log.append('orders', 0, [{ recordId: 'ab'.repeat(16), bytes, events: 2 }])
    await w.speedUp()
    await extend(w.ctx, byHour)
    expect((await w.published(byHour)).files.map((f) => f.part)).toEqual(['1970-01-01', '9999-12-31'])
    expect(await recompute(w.ctx, byHour)).toMatchObject({ outcome: 'published', differing: 0, cells: 2 })
  } finally {
    await w.close()
  }
})
