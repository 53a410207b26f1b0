/**
 * Whether stored speed state fits what is published and what the log holds (rule 8).
 * Invariant: the header is read before the pointers, so a version that looks unfit may only be one whose pointer moved in
 * between: whoever acts on it surveys once more.
 */
import type { EventLog } from '../model/ports/event-log.ts'
import type { Publications } from '../model/ports/publications.ts'
import type { Header, SpeedStore, StoreKey } from '../model/ports/speed-store.ts'
import { genesis, type Position, samePosition } from '../model/position.ts'
import type { Versions } from '../model/versions.ts'
import type { View } from '../model/view.ts'

export type Fed = { view: View; cut: Position }
export type Survey = { header: Header | null; fed: Fed[] }

/** Where a position stands in the log's own history. */
export type Standing = 'same' | 'below-start' | 'replaced'

export const standing = async (log: EventLog, key: StoreKey, position: Position): Promise<Standing> => {
  const range = await log.range(key.dataset, key.partition)
  if (range.logId !== position.logId) return 'replaced'
  const own = await log.positionAt(key.dataset, key.partition, position.offset)
  if (own !== null) return samePosition(own, position) ? 'same' : 'replaced'
  return position.offset < range.startOffset ? 'below-start' : 'replaced'
}

/** The header, then the versions that are to be fed with their published cuts in this partition. */
export const survey = async (
  ctx: { log: EventLog; store: SpeedStore; publications: Publications; versions: Versions },
  key: StoreKey,
): Promise<Survey> => {
  const header = await ctx.store.header(key)
  await ctx.versions.refresh()
  const { logId } = await ctx.log.range(key.dataset, key.partition)
  const fed: Fed[] = []
  for (const view of ctx.versions.fed(key.dataset)) {
    const published = await ctx.publications.current(view.name, view.version)
    if (published === 'dropped') continue
    fed.push({ view, cut: published?.pointer.cut[String(key.partition)] ?? genesis(logId) })
  }
  return { header, fed }
}

/** A version is fit iff an epoch starts exactly at its published cut (then the position is not before the cut). */
export const isFit = (header: Header, { view, cut }: Fed): boolean =>
  header.views[view.version]?.epochs.some((epoch) => samePosition(epoch.from, cut)) ?? false

/** Versions in the header that have no place there: no longer fed, or unfit. */
export const misplaced = ({ header, fed }: Survey): string[] =>
  Object.keys(header?.views ?? {}).filter((version) => {
    const own = fed.find((f) => f.view.version === version)
    return own === undefined || !isFit(header!, own)
  })

export const latest = (positions: Position[]): Position | null =>
  positions.reduce<Position | null>((last, p) => (last === null || p.offset > last.offset ? p : last), null)
