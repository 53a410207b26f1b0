/**
 * The coordinator of a query: resolve → wait for a token → plan → read both sides → merge → answer.
 * Invariant: an answer is made from one plan whose parts fit together, read in one snapshot; whatever does not fit is planned
 * again for a bounded time, and then is an error.
 */
import { createHash } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Header } from '../model/ports/speed-store.ts'
import { offsetsOf } from '../model/position.ts'
import { answerSql, cellsRead } from '../model/query/answer-sql.ts'
import { jsonRows } from '../model/query/json.ts'
import type { Answer, AnswerColumn, AsOf, Query, ResolvedQuery } from '../model/query/query.ts'
import { resolvedText, resolveQuery } from '../model/query/resolve.ts'
import { formatTime } from '../model/query/time.ts'
import type { Token } from '../model/token.ts'
import type { View } from '../model/view.ts'
import { type AnswerCache, type Kept, openAnswerCache } from './answer-cache.ts'
import type { Caller, QueryHow, ServingContext } from './context.ts'
import { closed, isMisfit, misfit, tokenTooEarly, unknownDataset } from './errors.ts'
import { type Gate, openGate } from './gate.ts'
import { cutOf, type Plan, upperOf, watermarkUs } from './plan.ts'
import { openPlanner, type Planner } from './planner.ts'
import { type Opened, openReaders, type Readers } from './readers.ts'
import { openShown } from './shown.ts'
import { checkToken, checkUpper, isReached, readToken } from './tokens.ts'

/** `answer` is null when the client's ETag still holds. */
export type Answered = { etag: string; answer: Answer | null; plan: Plan }
export type Explained = { plan: Plan; query: ResolvedQuery; sql: string; asOf: AsOf }

export type Answers = {
  answer(query: Query, caller: Caller, how: QueryHow): Promise<Answered>
  /** Every cell of a view: all measures by all dimensions and buckets, without a limit. */
  everything(view: string): Promise<Answered>
  explain(query: Query, caller: Caller): Promise<Explained>
  planner: Planner
  gate: Gate
  cache: AnswerCache
  replans(): number
  close(): Promise<void>
}

const QUEUE = 8

