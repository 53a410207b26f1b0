/** Questions of a world: each answer equals the reference over the records below its upper, or there is a loud refusal. */
import type { Random } from '../../cli/random.ts'
import { openHistory, openLake } from '../../lake/lake.ts'
import type { Query } from '../../model/query/query.ts'
import { resolveQuery } from '../../model/query/resolve.ts'
import { encodeToken } from '../../model/token.ts'
import type { View } from '../../model/view.ts'
import type { Serving } from '../../serving-layer/serving.ts'
import { canonicalRows } from './expected.ts'
import { randomQuery, wholeQuery } from './queries.ts'
import { absorb, Difference, tolerated, type World } from './state.ts'

/** One answer against the reference; a retryable refusal is none. Returns its upper. */
export const compare = async (
  w: World,
  view: View,
  query: Query,
  wanted?: { partition: number; offset: number },
): Promise<Record<string, string> | null> => {
  const { expected, settings, lastUpper } = w
  const { dataset } = w.project
  const at = w.clock.now
  let answer: Awaited<ReturnType<Serving['query']>>
  try {
    answer = await w.answering.serving.query(query)
  } catch (error) {
    if (!tolerated(w, error)) throw error
    w.trace?.(`    refused: ${String(error)}`)
    return null
  }
  await absorb(w)
  w.stats.answers++
  const { upper } = answer.asOf
  if (wanted && Number(upper[wanted.partition] ?? 0) < wanted.offset)
    throw new Difference(`a token for offset ${wanted.offset} was met by an answer at ${JSON.stringify(upper)}`)
  for (const [p, offset] of Object.entries(upper)) {
    if (Number(offset) < (lastUpper[p] ?? 0))
      throw new Difference(`the upper went back: ${offset} after ${lastUpper[p]}`)
    lastUpper[p] = Number(offset)
    if (Number(offset) > expected.end(Number(p))) throw new Difference(`upper ${offset} of ${p} is beyond the log`)
  }
  const limits = { defaultLimit: settings.query.defaultLimit, maxLimit: settings.query.maxLimit }
  const resolved = resolveQuery(query, view, dataset, { nowMs: at, limits })
  const reference = await expected.rows(view, resolved, upper)
  const got = canonicalRows(answer.columns, answer.rows)
  const rows = answer.truncated ? reference.rows.slice(0, got.length) : reference.rows
  if (got.length !== rows.length || got.some((row, i) => row !== rows[i])) {
    const missing = rows.filter((row) => !got.includes(row)).slice(0, 5)
    const extra = got.filter((row) => !rows.includes(row)).slice(0, 5)
    throw new Difference(
      `answer differs for ${JSON.stringify(query)}\n  view: ${view.sql}\n  asOf: ${JSON.stringify(answer.asOf)}\n  expected ${rows.length} rows, got ${got.length}\n  missing: ${missing.join('\n           ')}\n  extra:   ${extra.join('\n           ')}\n  reference: ${reference.sql}`,
    )
  }
  return upper
}

export const checkOnce = async (w: World, r: Random): Promise<void> => {
  await w.answering.versions.refresh()
  const view = w.answering.versions.active(r.pick(w.project.views).name)
  if (view === null) return
  const query = r.chance(0.5) ? wholeQuery(view) : randomQuery(r, view, w.clock.now)
  if (!r.chance(0.25)) return void (await compare(w, view, query))
  // Read your own writes: a token for some record of the log.
  const partition = r.pick(w.partitions)
  const { dataset } = w.project
  const position = await w.base.log.positionAt(dataset.name, partition, r.int(0, w.expected.end(partition) + 1))
  if (position === null) return
  const { logId, offset, fingerprint } = position
  const atLeast = encodeToken({ dataset: dataset.name, logId, positions: { [partition]: { offset, fingerprint } } })
  await compare(w, view, { ...query, atLeast, waitMs: 0 }, { partition, offset })
}

/** Answers, and the counters of both layers at their own positions. */
export const check = async (w: World, r: Random, asks = 1): Promise<void> => {
  if (r.chance(asks)) await checkOnce(w, r)
  const { base, lab } = w
  const { dataset } = w.project
  const history = openHistory(openLake({ store: base.objects, engine: lab.engine, now: () => w.clock.now }), [dataset])
  for (const partition of w.partitions) {
    const header = await base.speed.header({ dataset: dataset.name, partition })
    if (header !== null) checkCounts(w, 'speed', partition, header.position.offset, header)
    const archived = await history.archived(dataset.name, partition)
    if (archived !== null) checkCounts(w, 'lake', partition, archived.position.offset, archived)
  }
}
const checkCounts = (
  w: World,
  side: string,
  partition: number,
  offset: number,
  got: { counted: number; duplicate: number; dead: number },
): void => {
  const want = w.expected.counts(partition, offset)
  if (got.counted !== want.counted || got.duplicate !== want.duplicate || got.dead !== want.dead)
    throw new Difference(
      `${side} counters of partition ${partition} at ${offset}: ${JSON.stringify({ counted: got.counted, duplicate: got.duplicate, dead: got.dead })}, expected ${JSON.stringify(want)}`,
    )
}

/**
 * Asks for all of each view; those that answer, or would if another view had not shown more already: without speed state each view
 * is where its own generation is.
 */
export const serves = async (w: World): Promise<string[]> => {
  const out: string[] = []
  await w.answering.versions.refresh()
  for (const { name } of w.project.views) {
    const view = w.answering.versions.active(name)
    if (view === null) continue
    const answered = (await compare(w, view, wholeQuery(view))) !== null
    if (answered || w.refusedAs === 'WEIR_SERVING_BEHIND') out.push(name)
  }
  return out
}
