/**
 * The demo: all roles in one process over the shop example, events at a steady rate, one short line a second.
 * Invariant: it uses the product as anybody would: events and questions go through HTTP.
 */

import { setTimeout as wait } from 'node:timers/promises'
import { formatError } from '../model/errors.ts'
import type { Answer } from '../model/query/query.ts'
import { openClient } from './client.ts'
import { sendSteadily } from './demo-load.ts'
import { note, out } from './output.ts'
import { batchShare } from './revenue-split.ts'
import type { Weir } from './wire.ts'

const VIEW = 'revenue_by_country'
const HOUR_MS = 3_600_000

const money = (value: number): string => value.toFixed(2)

/** Events that the log has taken in since its beginning, over all starts. */
const eventsIn = async ({ ports, project }: Weir): Promise<number> => {
  const partitions = await Promise.all(
    project.datasets.map(async ({ name }) => (await ports.log.partitions(name)).map((p) => ports.log.range(name, p))),
  )
  const ranges = await Promise.all(partitions.flat())
  return ranges.reduce((sum, { events = 0 }) => sum + events, 0)
}

/** The line of this second; null while there is no answer yet. */
export const demoLine = async (weir: Weir, client: ReturnType<typeof openClient>): Promise<string | null> => {
  const from = new Date(Math.floor(Date.now() / HOUR_MS) * HOUR_MS).toISOString()
  const to = new Date(Date.parse(from) + HOUR_MS).toISOString()
  const answer = await client.json<Answer>('POST', '/v1/query', {
    view: VIEW,
    measures: ['revenue'],
    dimensions: [],
    grain: 'all',
    timeRange: { from, to },
  })
  const view = weir.ports.versions.active(VIEW)
  if (!view) return null
  const revenue = Number(answer.rows[0]?.revenue ?? 0)
  const batch = await batchShare(weir.ports, view, 'revenue', answer, from)
  const split = batch === null ? '' : ` = ${money(batch)} batch + ${money(revenue - batch)} speed`
  const drift = weir.project.views.reduce((sum, v) => sum + (weir.drift.of(v.name) ?? 0), 0)
  return `${await eventsIn(weir)} events in · revenue this hour ${money(revenue)}${split} · lag ${Math.round(answer.timing?.lagMs ?? 0)} ms · drift ${drift} · ${weir.url}`
}

/** Runs until the signal; every second one line. */
export const runDemo = async (weir: Weir, rate: number, signal: AbortSignal): Promise<void> => {
  const client = openClient({ url: weir.url, retries: 3 })
  let complained = ''
  const complain = (error: unknown): void => {
    const text = formatError(error)
    if (text !== complained) note(text)
    complained = text
  }
  const load = sendSteadily(client, weir.project.datasets, rate, complain)
  try {
    for (let second = 1, began = performance.now(); !signal.aborted; second++) {
      const restMs = Math.max(0, began + second * 1_000 - performance.now())
      await wait(restMs, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) break
      try {
        const line = await demoLine(weir, client)
        if (line !== null) out(line)
      } catch (error) {
        complain(error)
      }
      for (const alarm of weir.alarms.list()) complain(new Error(`${alarm.source}: ${alarm.message} [${alarm.code}]`))
    }
  } finally {
    await load.stop()
  }
}
