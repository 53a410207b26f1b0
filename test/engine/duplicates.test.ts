/**
 * De-duplication: over random logs, with random splits, clocks that step back, dead events, batches that fail and are tried
 * again, and rebuilds at random positions, the map's verdicts equal one `lag` over the whole log.
 */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { decodeBatch } from '../../engine/decode.ts'
import { duplicatesSql, findDuplicates } from '../../engine/duplicates.ts'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import { rebuildSeen } from '../../engine/rebuild-seen.ts'
import type { Dataset } from '../../model/dataset.ts'
import { createSeen, RECORD_WINDOW_MS, type Seen } from '../../model/decode/seen.ts'
import type { EventLog, LogRecord } from '../../model/ports/event-log.ts'
import type { History } from '../../model/ports/history.ts'
import { genesis, type Position } from '../../model/position.ts'
import { type Random, randomOf } from '../decode/odd-values.ts'

vi.setConfig({ testTimeout: 240_000 })
const SCHEDULES = Number(process.env.WEIR_DEDUPE_SCHEDULES ?? 12)
const SEED = Number(process.env.WEIR_SEED ?? 7)
const WINDOW = 5_000

const dataset: Dataset = {
  name: 'd',
  columns: [
    { name: 'id', type: 'VARCHAR', required: false },
    { name: 'ts', type: 'TIMESTAMPTZ', required: false },
  ],
  eventTime: 'ts',
  eventTimeRangeUs: { from: 0n, to: 7_258_118_400_000_000n },
  id: 'id',
  dedupeWindowMs: WINDOW,
  extra: 'keep',
  partitions: 1,
}

let engine: Engine
let session: Session
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
  session = await engine.session()
})
afterAll(async () => {
  session.close()
  await engine.close()
})

const IDS = ['a', 'b', 'c', 'd', 'é', '\ufeffa', '😀', '', '\u0000', 'x'.repeat(40), '1', '1.0']

type Log = { records: LogRecord[]; positions: Position[] }

/** A log of small records; times go forward by steps of the size of the windows, and now and then back. */
const logOf = (r: Random, size: number): Log => {
  const records: LogRecord[] = []
  const positions: Position[] = [genesis('log')]
  let clock = 1_700_000_000_000
  let effective = 0
  for (let offset = 0; offset < size; offset++) {
    const step = r()
    clock +=
      step < 0.1
        ? -Math.floor(r() * 10_000)
        : step < 0.13
          ? Math.floor(r() * 2 * RECORD_WINDOW_MS)
          : Math.floor(r() * 1_500)
    if (r() < 0.03) clock = effective + WINDOW - 1 + Math.floor(r() * 3)
    const events = 1 + Math.floor(r() * 4)
    const allDead = r() < 0.05
    const lines = Array.from({ length: events }, () => {
      const dead = r()
      if (allDead || dead < 0.05) return dead < 0.02 ? 'nonsense' : '{"id":"a","ts":"never"}'
      return JSON.stringify({ id: IDS[Math.floor(r() * IDS.length)], ts: '2024-01-01T00:00:00Z' })
    })
    const again = r() < 0.08 ? records[Math.floor(r() * records.length)] : undefined
    const bytes = again?.bytes ?? Buffer.from(`${lines.join('\n')}\n`)
    const recordId = again?.recordId ?? createHash('sha256').update(`${offset} ${r()}`).digest('hex').slice(0, 32)
    const fingerprint = createHash('sha256').update(`fp ${offset} ${r()}`).digest('hex').slice(0, 16)
    effective = Math.max(effective, clock)
    records.push({ recordId, bytes, events: again?.events ?? events, offset, appendTimeMs: clock, fingerprint })
    positions.push({ logId: 'log', offset: offset + 1, fingerprint, effectiveMs: effective })
  }
  return { records, positions }
}

const reader = ({ records, positions }: Log): EventLog =>
  ({
    read: async (_d: string, _p: number, from: Position, limits: { maxBytes: number }) => {
      // Reads are cut anywhere, and reach beyond what a rebuild needs.
      const some = records.slice(from.offset, from.offset + 1 + (limits.maxBytes % 7))
      return { kind: 'records', records: some, to: positions[from.offset + some.length]!, logEndOffset: records.length }
    },
  }) as unknown as EventLog

/** What a lake that is archived up to `end` answers, from the decoded table `whole`. */
const historyOf = ({ positions }: Log, end: number): History =>
  ({
    archived: async () => (end === 0 ? null : { position: positions[end]!, counted: 0, duplicate: 0, dead: 0 }),
    positionAt: async (_d: string, _p: number, offset: number) => positions[offset]!,
    window: async (_d: string, _p: number, offset: number, sinceMs: number) => {
      const of = async (key: string) =>
        (
          await session.rows<{ id: string; t: string }>(
            `SELECT ${key} AS id, max(epoch_ms(_append_time)) AS t FROM whole WHERE _offset < ${offset} AND epoch_ms(_append_time) > ${sinceMs} GROUP BY 1`,
          )
        ).map((row) => ({ id: row.id, effectiveMs: Number(row.t) }))
      return { events: await of('id'), records: await of('_record_id') }
    },
  }) as unknown as History

