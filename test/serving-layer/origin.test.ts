/** A log whose start was gone when the dataset was put on it: what never was the dataset's is no lag, and no record. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { EventLog } from '../../model/ports/event-log.ts'
import { genesis } from '../../model/position.ts'
import { type Lab, openLab, START, TAKINGS } from './support.ts'

/** Records of partition 0 that the hole stands for. */
const ORIGIN = 5

let lab: Lab
beforeAll(async () => {
  lab = await openLab({ seed: 3, views: { takings: TAKINGS } })
  for (let n = 0; n < 9; n++) await lab.append(1, 0)
})
afterAll(() => lab.close())

/** The lab's log as one that begins at the origin: positions up to it have nothing before them. */
const holed = (log: EventLog): EventLog => ({
  ...log,
  range: async (dataset, partition) => {
    const range = await log.range(dataset, partition)
    return partition === 0 ? { ...range, originOffset: ORIGIN } : range
  },
  positionAt: async (dataset, partition, offset) => {
    const at = await log.positionAt(dataset, partition, offset)
    return at !== null && partition === 0 && offset <= ORIGIN ? { ...genesis(at.logId), offset } : at
  },
})

it('counts lag and records from the origin', async () => {
  const { endOffset } = await lab.log.range('sales', 0)
  expect(endOffset).toBeGreaterThan(ORIGIN)
  const serving = lab.openServing({ log: holed(lab.log), now: () => START + 60_000 })
  try {
    const { datasets, views } = await serving.status()
    expect(datasets[0]).toMatchObject({ records: endOffset - ORIGIN })
    expect(datasets[0]!.partitions.map((p) => p.originOffset)).toEqual([ORIGIN, 0])
    // Not since 1970: since the first record that is the dataset's.
    expect(views.map((v) => v.lag)).toEqual([{ records: endOffset - ORIGIN, ms: 60_000 }])
    const answer = await serving.query({ view: 'takings', dimensions: [], grain: 'all' })
    expect(answer.timing).toMatchObject({ lagRecords: endOffset - ORIGIN, lagMs: 60_000 })
  } finally {
    await serving.close()
  }
})
