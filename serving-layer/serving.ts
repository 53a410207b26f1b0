/**
 * The serving layer: answers from both sides. Invariant: what `query` returns equals the reference query over all records
 * below the answer's upper, or nothing is returned but an error.
 */
import type { Answer, Query } from '../model/query/query.ts'
import { type Answered, type Explained, openAnswers } from './answers.ts'
import type { Caller, QueryHow, ServingContext } from './context.ts'
import { openStatus, type ServingStatus } from './status.ts'

export type { Answered, Explained } from './answers.ts'
export type { Caller, QueryHow, ServingContext } from './context.ts'
export type { DatasetStatus, ServingStatus, ViewStatus } from './status.ts'

export type Serving = {
  /** Throws WEIR_MODEL_QUERY_* (the query is wrong), WEIR_SERVING_* (see errors.ts), WEIR_ENGINE_DEADLINE. */
  query(query: Query, caller?: Caller, how?: QueryHow): Promise<Answer>
  /** The same with the ETag and the plan; no answer when `how.ifNoneMatch` still holds. */
  answer(query: Query, caller?: Caller, how?: QueryHow): Promise<Answered>
  /** Every row of a view at its own grain, without a limit: for audits. */
  everything(view: string): Promise<Answered>
  explain(query: Query, caller?: Caller): Promise<Explained>
  status(): Promise<ServingStatus>
  /** What is running, waiting, kept; for metrics. */
  gauges(): { running: number; waiting: number; cacheBytes: number; replans: number }
  context: ServingContext
  close(): Promise<void>
}

export const openServing = (ctx: ServingContext): Serving => {
  const answers = openAnswers(ctx)
  const status = openStatus(ctx, answers.planner)
  return {
    query: async (query, caller = {}, how = {}) => {
      const { answer } = await answers.answer(query, caller, { ...how, ifNoneMatch: [] })
      return answer!
    },
    answer: (query, caller = {}, how = {}) => answers.answer(query, caller, how),
    everything: (view) => answers.everything(view),
    explain: (query, caller = {}) => answers.explain(query, caller),
    status,
    gauges: () => ({ ...answers.gate.state(), cacheBytes: answers.cache.bytes(), replans: answers.replans() }),
    context: ctx,
    close: () => answers.close(),
  }
}
