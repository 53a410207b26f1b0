/**
 * Port `History` over the lake's tables. Invariant: every answer is a function of the archived records alone, and nothing is
 * read beyond the offset that was asked for.
 */
import { idColumn } from '../engine/duplicates.ts'
import type { Engine } from '../engine/engine.ts'
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import { ident } from '../model/ident.ts'
import type { History, SeenHashes } from '../model/ports/history.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { genesis } from '../model/position.ts'
import type { DeadTable } from './dead-table.ts'
import { fileColumns } from './events-schema.ts'
import type { EventsTable } from './events-table.ts'
import { whollyBelow } from './live-files.ts'
import { notArchived, openFiles, scanSql } from './scan.ts'

/** A record id's 32 hex digits as one number. */
const RECORD_NUMBER = `('0x' || _record_id[:16])::UBIGINT::UHUGEINT * 18446744073709551616::UHUGEINT + ('0x' || _record_id[17:])::UBIGINT`

type Tables = { dataset: Dataset; events: EventsTable; dead: DeadTable }

/** Answers for the given datasets; another name is WEIR_LAKE_DATASET. */
export const historyOf = (
  store: ObjectStore,
  engine: Engine,
  tables: (name: string) => Tables | undefined,
): History => {
  const of = (name: string): Tables => {
    const found = tables(name)
    if (found) return found
    throw new WeirError({
      code: 'WEIR_LAKE_DATASET',
      message: `The lake was opened without the dataset ${name}.`,
      expected: 'a dataset of the project',
      got: name,
      next: 'check the name, or add datasets/<name>.yaml',
    })
  }

  const archived: History['archived'] = async (name, partition) => {
    const found = await of(name).events.archived(partition)
    return found && { position: found.position, counted: found.counted, duplicate: found.duplicate, dead: found.dead }
  }

  /** Throws WEIR_LAKE_NOT_ARCHIVED unless the lake holds all records below the offset. */
  const end = async (name: string, partition: number, offset: number) => {
    const found = await of(name).events.archived(partition)
    if (offset > (found?.position.offset ?? 0)) throw notArchived(name, partition, offset, found?.position.offset ?? 0)
    return found
  }

  return {
    archived,
    positionAt: async (name, partition, offset) => {
      const { events, dead, dataset } = of(name)
      const found = await events.archived(partition)
      if (found === null || offset > found.position.offset) return null
      const { logId } = found.position
      if (offset === 0) return genesis(logId)
      if (offset === found.position.offset) return found.position
      const range = { partition, from: offset - 1, to: offset }
      const files = await openFiles(store, await events.files(), [range])
      if (files.length > 0) {
        const [row] = await engine.withSession((session) =>
          session.rows<{ f: string; t: string }>(
            `SELECT _fingerprint AS f, epoch_ms(_append_time) AS t FROM ${scanSql(files, fileColumns(dataset), [range])} LIMIT 1`,
          ),
        )
        if (row) return { logId, offset, fingerprint: row.f, effectiveMs: Number(row.t) }
      }
      const letter = await dead.recordAt(partition, offset - 1)
      return letter && { logId, offset, ...letter }
    },
    countsBelow: async (name, partition, offset) => {
      const { events, dead, dataset } = of(name)
      const found = await end(name, partition, offset)
      if (found === null || offset === 0) return { counted: 0, duplicate: 0, dead: 0, watermarkUs: null }
      if (offset === found.position.offset)
        return {
          counted: found.counted,
          duplicate: found.duplicate,
          dead: found.dead,
          watermarkUs: found.watermarkUs === null ? null : String(found.watermarkUs),
        }
      const live = await events.files()
      const whole = live.filter(
        (f) => whollyBelow(f, partition, offset) && f.counted !== undefined && f.duplicate !== undefined,
      )
      let counted = whole.reduce((n, f) => n + f.counted!, 0)
      let duplicate = whole.reduce((n, f) => n + f.duplicate!, 0)
      const marks = whole.flatMap((f) => (f.watermarkUs === null || f.watermarkUs === undefined ? [] : [f.watermarkUs]))
      const range = { partition, from: 0, to: offset }
      const rest = await openFiles(
        store,
        live.filter((f) => !whole.includes(f)),
        [range],
      )
      if (rest.length > 0) {
        const time = ident(dataset.eventTime)
        const [row] = await engine.withSession((session) =>
          session.rows<{ counted: string; duplicate: string; watermark: string | null }>(
            `SELECT count(*) FILTER (NOT _duplicate) AS counted, count(*) FILTER (_duplicate) AS duplicate,
               epoch_us(max(${time}) FILTER (NOT _duplicate AND ${time} <= _append_time)) AS watermark
             FROM ${scanSql(rest, fileColumns(dataset), [range])}`,
          ),
        )
        counted += Number(row!.counted)
        duplicate += Number(row!.duplicate)
        if (row!.watermark !== null) marks.push(Number(row!.watermark))
      }
      return {
        counted,
        duplicate,
        dead: await dead.countBelow(partition, offset),
        watermarkUs: marks.length === 0 ? null : String(marks.reduce((a, b) => Math.max(a, b))),
      }
    },
    window: async (name, partition, offset, sinceMs) => {
      const { events, dataset } = of(name)
      await end(name, partition, offset)
      const since = Math.trunc(sinceMs)
      const range = { partition, from: 0, to: offset }
      // Rows of a closed date before `since` cannot be later than it: the folder's date prunes.
      const day = new Date(Math.max(since, 0)).toISOString().slice(0, 10)
      const live = (await events.files()).filter((f) => f.appendDate === null || f.appendDate >= day)
      const files = await openFiles(store, live, [range])
      if (files.length === 0) return { events: [], records: [] }
      const source = scanSql(files, fileColumns(dataset), [range], `_append_time > make_timestamptz(${since} * 1000)`)
      // As numbers in typed arrays: an object per id would be more than a gigabyte for ten million of them, at each start.
      const seen = (hash: string, of: string): Promise<SeenHashes> =>
        engine.withSession(async (session) => {
          const [words, times] = await session.numbers(
            `SELECT ${hash} AS h, epoch_ms(max(_append_time))::DOUBLE AS t FROM ${source} WHERE ${of} IS NOT NULL GROUP BY 1`,
          )
          return times!.length === 0
            ? { words: new Uint32Array(0), effectiveMs: new Float64Array(0) }
            : { words: words as Uint32Array, effectiveMs: times as Float64Array }
        })
      const id = idColumn(dataset)
      return {
        events: id === null ? [] : await seen(`md5_number(${id}::VARCHAR)`, id),
        records: firstWordFirst(await seen(RECORD_NUMBER, '_record_id')),
      }
    },
  }
}

/** A record id is read as one number, whose lowest word comes first; the map keys it by the first eight digits first. */
const firstWordFirst = (hashes: SeenHashes): SeenHashes => {
  const { words } = hashes
  for (let at = 0; at < words.length; at += 4) words.subarray(at, at + 4).reverse()
  return hashes
}
