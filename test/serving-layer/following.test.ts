/** Answers from the copy that is followed in the background: each is exact at its own upper, never goes back, soon is fresh. */
import { afterEach, describe, expect, it } from 'vitest'
import { switchTo } from '../../batch-layer/adopt.ts'
import { backfill } from '../../batch-layer/backfill.ts'
import { sqlTools } from '../../engine/sql-tools.ts'
import { compileView } from '../../model/compile/compile.ts'
import type { Answer, Query } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import type { View } from '../../model/view.ts'
import type { Serving } from '../../serving-layer/serving.ts'
import { referenceRows } from './reference.ts'
import { type Lab, openLab, START, sales, TAKINGS } from './support.ts'

let lab: Lab
afterEach(() => lab.close())

const QUERIES: Query[] = [
  { view: 'takings', dimensions: ['shop'], grain: 'all', measures: ['sold', 'total'] },
  { view: 'takings', dimensions: ['country'], grain: '1 day', timeZone: 'Europe/Berlin', measures: ['sold', 'mean'] },
]
const DEADLINE_MS = 20_000

type Given = { query: Query; answer: Answer }

/** Asks in several loops at once until told to stop; gives every answer in the order of its loop. */
const asking = (serving: Serving, loops: number) => {
  let going = true
  const given: Given[][] = []
  const loop = async (own: Given[], n: number): Promise<void> => {
    while (going) {
      const query = QUERIES[n++ % QUERIES.length]!
      own.push({ query, answer: await serving.query(query) })
    }
  }
  const running = Array.from({ length: loops }, (_, i) => {
    given.push([])
    return loop(given[i]!, i)
  })
  const failed = Promise.all(running)
  failed.catch(() => undefined)
  return {
    /** Waits until one of the answers from now on is as wanted. */
    until: async (what: string, wanted: (answer: Answer) => boolean): Promise<void> => {
      const from = given.map((list) => list.length)
      const deadline = performance.now() + DEADLINE_MS
      while (!given.some((list, i) => list.slice(from[i]).some((g) => wanted(g.answer)))) {
        if (performance.now() > deadline) throw new Error(`no such answer within ${DEADLINE_MS} ms: ${what}`)
        await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 2))])
      }
    },
    stop: async (): Promise<Given[][]> => {
      going = false
      await failed
      return given
    },
  }
}

const checkAll = async (given: Given[][], views: View[]): Promise<number> => {
  const distinct = new Map<string, Given>()
  for (const list of given)
    for (const one of list)
      distinct.set(JSON.stringify([one.query, one.answer.asOf.version, one.answer.asOf.upper, one.answer.rows]), one)
  for (const { query, answer } of distinct.values()) {
    const view = views.find((v) => v.version === answer.asOf.version)!
    const resolved = resolveQuery(query, view, sales, { nowMs: START, limits: lab.settings.query })
    const expected = await referenceRows(lab, view, resolved, answer.asOf.upper)
    expect(answer.rows, JSON.stringify([query, answer.asOf])).toEqual(expected)
  }
  for (const list of given)
    for (const partition of ['0', '1']) {
      const uppers = list.map(({ answer }) => Number(answer.asOf.upper[partition]))
      expect(uppers.every((upper, i) => i === 0 || upper >= uppers[i - 1]!)).toBe(true)
    }
  return distinct.size
}

const endOf = async (): Promise<Record<string, string>> => ({
  0: String((await lab.log.range('sales', 0)).endOffset),
  1: String((await lab.log.range('sales', 1)).endOffset),
})
const reaches =
  (upper: Record<string, string>) =>
  ({ asOf }: Answer): boolean =>
    Object.entries(upper).every(([p, offset]) => Number(asOf.upper[p]) >= Number(offset))

describe('a followed copy', () => {
  it('gives exact answers while records, publishes and retired epochs come in', async () => {
    lab = await openLab({ seed: 11, settings: 'query: { cacheBytes: 0 }' })
    let looks = 0
    let asked = 0
    const { speed } = lab
    const header: typeof speed.header = (key) => {
      looks++
      return speed.header(key)
    }
    const serving = lab.openServing({ staleMs: 40, replanMs: 2_000, speed: { ...speed, header } })
    await lab.append(40)
    await lab.speedUp()
    const loops = asking(serving, 3)
    for (let round = 0; round < 4; round++) {
      await lab.append(20)
      await lab.speedUp()
      if (round === 1) await lab.extend()
      if (round === 2) await lab.retire()
      await loops.until(`round ${round} is seen`, reaches(await endOf()))
    }
    const given = await loops.stop()
    asked = given.reduce((sum, list) => sum + list.length, 0)
    expect(await checkAll(given, [await lab.view('takings')])).toBeGreaterThan(4)
    // Most answers did not look: two partitions, and a look of the query and one of the reader each, would be four.
    expect(looks).toBeLessThan(asked * 3)
  })

  it('looks itself for a token and for an audit', async () => {
    lab = await openLab({ seed: 12 })
    const serving = lab.openServing({ staleMs: 3_600_000 })
    await lab.append(10)
    await lab.speedUp()
    const query: Query = { view: 'takings', dimensions: [], grain: 'all', measures: ['sold'] }
    await serving.query(query)
    const shops: Query = { view: 'shops', dimensions: [], measures: ['sold'] }
    expect((await serving.query(shops)).rows).toEqual([{ sold: 10 }])
    const token = await lab.append(7)
    await lab.speedUp()
    // Within its hour the copy may answer; nobody has looked since.
    expect((await serving.query(query)).rows).toEqual([{ sold: 10 }])
    expect((await serving.query({ ...query, atLeast: token })).rows).toEqual([{ sold: 17 }])
    // What one view has shown, no other takes back.
    expect((await serving.query(query)).rows).toEqual([{ sold: 17 }])
    expect((await serving.query(shops)).rows).toEqual([{ sold: 17 }])
    await lab.append(3)
    await lab.speedUp()
    const whole = await serving.everything('takings')
    expect(whole.answer!.rows.reduce((sum, row) => sum + Number(row.sold), 0)).toBe(20)
  })

  it('answers for the version that it names while versions are switched to and fro', async () => {
    lab = await openLab({ seed: 13, settings: 'query: { cacheBytes: 0 }' })
    const serving = lab.openServing({ staleMs: 40, replanMs: 5_000 })
    const old = await lab.view('takings')
    const sql = TAKINGS.replace('FROM sales', 'FROM sales WHERE paid')
    const changed = await compileView({ name: 'takings', sql, dataset: sales }, sqlTools(lab.engine))
    await lab.append(40)
    await lab.speedUp()
    await lab.extend()
    const loops = asking(serving, 3)
    const more = async (): Promise<void> => {
      await lab.append(10)
      await lab.speedUp()
    }
    for (let tries = 0; (await backfill(lab.ctx, changed, { waitMs: 0 })).switched !== 'activated'; tries++) {
      if (tries > 20) throw new Error('the changed view is not switched to')
      await more()
    }
    await loops.until('the changed version answers', (a) => a.asOf.version === changed.version)
    for (const view of [old, changed, old]) {
      await more()
      expect(await switchTo(lab.ctx, view)).toBe('activated')
      await loops.until('the version switched to answers', (a) => a.asOf.version === view.version)
    }
    expect(await checkAll(await loops.stop(), [old, changed])).toBeGreaterThan(4)
  })
})
