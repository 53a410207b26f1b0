/** Columns of `events/<dataset>` and the position kept in its transactions. Pure. */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { Archived } from '../model/ports/history.ts'
import type { Position } from '../model/position.ts'
import type { Action } from './delta-actions.ts'
import type { TableColumn } from './delta-schema.ts'
import type { Snapshot } from './delta-snapshot.ts'

export const APPEND_DATE = '_append_date'
export const LOG_ID = 'weir.logId'
export const FORMAT_VERSION = 'weir.formatVersion'

/** Position columns of decoded rows. */
export const positionColumns: TableColumn[] = [
  { name: '_partition', type: 'BIGINT' },
  { name: '_offset', type: 'BIGINT' },
  { name: '_index', type: 'BIGINT' },
  { name: '_append_time', type: 'TIMESTAMPTZ' },
]

/** What a scan gives: declared columns and positions. */
export const scanColumns = (dataset: Dataset): TableColumn[] => [
  ...dataset.columns.map((c) => ({ name: c.name, type: c.type })),
  ...positionColumns,
]

/** What the files hold. */
export const fileColumns = (dataset: Dataset): TableColumn[] => [
  ...scanColumns(dataset),
  { name: '_record_id', type: 'VARCHAR' },
  { name: '_fingerprint', type: 'VARCHAR' },
  { name: '_duplicate', type: 'BOOLEAN' },
  { name: '_extra', type: 'VARCHAR' },
]

/** The table's schema: what the files hold, and the date of the folder they lie in. */
export const tableColumns = (dataset: Dataset): TableColumn[] => [
  ...fileColumns(dataset),
  { name: APPEND_DATE, type: 'DATE' },
]

const kinds = ['counted', 'duplicate', 'dead', 'effective', 'fp-hi', 'fp-lo'] as const

const txnId = (kind: string, dataset: string, partition: number): string => `${kind}/${dataset}/${partition}`

/** A fingerprint as two 32-bit numbers; -1 for the empty one (nothing before). */
const half = (fingerprint: string, part: 0 | 1): number => {
  if (fingerprint === '') return -1
  if (!/^[0-9a-f]{16}$/.test(fingerprint))
    throw new WeirError({
      code: 'WEIR_LAKE_FINGERPRINT',
      message: `A position has a malformed fingerprint: ${fingerprint}`,
      expected: '16 hex digits, or nothing at the beginning of a log',
      got: fingerprint,
      next: 'this is a defect in the log adapter',
    })
  return Number.parseInt(fingerprint.slice(part * 8, part * 8 + 8), 16)
}

/** Transactions that move a partition to `to`: position, counters and watermark, in the commit of the files. */
export const positionActions = (
  dataset: string,
  partition: number,
  to: Position,
  counters: { counted: number; duplicate: number; dead: number; watermarkUs: number | null },
  nowMs: number,
): Action[] => {
  const lastUpdated = Math.trunc(nowMs)
  const txn = (kind: string, version: number): Action => ({
    txn: { appId: txnId(kind, dataset, partition), version, lastUpdated },
  })
  return [
    txn('archive', to.offset),
    txn('counted', counters.counted),
    txn('duplicate', counters.duplicate),
    txn('dead', counters.dead),
    txn('effective', Math.trunc(to.effectiveMs)),
    txn('fp-hi', half(to.fingerprint, 0)),
    txn('fp-lo', half(to.fingerprint, 1)),
    ...(counters.watermarkUs === null ? [] : [txn('watermark', counters.watermarkUs)]),
  ]
}

/** End of the lake for a partition; null before its first archive commit. */
export const archivedOf = (
  snapshot: Snapshot,
  dataset: string,
  partition: number,
): (Archived & { watermarkUs: number | null }) | null => {
  const get = (kind: string): number | undefined => snapshot.txns.get(txnId(kind, dataset, partition))
  const offset = get('archive')
  if (offset === undefined) return null
  const values = Object.fromEntries(kinds.map((kind) => [kind, get(kind)])) as Record<(typeof kinds)[number], number>
  if (kinds.some((kind) => values[kind] === undefined))
    throw new WeirError({
      code: 'WEIR_LAKE_CORRUPT',
      message: `The table events/${dataset} has lost a part of partition ${partition}'s position.`,
      expected: `transactions ${kinds.join(', ')} beside archive`,
      next: 'restore the table log from a copy',
    })
  const hex = (n: number): string => n.toString(16).padStart(8, '0')
  return {
    position: {
      logId: snapshot.metaData.configuration[LOG_ID] ?? '',
      offset,
      fingerprint: values['fp-hi'] < 0 ? '' : hex(values['fp-hi']) + hex(values['fp-lo']),
      effectiveMs: values.effective,
    },
    counted: values.counted,
    duplicate: values.duplicate,
    dead: values.dead,
    watermarkUs: get('watermark') ?? null,
  }
}

/** Partitions that have an archive commit. */
export const archivedPartitions = (snapshot: Snapshot, dataset: string): number[] =>
  [...snapshot.txns.keys()]
    .flatMap((id) => (id.startsWith(`archive/${dataset}/`) ? [Number(id.slice(`archive/${dataset}/`.length))] : []))
    .filter(Number.isSafeInteger)
    .sort((a, b) => a - b)
