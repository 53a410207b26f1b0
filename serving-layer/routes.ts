/**
 * HTTP routes of the serving layer: queries, definitions, status, jobs. Invariant: a caller learns nothing of views outside the
 * key's scopes, lists included, and forced filters of the key are in every query.
 */
import Type from 'typebox'
import { type FastifyInstance, type FastifyReply, type FastifyRequest, requireScope } from '../http/app.ts'
import { type Auth, allows, forbidden } from '../http/auth.ts'
import { WeirError } from '../model/errors.ts'
import type { JobAction, Scheduler } from '../model/ports/scheduler.ts'
import type { Query } from '../model/query/query.ts'
import { checkQueryKeys, QuerySchema } from '../model/query/schema.ts'
import type { Caller } from './context.ts'
import { datasetJson, explainedJson, viewJson } from './descriptions.ts'
import { unknownView } from './errors.ts'
import { answerHeaders, formatOf, MEDIA, writeAnswer } from './formats.ts'
import { type LastRuns, openLastRuns } from './last-runs.ts'
import { observeServing, type QueryMetrics } from './metrics.ts'
import { answered } from './problems.ts'
import type { Serving } from './serving.ts'
import { statusPage } from './status-page.ts'

const BODY_BYTES = 1024 * 1024
const ACTIONS: readonly JobAction[] = ['extend', 'recompute', 'verify', 'publish', 'rollback', 'compact']

const callerOf = (auth: Auth): Caller => (auth.where === undefined ? {} : { where: auth.where })
const sees = (auth: Auth, view: string): boolean => allows(auth, 'query', view) || allows(auth, 'admin', null)

/** Aborted when the client goes away before its answer. */
const goneSignal = (reply: FastifyReply): AbortSignal => {
  const gone = new AbortController()
  reply.raw.on('close', () => {
    if (!reply.raw.writableFinished) gone.abort()
  })
  return gone.signal
}

const etagsOf = (header: string | undefined): string[] =>
  (header ?? '')
    .slice(0, 4_000)
    .split(',')
    .flatMap((t) => /^\s*(?:W\/)?"([\w-]{20,64})"\s*$/.exec(t)?.[1] ?? [])

const queryRoutes = (app: FastifyInstance, serving: Serving, metrics: QueryMetrics): void => {
  const mayQuery = async (request: FastifyRequest): Promise<void> => {
    const view = (request.body as { view?: unknown } | null)?.view
    const name = typeof view === 'string' ? view : null
    if (!allows(request.auth, 'query', name)) throw forbidden('query', name)
    await answered(async () => checkQueryKeys(request.body))
  }
  const timed = async <T extends { outcome: string }>(view: string, run: () => Promise<T>): Promise<T> => {
    const from = performance.now()
    let outcome = 'failed'
    let known = view
    try {
      const result = await run()
      outcome = result.outcome
      return result
    } catch (error) {
      if (error instanceof WeirError && !error.retryable) outcome = 'refused'
      // A label for each name that a client makes up would be a leak.
      if (serving.context.versions.active(view) === null) known = ''
      throw error
    } finally {
      metrics.observe(known, outcome, (performance.now() - from) / 1_000)
    }
  }

  app.post(
    '/v1/query',
    {
      bodyLimit: BODY_BYTES,
      preValidation: mayQuery,
      schema: {
        summary: 'Ask a view: both layers merged, exact to the printed offsets',
        description:
          'JSON, NDJSON or CSV by Accept. The answer equals plain SQL over all records below `asOf.upper`. If-None-Match gives 304.',
        tags: ['query'],
        body: QuerySchema,
      },
    },
    async (request, reply) => {
      const query = request.body as Query
      const format = formatOf(request.headers.accept)
      if (format === null)
        return answered(async () => {
          throw new WeirError({
            code: 'WEIR_SERVING_NOT_ACCEPTABLE',
            message: 'Answers do not come in that form.',
            expected: 'Accept: application/json, application/x-ndjson or text/csv',
            got: request.headers.accept?.slice(0, 200),
            next: 'change the header Accept',
          })
        })
      const how = { signal: goneSignal(reply), ifNoneMatch: etagsOf(request.headers['if-none-match']) }
      const { etag, answer } = await answered(() =>
        timed(query.view, async () => {
          const result = await serving.answer(query, callerOf(request.auth), how)
          return { ...result, outcome: result.answer === null ? 'unchanged' : 'answered' }
        }),
      )
      reply.header('etag', `W/"${etag}"`).header('cache-control', 'private, no-cache').header('vary', 'accept')
      if (answer === null) return reply.code(304).send()
      if (format !== 'json') reply.headers(answerHeaders(answer))
      // A string would be written as JSON once more by the serializer.
      return reply.type(MEDIA[format]).send(Buffer.from(writeAnswer(answer, format)))
    },
  )
  app.post(
    '/v1/query/explain',
    {
      bodyLimit: BODY_BYTES,
      preValidation: mayQuery,
      schema: { summary: 'The plan of a query: generation, epochs, files, SQL', tags: ['query'], body: QuerySchema },
    },
    async (request) => {
      // A plan tells sizes of what forced filters hide.
      if (request.auth.where !== undefined && !allows(request.auth, 'admin', null)) throw forbidden('admin', null)
      return answered(async () => explainedJson(await serving.explain(request.body as Query, callerOf(request.auth))))
    },
  )
}

