/**
 * Checkpoints (classic, single part) of a Delta table.
 * Invariant: a checkpoint is believed only if its bytes match the digest that its writer left beside it; otherwise the log
 * is replayed. Writers race harmlessly: a checkpoint's content is a function of the log.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine } from '../engine/engine.ts'
import { WeirError } from '../model/errors.ts'
import { literal } from '../model/ident.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { type Action, toAction } from './delta-actions.ts'
import { replay, type Snapshot, snapshotActions } from './delta-snapshot.ts'
import { twentyDigits } from './keys.ts'
import { seal, unseal } from './sealed.ts'

export const TOMBSTONE_RETENTION_MS = 7 * 86_400_000

const columns = {
  txn: 'STRUCT(appId VARCHAR, version BIGINT, lastUpdated BIGINT)',
  add: 'STRUCT(path VARCHAR, partitionValues MAP(VARCHAR, VARCHAR), size BIGINT, modificationTime BIGINT, dataChange BOOLEAN, stats VARCHAR, tags MAP(VARCHAR, VARCHAR))',
  remove:
    'STRUCT(path VARCHAR, deletionTimestamp BIGINT, dataChange BOOLEAN, extendedFileMetadata BOOLEAN, partitionValues MAP(VARCHAR, VARCHAR), size BIGINT, tags MAP(VARCHAR, VARCHAR))',
  metaData:
    'STRUCT(id VARCHAR, name VARCHAR, description VARCHAR, format STRUCT(provider VARCHAR, options MAP(VARCHAR, VARCHAR)), schemaString VARCHAR, partitionColumns VARCHAR[], configuration MAP(VARCHAR, VARCHAR), createdTime BIGINT)',
  protocol:
    'STRUCT(minReaderVersion INTEGER, minWriterVersion INTEGER, readerFeatures VARCHAR[], writerFeatures VARCHAR[])',
}

const checkpointKey = (root: string, version: number): string =>
  `${root}/_delta_log/${twentyDigits(version)}.checkpoint.parquet`
/** In a folder with a leading underscore, which other engines leave alone. */
const digestKey = (root: string, version: number): string => `${root}/_weir/checkpoint-${twentyDigits(version)}.json`
const hintKey = (root: string): string => `${root}/_delta_log/_last_checkpoint`

type CheckpointDigest = { formatVersion: 1; size: number; sha256: string }

/** Writes the checkpoint of a snapshot, its digest and the hint. Does nothing if it exists. */
export const writeCheckpoint = async (
  store: ObjectStore,
  engine: Engine,
  root: string,
  snapshot: Snapshot,
  nowMs: number,
): Promise<void> => {
  const actions = snapshotActions(snapshot, nowMs - TOMBSTONE_RETENTION_MS)
  const parquet = await store.scratch('.parquet')
  const json = join(engine.scratchDir, `checkpoint-${crypto.randomUUID()}.ndjson`)
  try {
    const lines = actions.map((a) => JSON.stringify(a))
    // The reader reserves twice this much memory, used or not.
    const longest = lines.reduce((n, line) => Math.max(n, Buffer.byteLength(line)), 65_536)
    await writeFile(json, lines.join('\n'))
    const spec = Object.entries(columns)
      .map(([name, type]) => `${name}: ${literal(type)}`)
      .join(', ')
    await engine.withSession((session) =>
      session.run(
        `COPY (SELECT * FROM read_json(${literal(json)}, format = 'newline_delimited', records = true, columns = {${spec}}, maximum_object_size = ${longest + 1})) TO ${literal(parquet)} (FORMAT parquet)`,
      ),
    )
  } finally {
    await rm(json, { force: true })
  }
  let placed: { size: number; sha256: string }
  try {
    placed = await store.publishFile(parquet, checkpointKey(root, snapshot.version))
  } catch (error) {
    if (error instanceof WeirError && error.code === 'WEIR_LAKE_EXISTS') return
    throw error
  }
  const digest: CheckpointDigest = { formatVersion: 1, ...placed }
  await store.putIfAbsent(digestKey(root, snapshot.version), seal(digest))
  const hint = {
    version: snapshot.version,
    size: actions.length,
    sizeInBytes: placed.size,
    numOfAddFiles: snapshot.files.size,
  }
  await store.putHint(hintKey(root), Buffer.from(JSON.stringify(hint)))
}