/** The whole log decoded into `whole`, and the reference verdicts by `offset/index`. */
const reference = async (log: Log): Promise<Map<string, boolean>> => {
  const times = log.records.map((_, i) => log.positions[i + 1]!.effectiveMs)
  await decodeBatch(engine, session, dataset, log.records, {
    table: 'decoded',
    positions: { partition: 0, offsets: log.records.map((r) => r.offset), effectiveMs: times },
  })
  const ids = log.records.map((r) => `'${r.recordId}'`).join(',')
  await session.run(
    `CREATE OR REPLACE TEMP TABLE whole AS SELECT *, ([${ids}])[_offset + 1] AS _record_id FROM decoded`,
  )
  const rows = await session.rows<{ _offset: string; _index: string; _duplicate: boolean }>(
    duplicatesSql(dataset, 'whole'),
  )
  return new Map(rows.map((row) => [`${row._offset}/${row._index}`, row._duplicate]))
}

type Faults = { feedBeforeApplied?: boolean; rawTimes?: boolean; ignoreRecords?: boolean }

/** Plays a log through the map and returns the places where its verdict is not the reference's. */
const play = async (r: Random, log: Log, faults: Faults = {}): Promise<string[]> => {
  const wanted = await reference(log)
  const wrong: string[] = []
  let seen: Seen = createSeen(log.positions[0]!, { capacity: 10_000, windowMs: WINDOW })
  while (seen.position.offset < log.records.length) {
    const from = seen.position.offset
    const size = 1 + Math.floor(r() * 12)
    const records = log.records.slice(from, from + size)
    const to = log.positions[from + records.length]!
    await decodeBatch(engine, session, dataset, records, {
      table: 'batch',
      columns: [],
      positions: {
        partition: 0,
        offsets: records.map((x) => x.offset),
        effectiveMs: records.map((x) => log.positions[x.offset + 1]!.effectiveMs),
      },
    })
    const times = records.map((x) => ({
      recordId: faults.ignoreRecords ? x.fingerprint.repeat(2) : x.recordId,
      effectiveMs: faults.rawTimes ? x.appendTimeMs : log.positions[x.offset + 1]!.effectiveMs,
    }))
    const failed = r() < 0.2
    const { rows, change } = await findDuplicates(session, dataset, 'batch', times, seen)
    if (failed) {
      // The commit was refused: the same records come again, perhaps in another split.
      if (faults.feedBeforeApplied) seen.accept(change, seen.position)
      continue
    }
    const duplicates = new Set(rows)
    const got = await session.columns('SELECT _row, _offset, _index FROM batch')
    for (const [i, row] of (got[0] as bigint[]).entries()) {
      const place = `${got[1]![i]}/${got[2]![i]}`
      if (wanted.get(place) !== duplicates.has(Number(row))) wrong.push(place)
    }
    seen.accept(change, to)
    if (r() < 0.15) {
      const archived = Math.floor(r() * (log.records.length + 1))
      const ctx = { engine, log: reader(log), history: historyOf(log, archived) }
      seen = await rebuildSeen(ctx, dataset, 0, to, 10_000)
    }
  }
  return wrong
}

test(`${SCHEDULES} random logs: the map's verdicts are those of one lag over the whole log`, async () => {
  let duplicates = 0
  for (let i = 0; i < SCHEDULES; i++) {
    const r = randomOf(SEED + i)
    const log = logOf(r, 120)
    expect(await play(r, log), `seed ${SEED + i}`).toEqual([])
    duplicates += [...(await reference(log)).values()].filter((d) => d).length
  }
  expect(duplicates).toBeGreaterThan(SCHEDULES * 10)
})

test('planted faults are seen', async () => {
  for (const faults of [{ feedBeforeApplied: true }, { rawTimes: true }, { ignoreRecords: true }]) {
    let wrong = 0
    for (let i = 0; i < 5 && wrong === 0; i++) {
      const r = randomOf(SEED + i)
      wrong += (await play(r, logOf(r, 120), faults)).length
    }
    expect(wrong, JSON.stringify(faults)).toBeGreaterThan(0)
  }
})

test('a map at another history is refused, and a log that is gone is named', async () => {
  const log = logOf(randomOf(SEED), 20)
  await reference(log)
  const other = { ...log.positions[10]!, fingerprint: 'f'.repeat(16) }
  for (const archived of [15, 5, 0]) {
    const ctx = { engine, log: reader(log), history: historyOf(log, archived) }
    await expect(rebuildSeen(ctx, dataset, 0, other, 100)).rejects.toMatchObject({ code: 'WEIR_DECODE_SEEN_POSITION' })
  }
  const gone = { read: async () => ({ kind: 'below-start', startOffset: 3 }) } as unknown as EventLog
  const ctx = { engine, log: gone, history: historyOf(log, 0) }
  await expect(rebuildSeen(ctx, dataset, 0, log.positions[10]!, 100)).rejects.toMatchObject({
    code: 'WEIR_DECODE_SEEN_LOG',
  })
})
