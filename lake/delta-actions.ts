/**
 * Actions of the Delta Lake log (protocol reader 1 / writer 2) as plain values, and their text.
 * Invariants: every long is written as an integer; every field that the strictest reader asks for is written
 * (docs of delta-io/delta PROTOCOL.md); an entry that Weir wrote carries the SHA-256 of its actions, so that a flipped bit is
 * seen before the entry is believed; foreign entries are read tolerantly.
 */
import { createHash } from 'node:crypto'
import { WeirError } from '../model/errors.ts'

export type AddFile = {
  /** Relative to the table's root, each segment URI-encoded. */
  path: string
  partitionValues: Record<string, string | null>
  size: number
  modificationTime: number
  dataChange: boolean
  /** JSON text, built by hand (delta-stats.ts). */
  stats?: string
  /** Weir's: sha256, partition, from, to, counted, duplicate, watermarkUs. Lost when another engine rewrites the file. */
  tags?: Record<string, string>
}
export type RemoveFile = {
  path: string
  deletionTimestamp: number
  dataChange: boolean
  extendedFileMetadata: boolean
  partitionValues: Record<string, string | null>
  size: number
  tags?: Record<string, string>
}
export type MetaData = {
  id: string
  name?: string
  description?: string
  format: { provider: string; options: Record<string, string> }
  schemaString: string
  partitionColumns: string[]
  configuration: Record<string, string>
  createdTime?: number
}
export type Protocol = {
  minReaderVersion: number
  minWriterVersion: number
  readerFeatures?: string[]
  writerFeatures?: string[]
}
export type Txn = { appId: string; version: number; lastUpdated?: number }
export type CommitInfo = { operation: string; timestamp: number; weirCommit?: string; weirSha256?: string }

export type Action =
  | { add: AddFile }
  | { remove: RemoveFile }
  | { metaData: MetaData }
  | { protocol: Protocol }
  | { txn: Txn }

export type LogEntry = { actions: Action[]; commitInfo: CommitInfo | null }

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** NDJSON of one commit; the first line is commitInfo with the unique commit id and the digest of the other lines. */
export const printEntry = (
  actions: Action[],
  info: { operation: string; commit: string; nowMs: number; engineInfo: string },
): Uint8Array => {
  const lines = actions.map((action) => `${JSON.stringify(action)}\n`).join('')
  const commitInfo = {
    timestamp: Math.trunc(info.nowMs),
    operation: info.operation,
    operationParameters: {},
    engineInfo: info.engineInfo,
    weirCommit: info.commit,
    weirSha256: sha256(lines),
  }
  return Buffer.from(`${JSON.stringify({ commitInfo })}\n${lines}`)
}

const unreadable = (key: string, got: string, cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_CORRUPT',
    message: `The table log entry ${key} is damaged.`,
    expected: 'the actions that were committed',
    got,
    next: 'restore the entry from a copy of the lake; do not delete it',
    cause,
  })

/** Reads an entry of ours or of another engine; unknown actions are skipped (the protocol check decides whether that is safe). */
export const parseEntry = (bytes: Uint8Array, key: string): LogEntry => {
  const text = Buffer.from(bytes).toString('utf8')
  if (text.trim() === '') throw unreadable(key, 'an empty entry: no writer commits nothing')
  const actions: Action[] = []
  let commitInfo: CommitInfo | null = null
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue
    let value: Record<string, unknown>
    try {
      value = JSON.parse(line) as Record<string, unknown>
    } catch (cause) {
      throw unreadable(key, 'a line that is no JSON', cause)
    }
    if (value.commitInfo) commitInfo = value.commitInfo as CommitInfo
    const action = toAction(value)
    if (action) actions.push(action)
  }
  if (commitInfo?.weirSha256 !== undefined) {
    const rest = text.slice(text.indexOf('\n') + 1)
    if (sha256(rest) !== commitInfo.weirSha256)
      throw unreadable(key, 'actions with another SHA-256 than the entry states')
  }
  return { actions, commitInfo }
}

/** The action in a log line or checkpoint row, if it is one that matters here. */
export const toAction = (value: Record<string, unknown>): Action | null => {
  if (value.add) return { add: tidyAdd(value.add as AddFile) }
  if (value.remove) return { remove: value.remove as RemoveFile }
  if (value.metaData) return { metaData: value.metaData as MetaData }
  if (value.protocol) return { protocol: value.protocol as Protocol }
  if (value.txn) return { txn: value.txn as Txn }
  return null
}

/** Foreign engines write `tags: null` and spell a null partition '' or leave it out. */
const tidyAdd = (add: AddFile): AddFile => ({
  path: add.path,
  partitionValues: Object.fromEntries(
    Object.entries(add.partitionValues ?? {}).map(([k, v]) => [k, v === '' ? null : v]),
  ),
  size: Number(add.size),
  modificationTime: Math.trunc(Number(add.modificationTime)),
  dataChange: add.dataChange,
  ...(add.stats ? { stats: add.stats } : {}),
  ...(add.tags ? { tags: add.tags } : {}),
})

/** Path in the log → key part: paths are compared decoded, since engines encode them differently. */
export const decodePath = (path: string): string => {
  try {
    return decodeURIComponent(path)
  } catch {
    return path // a foreign raw '%': taken literally
  }
}
export const encodePath = (path: string): string =>
  path
    .split('/')
    .map((segment) => encodeURIComponent(segment).replaceAll('%3D', '='))
    .join('/')