const LINES_AT_A_TIME = 2_000

/** Snapshot at one checkpoint, or null when it is absent, unverifiable (unless `trust`) or damaged. */
const readCheckpoint = async (
  store: ObjectStore,
  engine: Engine,
  root: string,
  version: number,
  size: number | null,
): Promise<Snapshot | null> => {
  let path: string
  try {
    if (size === null) {
      const bytes = await store.get(digestKey(root, version))
      if (bytes === null) return null
      const digest = unseal<CheckpointDigest>(bytes, digestKey(root, version))
      path = await store.localFile(checkpointKey(root, version), digest)
    } else path = await store.localFile(checkpointKey(root, version), { size })
  } catch (error) {
    if (error instanceof WeirError && error.code === 'WEIR_LAKE_CORRUPT') return null
    throw error
  }
  // Many lines a value: each text that leaves the engine costs more than a line of it.
  const rows = await engine.withSession((session) =>
    session.rows<{ lines: string }>(
      `SELECT string_agg(line, chr(10)) AS lines FROM (
         SELECT to_json(checkpoint)::VARCHAR AS line, row_number() OVER () // ${LINES_AT_A_TIME} AS pack FROM read_parquet(${literal(path)}) AS checkpoint
       ) GROUP BY pack`,
    ),
  )
  const actions = rows
    .flatMap(({ lines }) => lines.split('\n'))
    .map((line) => toAction(dropNulls(JSON.parse(line) as Record<string, unknown>)))
    .filter((a): a is Action => a !== null)
  const run = replay(root, null)
  run.apply(actions)
  return run.end(version)
}

/** Parquet has no absent fields, only nulls; partition values keep theirs. */
const dropNulls = (value: Record<string, unknown>, inMap = false): Record<string, unknown> => {
  const out: Record<string, unknown> = {}
  for (const key in value) {
    const v = value[key]
    if (v === null) {
      if (inMap) out[key] = v
    } else if (typeof v !== 'object' || Array.isArray(v)) out[key] = v
    else out[key] = dropNulls(v as Record<string, unknown>, key === 'partitionValues')
  }
  return out
}

/**
 * The best checkpoint to start from: the hinted one, else the newest that verifies; null when there is none.
 * `foreign` also takes checkpoints of other engines, which carry no digest: only when the log before them is gone.
 */
export const openCheckpoint = async (
  store: ObjectStore,
  engine: Engine,
  root: string,
  foreign: boolean,
): Promise<Snapshot | null> => {
  const hinted = await store.get(hintKey(root))
  if (hinted !== null && !foreign) {
    const version = hintedVersion(hinted)
    const snapshot = version === null ? null : await readCheckpoint(store, engine, root, version, null)
    if (snapshot !== null) return snapshot
  }
  if (hinted === null && !foreign) return null
  const found = (await store.list(`${root}/_delta_log/`)).flatMap((info) => {
    const match = /\/(\d{20})\.checkpoint\.parquet$/.exec(info.key)
    return match ? [{ version: Number(match[1]), size: info.size }] : []
  })
  for (const { version, size } of found.reverse()) {
    const snapshot = await readCheckpoint(store, engine, root, version, foreign ? size : null)
    if (snapshot !== null) return snapshot
  }
  return null
}

const hintedVersion = (bytes: Uint8Array): number | null => {
  try {
    const { version } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { version?: unknown }
    return Number.isSafeInteger(version) ? (version as number) : null
  } catch {
    return null // a hint may be damaged without harm: the listing is the other way
  }
}
