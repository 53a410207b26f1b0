/**
 * API keys: who asks, and what they may. Invariant: with keys, nothing but the public routes answers without one,
 * and a key does only what its scopes say: ingest keys cannot read, query keys cannot write, neither administrates.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { WeirError } from '../model/errors.ts'
import type { ApiKey, KeyStore } from '../model/ports/rejects.ts'
import { problem } from './problems.ts'

export type ScopeKind = 'ingest' | 'query' | 'admin' | 'metrics'

/** Who asks. `open` means that the server has no keys (and so is bound to loopback). */
export type Auth = { keyId: string | null; open: boolean; scopes: string[]; where: Record<string, string> | undefined }

export const OPEN: Auth = { keyId: null, open: true, scopes: ['*'], where: undefined }
export const NOBODY: Auth = { keyId: null, open: false, scopes: [], where: undefined }

/** May this caller do `kind`, to `name` where the kind has names? `null` name: any name at all would do. */
export const allows = (auth: Auth, kind: ScopeKind, name: string | null): boolean =>
  auth.scopes.some((scope) => {
    if (scope === '*') return true
    if (kind === 'admin') return scope === 'admin'
    if (kind === 'metrics') return scope === 'metrics' || scope === 'admin'
    if (!scope.startsWith(`${kind}:`)) return false
    const rest = scope.slice(kind.length + 1)
    return rest === '*' || name === null || rest === name
  })

const SCOPE = /^(\*|admin|metrics|(ingest|query):(\*|[A-Za-z][A-Za-z0-9_]*))$/

const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex')

/**
 * A new key: what the store keeps, and the token `wk_<id>_<secret>` that is shown once. Throws WEIR_HTTP_BAD_SCOPE.
 */
export const newKey = (
  name: string,
  scopes: string[],
  where?: Record<string, string>,
): { key: ApiKey; token: string } => {
  const wrong = scopes.find((s) => !SCOPE.test(s))
  if (scopes.length === 0 || wrong !== undefined)
    throw new WeirError({
      code: 'WEIR_HTTP_BAD_SCOPE',
      message: scopes.length === 0 ? 'A key needs a scope.' : `${JSON.stringify(wrong)} is not a scope.`,
      expected: 'ingest:<dataset>, query:<view>, ingest:*, query:*, metrics, admin or *',
      got: wrong,
      next: 'name what the key may do',
    })
  const id = randomBytes(6).toString('hex')
  const secret = randomBytes(24).toString('hex')
  const key: ApiKey = { id, hash: hashOf(secret), name, scopes: [...scopes], createdAt: new Date().toISOString() }
  return { key: where === undefined ? key : { ...key, where }, token: `wk_${id}_${secret}` }
}

const TOKEN = /^Bearer +wk_([A-Za-z0-9]{1,64})_([A-Za-z0-9]{1,128})$/i

/**
 * The header of a page that people look at: a browser cannot be told to send a bearer token; asked for a password, it sends the key as one
 * (RFC 7617). For pages that only show: what a browser sends by itself, another site can make it send.
 */
export const asBearer = (header: string): string => {
  const basic = /^Basic +([A-Za-z0-9+/]{1,1000}=*)$/i.exec(header)
  if (!basic) return header
  const text = Buffer.from(basic[1]!, 'base64').toString('utf8')
  return `Bearer ${text.slice(text.indexOf(':') + 1)}`
}

/** The caller behind an Authorization header: `null` when it names no live key. Unknown ids cost the same comparison. */
export const authenticate = async (keys: KeyStore, header: string | undefined): Promise<Auth | null> => {
  const found = TOKEN.exec(header ?? '')
  if (!found) return null
  const key = (await keys.list()).find((k) => k.id === found[1])
  const given = Buffer.from(hashOf(found[2]!), 'hex')
  const stored = Buffer.alloc(32)
  if (key !== undefined) stored.write(key.hash, 'hex')
  const equal = timingSafeEqual(given, stored)
  if (key === undefined || !equal || key.revokedAt !== undefined) return null
  return { keyId: key.id, open: false, scopes: key.scopes, where: key.where }
}

export const unauthorized = () =>
  problem(
    401,
    {
      code: 'WEIR_HTTP_NO_KEY',
      message: 'This server wants an API key.',
      expected: 'the header Authorization: Bearer wk_<id>_<secret>',
      next: 'make a key with `weir keys create`',
    },
    { 'www-authenticate': 'Bearer realm="weir"' },
  )

/** The same words whether the named thing exists or not. */
export const forbidden = (kind: ScopeKind, name: string | null) =>
  problem(403, {
    code: 'WEIR_HTTP_SCOPE',
    message: 'The API key does not allow this.',
    expected: `a key with the scope ${kind === 'admin' || kind === 'metrics' ? kind : `${kind}:${name ?? '<name>'}`}`,
    next: 'use another key, or make one with `weir keys create`',
  })

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/i
export const isLoopback = (host: string): boolean => LOOPBACK.test(host)

/** Throws WEIR_HTTP_OPEN_BINDING: without keys the server listens on loopback and nowhere else. */
export const assertBinding = (host: string, hasKeys: boolean): void => {
  if (hasKeys || isLoopback(host)) return
  throw new WeirError({
    code: 'WEIR_HTTP_OPEN_BINDING',
    message: `Without API keys Weir does not listen on ${host}.`,
    expected: 'a loopback address (127.0.0.1, ::1, localhost), or at least one API key',
    got: host,
    next: 'run `weir keys create` first, or leave --host out',
  })
}
