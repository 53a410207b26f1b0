/**
 * `events/<dataset>`: every decoded event of the log, duplicates marked, partitioned by UTC append date.
 * Invariants: an append is a compare-and-set on the partition's position (log id, offset, fingerprint), and that position moves in
 * the same commit as its files (rule 13), also for a range without rows; counters move with it and are checked against the rows.
 */
import type { Session } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'
import type { Archived } from '../model/ports/history.ts'
import { type Cut, type Position, samePosition } from '../model/position.ts'
import { discard, otherSchema, type WrittenFile, writeDataFile } from './data-file.ts'
import type { Action } from './delta-actions.ts'
import { schemaFields, schemaString, storeList, type TableColumn } from './delta-schema.ts'
import type { Snapshot } from './delta-snapshot.ts'
import { type DeltaContext, type DeltaTable, openDeltaTable } from './delta-table.ts'
import {
  APPEND_DATE,
  archivedOf,
  archivedPartitions,
  FORMAT_VERSION,
  fileColumns,
  LOG_ID,
  positionActions,
  scanColumns,
  tableColumns,
} from './events-schema.ts'
import { type LiveFile, liveFiles } from './live-files.ts'
import { notArchived, openFiles, otherLog, rangesOf, type Scan, scanSql } from './scan.ts'

export type Append = {
  partition: number
  from: Position
  to: Position
  /** Cumulative over the partition, after this range. */
  counted: number
  duplicate: number
  dead: number
  /** Usable after FROM in `session`, a table or a SELECT in parentheses that gives the same rows each time: declared columns, _partition, _offset, _index, _append_time (effective), _record_id,
   *  _fingerprint, _duplicate, _extra; only rows of `[from, to)`; may be empty. */
  table: string
  session: Session
}

export type EventsTable = {
  dataset: Dataset
  delta: DeltaTable
  /** 'stale': the lake's position is not `from`; nothing was committed. Throws WEIR_LAKE_OTHER_LOG, WEIR_LAKE_SCHEMA. */
  append(append: Append): Promise<'archived' | 'stale'>
  /** End of the lake for the partition; null before its first commit. */
  archived(partition: number): Promise<(Archived & { watermarkUs: number | null }) | null>
  /** The ends of all partitions. */
  archivedCut(): Promise<Cut>
  files(): Promise<LiveFile[]>
  /**
   * Decoded rows (declared columns and positions) of the records in `[from, below)` of each partition named in `below`;
   * duplicates left out, or with `duplicates: true` kept and marked in a column `_duplicate`.
   * Throws WEIR_LAKE_NOT_ARCHIVED beyond the lake's end, WEIR_LAKE_CORRUPT for a damaged file.
   */
  scan(range: { below: Cut; from?: Cut; duplicates?: boolean }): Promise<Scan>
}

/** Throws unless the table was written with exactly these columns. */
export const checkSchema = (root: string, snapshot: Snapshot, columns: TableColumn[]): void => {
  const print = (text: string): string =>
    schemaFields(text)
      .map((f) => `${f.name} ${f.type}`)
      .join(', ')
  const [got, expected] = [print(snapshot.metaData.schemaString), print(schemaString(columns))]
  if (got !== expected) throw otherSchema(root, expected, got)
}

/** Protocol and metadata of a new table of ours. */
export const creation = (
  name: string,
  columns: TableColumn[],
  partitionColumns: string[],
  configuration: Record<string, string>,
  nowMs: number,
): Action[] => [
  { protocol: { minReaderVersion: 1, minWriterVersion: 2 } },
  {
    metaData: {
      id: crypto.randomUUID(),
      name,
      format: { provider: 'parquet', options: {} },
      schemaString: schemaString(columns),
      partitionColumns,
      configuration: { [FORMAT_VERSION]: '1', ...configuration },
      createdTime: Math.trunc(nowMs),
    },
  },
]

