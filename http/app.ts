/**
 * The app that all HTTP roles share. Invariant: every answer that is not a success is a problem document; every request
 * is bounded in bytes and time; with keys only public routes answer without one; without keys only loopback is served.
 */
import compress from '@fastify/compress'
import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { Histogram, Registry } from 'prom-client'
import { WeirError } from '../model/errors.ts'
import type { KeyStore } from '../model/ports/rejects.ts'
import {
  type Auth,
  allows,
  asBearer,
  authenticate,
  forbidden,
  isLoopback,
  NOBODY,
  OPEN,
  type ScopeKind,
  unauthorized,
} from './auth.ts'
import { clientErrorHandler } from './client-errors.ts'
import { PROBLEM_TYPE, problem, toProblem } from './problems.ts'
import { validatorCompiler } from './validation.ts'

export type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    /** Prometheus registry of this app; rooms register their own metrics here. */
    metrics: Registry
  }
  interface FastifyRequest {
    auth: Auth
  }
  interface FastifyContextConfig {
    /** Answers without an API key. */
    public?: boolean
  }
}

export type HttpLimits = {
  /** Greatest body of a route that does not say, bytes. */
  bodyBytes: number
  /** A request that has not arrived whole after this long is closed. */
  requestTimeoutMs: number
  /** A connection without any traffic for this long is closed; longer than the longest query. */
  connectionTimeoutMs: number
  /** An answer of which the client takes nothing for this long is given up. */
  replyTimeoutMs: number
}

export const HTTP_LIMITS: HttpLimits = {
  bodyBytes: 1024 * 1024,
  requestTimeoutMs: 12_000,
  connectionTimeoutMs: 120_000,
  replyTimeoutMs: 15_000,
}

export type Readiness = () => Promise<{ ready: boolean; reasons: string[] }>

export type AppOptions = {
  /** null: no keys, everything is open and only loopback is served. */
  keys: KeyStore | null
  version: string
  limits?: Partial<HttpLimits>
  /** A pino logger, or nothing. */
  logger?: import('fastify').FastifyBaseLogger
  readiness?: Readiness
  /** Which part of all routes this server has, where it is not all of them: told to who asks for another. */
  part?: string
}

const hostName = (header: string | undefined): string => (header ?? '').replace(/:\d+$/, '')

const describePlugins = async (app: FastifyInstance, version: string): Promise<void> => {
  await app.register(helmet, {
    contentSecurityPolicy: { directives: { 'upgrade-insecure-requests': null } },
    strictTransportSecurity: false,
  })
  await app.register(compress, { globalDecompression: false, threshold: 2_048, encodings: ['gzip', 'identity'] })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Weir', version, description: 'Events in, exact and fresh aggregates out.' },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      security: [{ key: [] }],
    },
  })
}

/** Every declared path, for 405: a path that exists under another method. */
const watchRoutes = (app: FastifyInstance): ((path: string) => string[]) => {
  const routes = new Map<string, { pattern: RegExp; methods: Set<string> }>()
  app.addHook('onRoute', (route) => {
    if (route.url.includes('*')) return
    const text = route.url.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/:[A-Za-z]+/g, '[^/]+')
    const known = routes.get(route.url) ?? { pattern: new RegExp(`^${text}/?$`), methods: new Set<string>() }
    for (const method of [route.method].flat()) known.methods.add(method)
    routes.set(route.url, known)
  })
  return (path) => [...routes.values()].filter((r) => r.pattern.test(path)).flatMap((r) => [...r.methods])
}

const systemRoutes = (app: FastifyInstance, options: AppOptions): void => {
  const open = { config: { public: true } }
  app.get('/healthz', { ...open, schema: { summary: 'Is the process alive?', tags: ['system'] } }, async () => ({
    status: 'ok',
    version: options.version,
  }))
  app.get(
    '/readyz',
    { ...open, schema: { summary: 'Is it ready, and if not, why?', tags: ['system'] } },
    async (request, reply) => {
      const state = (await options.readiness?.()) ?? { ready: true, reasons: [] }
      // Reasons name datasets and views: they are for those who may administrate.
      const reasons = allows(request.auth, 'admin', null) ? { reasons: state.reasons } : {}
      return reply.code(state.ready ? 200 : 503).send({ ready: state.ready, ...reasons })
    },
  )
  app.get(
    '/metrics',
    { onRequest: requireScope('metrics'), schema: { summary: 'Prometheus metrics', tags: ['system'] } },
    async (_request, reply) => reply.type(app.metrics.contentType).send(await app.metrics.metrics()),
  )
  app.get('/openapi.json', { ...open, schema: { hide: true } }, async () => app.swagger())
}

/**
 * Pre-handler (or onRequest hook) of a route: 403 unless the caller's key has the scope. `nameOf` says which dataset or
 * view the request is about; without it any key of the kind passes.
 */
