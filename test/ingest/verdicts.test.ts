/** Verdicts with and without a table are the same: the door keeps no rows where it needs none. */
import { afterEach, expect, test } from 'vitest'
import { decodeBatch } from '../../engine/decode.ts'
import { badEvent, seeded } from './bad-input.ts'
import { cleanUp, event, openWorld, orders } from './support.ts'

afterEach(cleanUp)

test('the same dead events, with the same reasons', async () => {
  const world = await openWorld()
  for (const dataset of [orders(), orders({ extra: 'reject' })]) {
    const columns = dataset.columns.map((c) => c.name)
    for (let seed = 1; seed <= 12; seed++) {
      const r = seeded(seed)
      const records = Array.from({ length: r.int(1, 6) }, (_, k) => {
        const events = Array.from({ length: r.int(1, 30) }, (_, i) =>
          r.chance(0.3 + seed / 20) ? Buffer.from(event(`${k}-${i}`)) : badEvent(r, `${k}-${i}`, columns),
        ).map(
          (e) =>
            e
              .toString('latin1')
              .replace(/[\r\n]/g, ' ')
              .trim() || 'x',
        )
        return { bytes: Buffer.from(`${events.join('\n')}\n`, 'latin1'), events: events.length }
      })
      const found = await world.engine.withSession(async (session) => [
        await decodeBatch(world.engine, session, dataset, records, { table: 't' }),
        await decodeBatch(world.engine, session, dataset, records, {}),
      ])
      expect(found[1], `seed ${seed}`).toEqual(found[0])
      expect(found[0]!.dead.length).toBeGreaterThan(0)
    }
  }
})
