/**
 * `atLeast`: read your own writes. Invariant (rule 19): a token is met iff, in this order, the token's fingerprint is the
 * log's at its offset, the upper's offset is not before the token's, and the upper's own fingerprint is the log's.
 */
import type { EventLog } from '../model/ports/event-log.ts'
import type { History } from '../model/ports/history.ts'
import type { Position } from '../model/position.ts'
import { badQuery } from '../model/query/errors.ts'
import { decodeToken, type Token } from '../model/token.ts'
import type { View } from '../model/view.ts'
import { misfit, tokenGone } from './errors.ts'
import type { Plan } from './plan.ts'

type Positions = { log: EventLog; history: History }

/** Throws WEIR_MODEL_BAD_TOKEN, or a query error for another dataset's token. */
export const readToken = (text: string, view: View): Token => {
  const token = decodeToken(text)
  if (token.dataset === view.dataset) return token
  throw badQuery('VALUE', 'The token speaks of another dataset.', {
    expected: `a token of an ingest answer of ${view.dataset}`,
    got: token.dataset.slice(0, 80),
  })
}

/** Fingerprint before an offset: the log's own; below the log's start the lake keeps it. */
const fingerprintAt = async (
  { log, history }: Positions,
  dataset: string,
  partition: number,
  offset: number,
): Promise<string | null> => {
  const own = await log.positionAt(dataset, partition, offset)
  if (own !== null) return own.fingerprint
  const range = await log.range(dataset, partition)
  if (offset >= range.startOffset) return null
  const archived = await history.positionAt(dataset, partition, offset)
  return archived?.logId === range.logId ? archived.fingerprint : null
}

/** Throws WEIR_SERVING_TOKEN_GONE unless the log still is the one that the token was given for. */
export const checkToken = async (ctx: Positions, token: Token): Promise<void> => {
  const known = new Set(await ctx.log.partitions(token.dataset))
  for (const [name, at] of Object.entries(token.positions)) {
    const partition = Number(name)
    if (!known.has(partition)) throw tokenGone(`a token for partition ${name}`)
    const { logId } = await ctx.log.range(token.dataset, partition)
    if (logId !== token.logId) throw tokenGone(`a token of log ${token.logId}, the log is ${logId}`)
    const fingerprint = await fingerprintAt(ctx, token.dataset, partition, at.offset)
    if (fingerprint !== at.fingerprint) throw tokenGone(`partition ${name}: another record before ${at.offset}`)
  }
}

export const isReached = (token: Token, upper: (partition: number) => Position | undefined): boolean =>
  Object.entries(token.positions).every(([name, at]) => (upper(Number(name))?.offset ?? 0) >= at.offset)

/** Throws a misfit when the speed state is of a history that the log no longer has. */
export const checkUpper = async (ctx: Positions, dataset: string, plan: Plan): Promise<void> => {
  for (const { partition, upper } of plan.partitions) {
    const fingerprint = await fingerprintAt(ctx, dataset, partition, upper.offset)
    if (fingerprint !== upper.fingerprint)
      throw misfit('OTHER_LOG', plan.view, `partition ${partition}: the log has another record before ${upper.offset}`)
  }
}