/** Key and ETag: all that an answer depends on. */
const keyOf = (query: ResolvedQuery, caller: Caller, plan: Plan): string => {
  const upper = plan.partitions.map((p) => [p.partition, p.upper.logId, p.upper.offset, p.upper.fingerprint])
  const where = Object.entries(caller.where ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha256')
    .update(JSON.stringify([where, resolvedText(query), plan.version, plan.generation, upper]))
    .digest('base64url')
}

export const asOfOf = (plan: Plan): AsOf => {
  const mark = watermarkUs(plan)
  return {
    view: plan.view,
    version: plan.version,
    generation: String(plan.generation),
    logId: plan.partitions[0]?.cut.logId ?? '',
    cut: offsetsOf(cutOf(plan)),
    upper: offsetsOf(upperOf(plan)),
    watermark: mark === null ? null : formatTime(mark),
  }
}

export const openAnswers = (ctx: ServingContext): Answers => {
  const { settings, log } = ctx
  const planner = openPlanner(ctx)
  const shown = openShown(log)
  const cache = openAnswerCache(settings.query.cacheBytes)
  const gate = openGate(settings.query.concurrent, settings.query.concurrent * QUEUE)
  const readers: Readers = openReaders(ctx)
  let isOpen = true
  let replans = 0
  const running = new Set<Promise<unknown>>()

  const datasetOf = (view: View) => {
    const found = ctx.datasets.find((d) => d.name === view.dataset)
    if (found === undefined) throw unknownDataset(view.dataset)
    return found
  }

  type Request = {
    query: Query
    caller: Caller
    how: QueryHow
    nowMs: number
    /** performance.now() at which there is no more time. */
    deadline: number
    unlimited: boolean
  }

  const resolve = (request: Request, view: View): ResolvedQuery => {
    const { query, caller, nowMs } = request
    const resolved = resolveQuery(query, view, datasetOf(view), {
      nowMs,
      limits: settings.query,
      ...(caller.where === undefined ? {} : { forced: caller.where }),
    })
    return request.unlimited ? { ...resolved, limit: null } : resolved
  }

  /** Checks of a plan before anything may be answered from it. */
  const approve = async (view: View, plan: Plan, token: Token | null): Promise<void> => {
    if (token !== null) {
      await checkToken(ctx, token)
      const upper = new Map(plan.partitions.map((p) => [p.partition, p.upper]))
      if (!isReached(token, (p) => upper.get(p)))
        throw misfit('BEHIND', view.name, 'the speed state went back below the token')
    }
    // At the log's very end the comparison costs nothing; behind it, only a token asks for it.
    const atEnd = plan.partitions.every((p) => p.upper.offset === p.logEndOffset)
    if (token !== null || atEnd) await checkUpper(ctx, view.dataset, plan)
    await shown.check(view.dataset, plan)
  }

  const headerOf = (view: View) => (partition: number) => ctx.speed.header({ dataset: view.dataset, partition })

  const lag = async (view: View, plan: Plan, nowMs: number): Promise<{ lagRecords: number; lagMs: number }> => {
    let lagRecords = 0
    let lagMs = 0
    for (const { partition, upper, logEndOffset, logOriginOffset } of plan.partitions) {
      const seen = Math.max(upper.offset, logOriginOffset)
      if (logEndOffset <= seen) continue
      lagRecords += logEndOffset - seen
      const next = await log.positionAt(view.dataset, partition, seen + 1)
      if (next !== null) lagMs = Math.max(lagMs, nowMs - next.effectiveMs)
    }
    return { lagRecords, lagMs: Math.max(0, Math.round(lagMs)) }
  }

  /** `fresh`: after a look at the speed state, even if the copy was compared with it a moment ago. */
  const attempt = async (request: Request, view: View, startedAt: number, fresh: boolean): Promise<Answered> => {
    const query = resolve(request, view)
    const token = request.query.atLeast === undefined ? null : readToken(request.query.atLeast, view)
    const base = await planner.base(view)
    const finish = async (plan: Plan, key: string, kept: Kept, readMs: number): Promise<Answered> => {
      shown.note(view.dataset, plan)
      const totalMs = performance.now() - startedAt
      const ms = (n: number): number => Math.round(n * 1000) / 1000
      const timing = {
        planMs: ms(totalMs - readMs),
        readMs: ms(readMs),
        totalMs: ms(totalMs),
        ...(await lag(view, plan, ctx.now())),
      }
      return { etag: key, answer: { ...kept, timing }, plan }
    }
    /** From memory, or not at all when the client has it already. */
    const known = async (plan: Plan, key: string): Promise<Answered | null> => {
      if (request.how.ifNoneMatch?.includes(key)) {
        shown.note(view.dataset, plan)
        return { etag: key, answer: null, plan }
      }
      const kept = cache.get(key)
      return kept === undefined ? null : finish(plan, key, kept, 0)
    }
    const columns = cellsRead(view, query)
    /** Runs the one statement of what was opened; null when parts were changed meanwhile. */
    const readOpened = async (opened: Opened): Promise<Answered | null> => {
      const readFrom = performance.now()
      try {
        const { plan, snapshot } = opened
        const { sql, columns: out } = answerSql(view, query, opened.source)
        const deadlineMs = Math.max(1, Math.round(request.deadline - performance.now()))
        const { signal } = request.how
        const arrays = await readers.guarded(view, () =>
          snapshot.columns(sql, { deadlineMs, ...(signal === undefined ? {} : { signal }) }),
        )
        if (!opened.held()) return null
        const kept = keptOf(request, query, plan, out, arrays)
        const own = keyOf(query, request.caller, plan)
        cache.set(own, kept)
        return await finish(plan, own, kept, performance.now() - readFrom)
      } finally {
        await opened.end()
      }
    }

    /** Null: not from the copy as it is. */
    const answerHeld = async (): Promise<Answered | null> => {
      let early: Answered | null = null
      try {
        const opened = await readers.readHeld(
          view,
          columns,
          (partition, header) => shown.isReached(view.dataset, partition, header?.position),
          async (held) => {
            const plan = await planner.plan(view, query, base, async (partition) => held.header(partition))
            await approve(view, plan, null)
            early = await known(plan, keyOf(query, request.caller, plan))
            return early === null ? { plan, base } : null
          },
        )
        return early ?? (opened === null ? null : await readOpened(opened))
      } catch (error) {
        // What was published, or went, since the copy was compared: a look at the speed state shows it.
        if (!isMisfit(error)) throw error
        return null
      }
    }
    const held = fresh || token !== null ? null : await answerHeld()
    if (held !== null) return held

    const headers = new Map<number, Header | null>()
    const first = await planner.plan(view, query, base, async (partition) => {
      const header = await headerOf(view)(partition)
      headers.set(partition, header)
      return header
    })
    await approve(view, first, token)
    const early = await known(first, keyOf(query, request.caller, first))
    if (early !== null) return early

    const read = async (transaction: boolean): Promise<Answered> => {
      const opened = await readers.read(view, columns, transaction, async (reader) => {
        let moved = false
        const plan = await planner.plan(view, query, base, async (partition) => {
          const before = headers.get(partition)
          const header = await reader.sync(partition, before)
          moved ||= header !== before
          headers.set(partition, header)
          return header
        })
        if (moved) await approve(view, plan, token)
        return { plan, base }
      })
      // When parts were changed for another query meanwhile: once more, in a transaction of its own.
      return (await readOpened(opened)) ?? read(true)
    }
    return read(false)
  }

  const keptOf = (
    request: Request,
    query: ResolvedQuery,
    plan: Plan,
    columns: AnswerColumn[],
    arrays: unknown[][],
  ): Kept => {
    const rows = jsonRows(columns, arrays)
    const truncated = query.limit !== null && rows.length > query.limit
    if (truncated) rows.length = query.limit!
    const { fromUs, toUs } = query.range
    return {
      columns,
      rows,
      asOf: asOfOf(plan),
      ...(truncated ? { truncated } : {}),
      ...(request.query.timeRange !== undefined && 'last' in request.query.timeRange
        ? { timeRange: { from: formatTime(fromUs!), to: formatTime(toUs!) } }
        : {}),
    }
  }

  /** Plans again while the parts do not fit, for a bounded time. */
  const patiently = async <T>(deadline: number, run: (again: boolean) => Promise<T>): Promise<T> => {
    const giveUp = Math.min(deadline, performance.now() + (ctx.replanMs ?? 2_000))
    for (let [delayMs, again] = [1, false]; ; delayMs = Math.min(100, delayMs * 2), again = true) {
      if (!isOpen) throw closed()
      try {
        return await run(again)
      } catch (error) {
        if (!isMisfit(error) || performance.now() + delayMs > giveUp) throw error
        replans++
        await pause(delayMs)
      }
    }
  }

  /** Resolves when the speed state has seen the token's events. Throws WEIR_SERVING_NOT_YET, WEIR_SERVING_TOKEN_GONE. */
  const waitFor = async (request: Request, view: View): Promise<void> => {
    const { query, how } = request
    if (query.atLeast === undefined) return
    const token = readToken(query.atLeast, view)
    const waitMs = Math.min(query.waitMs ?? 0, settings.query.deadlineMs)
    const until = performance.now() + waitMs
    for (let delayMs = 1; ; delayMs = Math.min(25, delayMs * 2)) {
      if (!isOpen) throw closed()
      await checkToken(ctx, token)
      const base = await planner.base(view)
      const headers = new Map<number, { offset: number }>()
      for (const name of Object.keys(token.positions)) {
        const header = await headerOf(view)(Number(name))
        const cut = base.cut[name]
        headers.set(Number(name), header?.position ?? cut ?? { offset: 0 })
      }
      const reached = Object.entries(token.positions).every(([p, at]) => headers.get(Number(p))!.offset >= at.offset)
      if (reached) return
      const left = until - performance.now()
      if (left <= 0) throw tokenTooEarly(waitMs)
      await pause(Math.min(delayMs, left), undefined, how.signal === undefined ? {} : { signal: how.signal })
    }
  }

  const run = async (query: Query, caller: Caller, how: QueryHow, unlimited: boolean): Promise<Answered> => {
    if (!isOpen) throw closed()
    const startedAt = performance.now()
    const request: Request = {
      query,
      caller,
      how,
      unlimited,
      nowMs: ctx.now(),
      deadline: startedAt + settings.query.deadlineMs,
    }
    // What is wrong with the query is said before anything is waited for.
    let view = await planner.active(query.view)
    resolve(request, view)
    await waitFor(request, view)
    const waited = query.atLeast !== undefined
    request.deadline = performance.now() + settings.query.deadlineMs
    const leave = await gate.enter(settings.query.deadlineMs, how.signal)
    try {
      return await patiently(request.deadline, async (again) => {
        if (again || waited) view = await planner.active(query.view)
        return attempt(request, view, startedAt, again || unlimited)
      })
    } finally {
      leave()
    }
  }

  const tracked = <T>(answering: Promise<T>): Promise<T> => {
    running.add(answering)
    const done = (): void => {
      running.delete(answering)
    }
    answering.then(done, done)
    return answering
  }

  return {
    answer: (query, caller, how) => tracked(run(query, caller, how, false)),
    everything: (view) => tracked(run({ view }, {}, {}, true)),
    explain: async (query, caller) => {
      const request: Request = { query, caller, how: {}, nowMs: ctx.now(), deadline: 0, unlimited: false }
      return patiently(performance.now() + settings.query.deadlineMs, async () => {
        const view = await planner.active(query.view)
        const resolved = resolve(request, view)
        const plan = await planner.plan(view, resolved, await planner.base(view), headerOf(view))
        await shown.check(view.dataset, plan)
        return { plan, query: resolved, sql: answerSql(view, resolved, 'cells').sql, asOf: asOfOf(plan) }
      })
    },
    planner,
    gate,
    cache,
    replans: () => replans,
    close: async () => {
      isOpen = false
      await Promise.allSettled(running)
      await readers.close()
    },
  }
}
