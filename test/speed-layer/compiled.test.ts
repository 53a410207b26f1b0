/** Views as the compiler makes them, with every kind of state: stored cells equal the partials of the reference, through restarts and cuts. */
import { expect, it } from 'vitest'
import { sqlTools } from '../../engine/sql-tools.ts'
import { compileView } from '../../model/compile/compile.ts'
import { below, rng } from '../support/orders.ts'
import { dataset, differences, openWorld, settle } from './support.ts'

const MINUTE = `time_bucket(INTERVAL '1 minute', ts) AS minute`
const SQL = {
  light: `SELECT ${MINUTE}, country, count(*) AS c, count(n) AS cn, sum(amount) AS s, avg(n) AS a, min(n) AS lo,
    max(amount) AS hi, bool_or(n > 500) AS any_big, sum(n) FILTER (WHERE country = 'DE') AS de FROM orders GROUP BY ALL`,
  filtered: `SELECT ${MINUTE}, count(*) AS c, sum(amount) AS s FROM orders WHERE n > 300 GROUP BY ALL`,
  everything: `SELECT count(*) AS c, sum(amount) / count(*) AS per FROM orders`,
  positions: `SELECT country, first(n) AS f, last(n) AS l, last(country) AS lc FROM orders GROUP BY ALL`,
  sketches: `SELECT ${MINUTE}, approx_count_distinct(id) AS buyers, approx_quantile(amount, 0.9) AS p90, count(*) AS c
    FROM orders GROUP BY ALL`,
  many: `SELECT approx_count_distinct(id) AS buyers, approx_quantile(n, 0.5) AS p50 FROM orders`,
  spread: `SELECT country, var_samp(amount) AS v, stddev_samp(amount) AS sd, date_trunc('hour', ts) AS hour FROM orders GROUP BY ALL`,
}

it('keeps the states of compiled views', async () => {
  const world = await openWorld()
  try {
    const tools = sqlTools(world.engine)
    const small = {
      ...dataset,
      columns: dataset.columns.map((c) => (c.name === 'amount' ? { ...c, type: 'DECIMAL(12,2)' } : c)),
    }
    world.fed = await Promise.all(
      Object.entries(SQL).map(([name, sql]) => compileView({ name, sql, dataset: small }, tools)),
    )
    const random = rng(21)
    let worker = await world.worker({ dataset: small })
    for (let round = 0; round < 6; round++) {
      await world.append(random, 1 + below(random, 40))
      await settle(world, worker)
      for (const view of world.fed.slice(round % 3))
        await world.store.cut({ dataset: 'orders', partition: 0 }, view.version, 0)
      if (round % 2 === 0) {
        await worker.close()
        worker = await world.worker({ dataset: small })
      }
    }
    expect(await differences(world)).toEqual([])
    await worker.close()
  } finally {
    await world.close()
  }
})
