/**
 * Snapshots of a Delta table: pure replay of log entries.
 * Invariant: the latest protocol, metaData and txn per appId win, and a path is live iff its last action is an add;
 * replaying from a checkpoint or from entry 0 gives the same snapshot.
 */
import { WeirError } from '../model/errors.ts'
import {
  type Action,
  type AddFile,
  decodePath,
  type MetaData,
  type Protocol,
  type RemoveFile,
} from './delta-actions.ts'

export type Snapshot = {
  version: number
  protocol: Protocol
  metaData: MetaData
  txns: ReadonlyMap<string, number>
  /** Live files by decoded path. */
  files: ReadonlyMap<string, AddFile>
  /** Removed files by decoded path; forgotten in checkpoints after the retention time. */
  tombstones: ReadonlyMap<string, RemoveFile>
}

export type Replay = {
  apply(actions: Action[]): void
  end(version: number): Snapshot
}

/** Starts a replay on top of a snapshot (copied, never changed) or from nothing. */
export const replay = (table: string, base: Snapshot | null): Replay => {
  let protocol = base?.protocol
  let metaData = base?.metaData
  const txns = new Map(base?.txns)
  const files = new Map(base?.files)
  const tombstones = new Map(base?.tombstones)
  return {
    apply: (actions) => {
      for (const action of actions) {
        if ('add' in action) {
          const path = decodePath(action.add.path)
          files.set(path, action.add)
          tombstones.delete(path)
        } else if ('remove' in action) {
          const path = decodePath(action.remove.path)
          files.delete(path)
          tombstones.set(path, action.remove)
        } else if ('txn' in action) txns.set(action.txn.appId, Number(action.txn.version))
        else if ('metaData' in action) metaData = action.metaData
        else protocol = action.protocol
      }
    },
    end: (version) => {
      if (!protocol || !metaData)
        throw new WeirError({
          code: 'WEIR_LAKE_CORRUPT',
          message: `The table ${table} has no protocol or no metadata in its log.`,
          expected: 'both in the first entry or in the checkpoint',
          next: 'restore the table log from a copy',
        })
      refuseUnknownReader(table, protocol)
      return { version, protocol, metaData, txns, files, tombstones }
    },
  }
}

const refuse = (table: string, what: string, got: string): never => {
  throw new WeirError({
    code: 'WEIR_LAKE_PROTOCOL',
    message: `The table ${table} ${what}.`,
    expected: 'Delta reader version 1, writer version 2, without further features',
    got,
    next: 'undo the table property that another engine set, or rewrite the table without it',
  })
}

/** Reading a table with features that are not understood (deletion vectors above all) would give wrong rows. */
const refuseUnknownReader = (table: string, protocol: Protocol): void => {
  const features = protocol.readerFeatures ?? []
  if (features.length > 0) refuse(table, 'needs reader features', features.join(', '))
  if (protocol.minReaderVersion !== 1 && protocol.minReaderVersion !== 3)
    refuse(table, 'needs another reader version', String(protocol.minReaderVersion))
}

const KNOWN_WRITER_FEATURES = new Set(['appendOnly', 'invariants'])

/** Throws WEIR_LAKE_PROTOCOL when writing would break a promise that the table makes. */
export const refuseUnknownWriter = (table: string, snapshot: Snapshot, actions: Action[]): void => {
  const { protocol, metaData } = snapshot
  const unknown = (protocol.writerFeatures ?? []).filter((f) => !KNOWN_WRITER_FEATURES.has(f))
  if (unknown.length > 0) refuse(table, 'needs writer features', unknown.join(', '))
  if (protocol.minWriterVersion > 2 && protocol.minWriterVersion !== 7)
    refuse(table, 'needs another writer version', String(protocol.minWriterVersion))
  const constraint = Object.keys(metaData.configuration ?? {}).find((k) => k.startsWith('delta.constraints.'))
  if (constraint) refuse(table, 'has a constraint that is not checked here', constraint)
  if (metaData.schemaString.includes('delta.invariants')) refuse(table, 'has column invariants', 'delta.invariants')
  const appendOnly = metaData.configuration?.['delta.appendOnly'] === 'true'
  if (appendOnly && actions.some((a) => 'remove' in a && a.remove.dataChange))
    refuse(table, 'is append-only', 'a removal')
}

/** Actions that rebuild the snapshot: the content of a checkpoint. */
export const snapshotActions = (snapshot: Snapshot, keepTombstonesAfterMs: number): Action[] => [
  { protocol: snapshot.protocol },
  { metaData: snapshot.metaData },
  ...[...snapshot.txns].map(([appId, version]): Action => ({ txn: { appId, version } })),
  ...[...snapshot.files.values()].map((add): Action => ({ add: { ...add, dataChange: false } })),
  ...[...snapshot.tombstones.values()]
    .filter((remove) => remove.deletionTimestamp > keepTombstonesAfterMs)
    .map((remove): Action => ({ remove: { ...remove, dataChange: false } })),
]
