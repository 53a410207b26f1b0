/**
 * Routes for administrators that need more than one layer: the audit, and versions of views.
 * Invariant: an audit compares what serving itself answers, with what the reference says over the very records below its upper.
 */
import Type from 'typebox'
import { dropVersion, switchTo } from '../batch-layer/adopt.ts'
import { audit } from '../batch-layer/audit.ts'
import { type FastifyInstance, requireScope } from '../http/app.ts'
import { isProblem, problem } from '../http/problems.ts'
import { WeirError } from '../model/errors.ts'
import type { View } from '../model/view.ts'
import { upperOf } from '../serving-layer/plan.ts'
import type { Serving } from '../serving-layer/serving.ts'
import { batchContext } from './batch-runtime.ts'
import type { ServeOptions } from './serve-options.ts'

/** Refusals of the layers below: what is not there is 404, what cannot be done now is 409. */
const STATUS: Record<string, number> = { WEIR_SERVING_NO_VIEW: 404, WEIR_BATCH_ACTIVE: 409, WEIR_BATCH_DROPPED: 409 }
const worded = async <T>(work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    const status = error instanceof WeirError ? STATUS[error.code] : undefined
    throw status === undefined || isProblem(error) ? error : problem(status, error as WeirError)
  }
}

const inView = Type.Object({ view: Type.String() })
const inVersion = Type.Object({ view: Type.String(), version: Type.String() })

export const adminRoutes = (app: FastifyInstance, shared: ServeOptions, serving: Serving): void => {
  const { ports, drift, batch } = shared
  const ctx = batch?.ctx ?? batchContext(shared, 'serving')
  const admin = { onRequest: requireScope('admin') }
  const tags = ['administration']

  app.post(
    '/v1/views/:view/audit',
    { ...admin, schema: { summary: 'Compare the whole view with plain SQL over lake and log', tags, params: inView } },
    async (request) => {
      const { view: name } = request.params as { view: string }
      const { answer, plan } = await worded(() => serving.everything(name))
      const view = ports.versions.find(name, plan.version)
      if (answer === null || view === null) throw noVersion(name, plan.version)
      const result = await audit(ctx, view, upperOf(plan), answer.rows)
      drift.note(name, 'audit', result.differing)
      return {
        view: name,
        version: plan.version,
        generation: answer.asOf.generation,
        cut: answer.asOf.cut,
        upper: answer.asOf.upper,
        rows: answer.rows.length,
        events: result.events,
        differences: result.differing,
        cells: result.cells,
      }
    },
  )

  app.get('/v1/versions', { ...admin, schema: { summary: 'All versions of all views', tags } }, async () => {
    await ports.versions.refresh()
    const registered = await ports.publications.versions()
    const versions = []
    for (const { view, version, state } of ports.versions.all()) {
      const current = await ports.publications.current(view, version)
      versions.push({
        view,
        version,
        state,
        generation: current === null || current === 'dropped' ? null : current.pointer.generation,
        sql: registered.find((r) => r.view === view && r.version === version)?.sql ?? null,
      })
    }
    return { versions }
  })

  const found = (name: string, version: string): View => {
    const view = ports.versions.find(name, version)
    if (view === null) throw noVersion(name, version)
    return view
  }
  app.post(
    '/v1/views/:view/versions/:version/activate',
    { ...admin, schema: { summary: 'Let a version serve, in one step', tags, params: inVersion } },
    async (request) => {
      const { view: name, version } = request.params as { view: string; version: string }
      await ports.versions.refresh()
      const view = found(name, version)
      const switched = await worded(() => switchTo(ctx, view))
      if (switched === 'waiting' || switched === 'unpublished')
        throw problem(409, {
          code: 'WEIR_CLI_NOT_READY',
          message: `Version ${version} of ${name} is not ready to serve: it is ${switched === 'waiting' ? 'not caught up yet' : 'not published yet'}.`,
          expected: 'a version that is published and fed',
          got: switched,
          next: 'wait for its backfill, then try again',
          retryable: true,
        })
      return { view: name, version, state: switched }
    },
  )
  app.post(
    '/v1/views/:view/versions/:version/drop',
    {
      ...admin,
      schema: { summary: 'End a version: it is no longer fed, and cannot come back', tags, params: inVersion },
    },
    async (request) => {
      const { view: name, version } = request.params as { view: string; version: string }
      await ports.versions.refresh()
      const viewLeft = !shared.options.project.views.some((v) => v.name === name)
      await worded(() => dropVersion(ctx, found(name, version), { viewLeft }))
      return { view: name, version, state: 'dropped' }
    },
  )
}

const noVersion = (view: string, version: string) =>
  problem(404, {
    code: 'WEIR_CLI_NO_VERSION',
    message: `There is no version ${version} of ${view}.`,
    expected: 'a version that is registered and not dropped',
    got: version,
    next: 'see `weir versions list`',
  })