/** Refuses tables of a newer release. */
export const checkFormat = (root: string, snapshot: Snapshot): void => {
  const version = snapshot.metaData.configuration[FORMAT_VERSION]
  if (version !== undefined && version !== '1')
    throw new WeirError({
      code: 'WEIR_LAKE_FORMAT',
      message: `The table ${root} has a format of a newer release.`,
      expected: `${FORMAT_VERSION} 1`,
      got: version,
      next: 'start the release that wrote it, or a later one',
    })
}

/** Days since 1970, UTC: integer arithmetic, much cheaper than a zone conversion per row. */
const UTC_DAY = '(epoch_us(_append_time) // 86400000000)'

type DayRow = { day: string; counted: string; duplicate: string; watermark: string | null; low: string; high: string }

export const openEventsTable = (context: DeltaContext, dataset: Dataset): EventsTable => {
  const { store } = context
  const root = `events/${dataset.name}`
  const delta = openDeltaTable(context, root)
  const columns = fileColumns(dataset)

  const current = async (logId?: string): Promise<Snapshot | null> => {
    const snapshot = await delta.snapshot()
    if (snapshot !== null) check(snapshot, logId)
    return snapshot
  }
  const check = (snapshot: Snapshot, logId?: string): void => {
    checkFormat(root, snapshot)
    checkSchema(root, snapshot, tableColumns(dataset))
    const stored = snapshot.metaData.configuration[LOG_ID] ?? ''
    if (logId !== undefined && stored !== logId) throw otherLog(dataset.name, stored, logId)
  }

  const append = async (a: Append): Promise<'archived' | 'stale'> => {
    if (a.to.logId !== a.from.logId || a.to.offset < a.from.offset)
      throw new RangeError(`not a range: ${a.from.offset} to ${a.to.offset}`)
    const fits = (snapshot: Snapshot | null): boolean => {
      if (snapshot !== null) check(snapshot, a.from.logId)
      const archived = snapshot && archivedOf(snapshot, dataset.name, a.partition)
      return archived ? samePosition(archived.position, a.from) : a.from.offset === 0 && a.from.fingerprint === ''
    }
    const before = await delta.snapshot()
    if (!fits(before)) return 'stale'
    if (samePosition(a.from, a.to)) return 'archived'
    const previous = before && archivedOf(before, dataset.name, a.partition)
    const written: WrittenFile[] = []
    let outcome: 'archived' | 'stale' | 'unknown' = 'unknown'
    try {
      const days = await daysOf(a)
      checkCounters(a, days, previous)
      for (const day of days) written.push(...(await writeDay(a, day, days.length === 1)))
      const marks = [
        previous?.watermarkUs ?? null,
        ...days.map((d) => (d.watermark === null ? null : Number(d.watermark))),
      ]
      const known = marks.filter((m): m is number => m !== null && Number.isSafeInteger(m))
      const nowMs = context.now()
      const committed = await delta.commit('WRITE', (snapshot) => {
        if (!fits(snapshot)) return null
        return [
          ...(snapshot === null
            ? creation(dataset.name, tableColumns(dataset), [APPEND_DATE], { [LOG_ID]: a.from.logId }, nowMs)
            : []),
          ...positionActions(
            dataset.name,
            a.partition,
            a.to,
            {
              counted: a.counted,
              duplicate: a.duplicate,
              dead: a.dead,
              watermarkUs: known.length ? Math.max(...known) : null,
            },
            nowMs,
          ),
          ...written.map((file): Action => ({ add: file.add })),
        ]
      })
      outcome = committed === null ? 'stale' : 'archived'
      return outcome
    } finally {
      // After an error the commit may still stand: those files are left to vacuum.
      if (outcome === 'stale') await discard(store, written)
    }
  }

  /** One row per UTC append date in the range, with its counts. */
  const daysOf = (a: Append): Promise<DayRow[]> =>
    a.session.rows<DayRow>(
      `SELECT ${UTC_DAY} AS day,
         count(*) FILTER (NOT _duplicate) AS counted, count(*) FILTER (_duplicate) AS duplicate,
         epoch_us(max(${ident(dataset.eventTime)}) FILTER (NOT _duplicate AND ${ident(dataset.eventTime)} <= _append_time)) AS watermark,
         min(CASE WHEN _partition = ${a.partition} THEN _offset ELSE -1 END) AS low, max(_offset) AS high
       FROM ${a.table} GROUP BY 1 ORDER BY 1`,
    )

  const checkCounters = (a: Append, days: DayRow[], previous: Archived | null): void => {
    const sum = (key: 'counted' | 'duplicate'): number => days.reduce((n, d) => n + Number(d[key]), 0)
    const bad =
      days.some((d) => Number(d.low) < a.from.offset || Number(d.high) >= a.to.offset) ||
      (previous?.counted ?? 0) + sum('counted') !== a.counted ||
      (previous?.duplicate ?? 0) + sum('duplicate') !== a.duplicate ||
      (previous?.dead ?? 0) > a.dead
    if (bad)
      throw new WeirError({
        code: 'WEIR_LAKE_COUNTERS',
        message: `An archive of ${dataset.name}, partition ${a.partition}, does not add up with its rows.`,
        expected: `rows of [${a.from.offset}, ${a.to.offset}) and, after them, ${a.counted} counted and ${a.duplicate} duplicates`,
        got: `${(previous?.counted ?? 0) + sum('counted')} counted, ${(previous?.duplicate ?? 0) + sum('duplicate')} duplicates; days ${JSON.stringify(days)}`,
        next: 'this is a defect in the archiver: it must begin anew from the lake',
      })
  }

  const writeDay = async (a: Append, day: DayRow, only: boolean): Promise<WrittenFile[]> => {
    const date = new Date(Number(day.day) * 86_400_000).toISOString().slice(0, 10)
    const file = await writeDataFile(store, a.session, {
      root,
      folder: `${APPEND_DATE}=${date}/`,
      name: `p${a.partition}-${a.from.offset}-${a.to.offset}`,
      select: `SELECT ${storeList(columns)} FROM ${a.table}${only ? '' : ` WHERE ${UTC_DAY} = ${Number(day.day)}`}`,
      columns,
      partitionValues: { [APPEND_DATE]: date },
      tags: {
        partition: String(a.partition),
        from: String(a.from.offset),
        to: String(a.to.offset),
        counted: String(Number(day.counted)),
        duplicate: String(Number(day.duplicate)),
        ...(day.watermark === null ? {} : { watermarkUs: day.watermark }),
      },
      dataChange: true,
      nowMs: context.now(),
    })
    return file === null ? [] : [file]
  }

  return {
    dataset,
    delta,
    append,
    archived: async (partition) => {
      const snapshot = await current()
      return snapshot && archivedOf(snapshot, dataset.name, partition)
    },
    archivedCut: async () => {
      const snapshot = await current()
      if (snapshot === null) return {}
      return Object.fromEntries(
        archivedPartitions(snapshot, dataset.name).map((p) => [
          String(p),
          archivedOf(snapshot, dataset.name, p)!.position,
        ]),
      )
    },
    files: async () => {
      const snapshot = await current()
      return snapshot === null ? [] : liveFiles(root, snapshot)
    },
    scan: async ({ below, from, duplicates }) => {
      const snapshot = await current()
      const ranges = rangesOf(below, from)
      for (const range of ranges) {
        const archived = snapshot && archivedOf(snapshot, dataset.name, range.partition)
        const { logId } = below[String(range.partition)]!
        if (archived && archived.position.logId !== logId) throw otherLog(dataset.name, archived.position.logId, logId)
        if (range.to > (archived?.position.offset ?? 0))
          throw notArchived(dataset.name, range.partition, range.to, archived?.position.offset ?? 0)
      }
      const files = snapshot === null ? [] : await openFiles(store, liveFiles(root, snapshot), ranges)
      const wanted = duplicates
        ? [...scanColumns(dataset), { name: '_duplicate', type: 'BOOLEAN' }]
        : scanColumns(dataset)
      const sqlOf: Scan['sqlOf'] = (some) => scanSql(some, wanted, ranges, duplicates ? undefined : 'NOT _duplicate')
      return { files, ranges, sql: sqlOf(files), sqlOf }
    },
  }
}