const definitionRoutes = (app: FastifyInstance, serving: Serving, runs: LastRuns): void => {
  const { versions, datasets } = serving.context
  const tags = ['definitions']
  const refresh = async (): Promise<void> => versions.refresh()

  app.get('/v1/views', { schema: { summary: 'Views that the key may query', tags } }, async (request) => {
    await refresh()
    const names = [...new Set(versions.all().map((v) => v.view))].filter((name) => sees(request.auth, name)).sort()
    return { views: names.map((name) => viewJson(versions, name)) }
  })
  app.get(
    '/v1/views/:view',
    {
      schema: {
        summary: 'One view: grain, dimensions, measures, versions',
        tags,
        params: Type.Object({ view: Type.String() }),
      },
    },
    async (request) => {
      const { view } = request.params as { view: string }
      if (!sees(request.auth, view)) throw forbidden('query', view)
      await refresh()
      return answered(async () => {
        if (!versions.all().some((v) => v.view === view)) throw unknownView(view)
        return viewJson(versions, view)
      })
    },
  )
  app.get(
    '/v1/datasets',
    { schema: { summary: 'Datasets that the key may write or administrate', tags } },
    async (request) => ({
      datasets: datasets
        .filter((d) => allows(request.auth, 'ingest', d.name) || allows(request.auth, 'admin', null))
        .map(datasetJson),
    }),
  )
  const visibleStatus = async (auth: Auth) => {
    const status = await serving.status()
    const admin = allows(auth, 'admin', null)
    const runsOf = admin ? await runs.of() : undefined
    const views = status.views.filter((v) => sees(auth, v.name)).map((v) => ({ ...v, runs: runsOf?.(v.name) }))
    const datasets = status.datasets.filter((d) => admin || allows(auth, 'ingest', d.name))
    return { datasets, views, ...(admin ? { alarms: serving.context.alarms?.() ?? [] } : {}) }
  }
  app.get(
    '/v1/status',
    {
      schema: {
        summary: 'Per dataset: fates of events; per view: cut, upper, lag, generation, drift',
        tags: ['status'],
      },
    },
    async (request) => answered(() => visibleStatus(request.auth)),
  )
  app.get('/', { config: { public: true }, schema: { hide: true } }, async (request, reply) => {
    const mayKnow = request.auth.open || request.auth.keyId !== null
    return reply
      .type('text/html; charset=utf-8')
      .send(Buffer.from(statusPage(mayKnow ? await visibleStatus(request.auth) : null)))
  })
}

const jobRoutes = (app: FastifyInstance, serving: Serving, jobs: Scheduler, runs: LastRuns): void => {
  const admin = { onRequest: requireScope('admin') }
  const tags = ['jobs']
  app.post(
    '/v1/views/:view/batch/:action',
    {
      ...admin,
      schema: {
        summary: 'Start a batch job: extend, recompute, verify, publish, rollback { generation, force }, compact',
        tags,
        params: Type.Object({
          view: Type.String({ maxLength: 128 }),
          action: Type.Union(ACTIONS.map((a) => Type.Literal(a))),
        }),
        body: Type.Optional(Type.Union([Type.Object({}, { additionalProperties: true }), Type.Null()])),
      },
    },
    async (request, reply) => {
      const { view, action } = request.params as { view: string; action: JobAction }
      const options = (request.body ?? {}) as Record<string, unknown>
      const id = await answered(async () => {
        await serving.context.versions.refresh()
        if (!serving.context.versions.all().some((v) => v.view === view)) throw unknownView(view)
        return jobs.submit({ view, action, options })
      })
      return reply.code(202).header('location', `/v1/jobs/${id}`).send({ id })
    },
  )
  app.get(
    '/v1/jobs',
    {
      ...admin,
      schema: {
        summary: 'Batch jobs, newest first',
        tags,
        querystring: Type.Object({ limit: Type.Integer({ default: 50, minimum: 1, maximum: 1_000 }) }),
      },
    },
    async (request) => ({ jobs: await jobs.jobs((request.query as { limit: number }).limit) }),
  )
  app.get(
    '/v1/jobs/:id',
    {
      ...admin,
      schema: { summary: 'One batch job', tags, params: Type.Object({ id: Type.String({ maxLength: 128 }) }) },
    },
    async (request) => {
      const { id } = request.params as { id: string }
      return answered(async () => {
        const job = await jobs.job(id)
        // Whoever has seen its end finds it in the status too.
        if (job?.state === 'done' || job?.state === 'failed') runs.forget()
        if (job !== null) return job
        throw new WeirError({
          code: 'WEIR_SERVING_NO_JOB',
          message: `There is no job ${JSON.stringify(id.slice(0, 128))}.`,
          expected: 'the id of a job of this server',
          next: 'GET /v1/jobs lists them',
        })
      })
    },
  )
}

/** Adds all routes of the serving layer to an app, and its metrics to the app's registry. */
export const servingRoutes = (app: FastifyInstance, serving: Serving, jobs: Scheduler): void => {
  const metrics = observeServing(app.metrics, serving)
  queryRoutes(app, serving, metrics)
  const runs = openLastRuns(jobs)
  definitionRoutes(app, serving, runs)
  jobRoutes(app, serving, jobs, runs)
}