export const requireScope =
  (kind: ScopeKind, nameOf?: (request: FastifyRequest) => string | null) =>
  async (request: FastifyRequest): Promise<void> => {
    const name = nameOf?.(request) ?? null
    if (!allows(request.auth, kind, name)) throw forbidden(kind, name)
  }

const guard = (app: FastifyInstance, keys: KeyStore | null): void => {
  app.decorateRequest('auth')
  app.addHook('onRequest', async (request) => {
    request.auth = NOBODY
    if (keys === null) {
      // A web page elsewhere can make a browser call loopback, by a name of its own or across origins: not served.
      const crossSite = request.headers['sec-fetch-site'] === 'cross-site' && !['GET', 'HEAD'].includes(request.method)
      if (crossSite || !isLoopback(hostName(request.headers.host)))
        throw problem(403, {
          code: 'WEIR_HTTP_HOST',
          message: 'Without API keys this server answers only to its own machine.',
          expected: 'a Host header of localhost or 127.0.0.1, and no request from another web site',
          got: request.headers.host,
          next: 'call it by a loopback name, or make a key with `weir keys create`',
        })
      request.auth = OPEN
      return
    }
    const { authorization } = request.headers
    // Under /admin/ are pages, and nothing that changes anything.
    const isPage = request.method === 'GET' && request.url.startsWith('/admin/')
    const who = await authenticate(keys, isPage ? asBearer(authorization ?? '') : authorization)
    if (who !== null) request.auth = who
    else if (request.routeOptions.config.public !== true && !request.is404) throw unauthorized()
    else if (request.headers.authorization !== undefined) throw unauthorized()
  })
}

/** The app, with everything but the rooms' own routes. It does not listen: `assertBinding`, then `app.listen`. */
export const createApp = async (options: AppOptions): Promise<FastifyInstance> => {
  const limits = { ...HTTP_LIMITS, ...options.limits }
  const app = Fastify({
    ...(options.logger ? { loggerInstance: options.logger } : { logger: false }),
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    connectionTimeout: limits.connectionTimeoutMs,
    // Node looks for late requests this often; its default of 30 s would be the real limit.
    http: {
      connectionsCheckingInterval: Math.min(1_000, limits.requestTimeoutMs),
      headersTimeout: limits.requestTimeoutMs,
    },
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 128, ignoreTrailingSlash: true },
    logController: new Fastify.LogController({ disableRequestLogging: true }),
    clientErrorHandler,
    frameworkErrors: (error: Error, _request: unknown, reply: FastifyReply) => fail(reply, error),
  } as Parameters<typeof Fastify>[0]) as unknown as FastifyInstance
  app.setValidatorCompiler(validatorCompiler as never)
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))

  const metrics = new Registry()
  const seconds = new Histogram({
    name: 'weir_http_request_seconds',
    help: 'Time to answer HTTP requests, in seconds',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
    registers: [metrics],
  })
  app.decorate('metrics', metrics)
  app.addHook('onResponse', async (request, reply) => {
    request.raw.socket?.setTimeout?.(limits.connectionTimeoutMs)
    const route = request.routeOptions.url ?? 'none'
    seconds.observe({ method: request.method, route, status: String(reply.statusCode) }, reply.elapsedTime / 1_000)
  })
  app.addHook('onSend', async (request) => {
    request.raw.socket?.setTimeout?.(limits.replyTimeoutMs)
  })

  const fail = (reply: FastifyReply, thrown: unknown) => {
    const { status, headers, document, unforeseen } = toProblem(thrown)
    if (unforeseen) reply.log.error({ err: thrown }, 'a request failed')
    return reply.code(status).headers(headers).type(PROBLEM_TYPE).send(document)
  }
  const methodsOf = watchRoutes(app)
  app.setErrorHandler((error, _request, reply) => fail(reply, error))
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0]!
    const methods = methodsOf(path)
    if (methods.length === 0)
      return fail(
        reply,
        problem(404, {
          code: 'WEIR_HTTP_NOT_FOUND',
          message: `There is no ${path} here.`,
          next: options.part === undefined ? 'see /docs for all routes' : `${options.part}; see /docs for its routes`,
        }),
      )
    const allow = [...new Set(methods)].sort().join(', ')
    const error = new WeirError({
      code: 'WEIR_HTTP_METHOD',
      message: `${path} does not take ${request.method}.`,
      expected: allow,
      got: request.method,
      next: 'see /docs for all routes',
    })
    return fail(reply, problem(405, error, { allow }))
  })

  guard(app, options.keys)
  await describePlugins(app, options.version)
  await app.register(async (scope) => {
    scope.addHook('onRoute', (route) => {
      route.config = { ...route.config, public: true }
    })
    await scope.register(swaggerUi, { routePrefix: '/docs', staticCSP: true })
  })
  systemRoutes(app, options)
  return app
}
