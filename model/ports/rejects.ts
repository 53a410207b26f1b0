/** Ports of the door: rejected events (bounded; overflow is counted) and API keys. */
export type Reject = { dataset: string; receivedAtMs: number; index: number; code: string; reason: string; raw: string }

export type RejectStore = {
  add(rejects: Reject[]): Promise<void>
  list(dataset: string, limit: number): Promise<Reject[]>
  counts(dataset: string): Promise<{ kept: number; overflowed: number }>
  close(): Promise<void>
}

export type ApiKey = {
  id: string
  /** SHA-256 (hex) of the secret; the secret itself is never stored. */
  hash: string
  name: string
  /** `ingest:<dataset>`, `query:<view>`, `admin`; `*` for any name. */
  scopes: string[]
  /** Forced filters on output dimensions, applied in the planner. */
  where?: Record<string, string>
  createdAt: string
  revokedAt?: string
}

export type KeyStore = {
  list(): Promise<ApiKey[]>
  add(key: ApiKey): Promise<void>
  revoke(id: string): Promise<boolean>
}
