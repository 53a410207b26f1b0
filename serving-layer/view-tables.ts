/**
 * The two tables of one view version in the serving engine: cells of the speed state, by epoch and block, and cells of published
 * parts. Invariant: rows are changed only inside one transaction of the table's single writer, so that a query's snapshot
 * shows each side as it was planned.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine, Session } from '../engine/engine.ts'
import { loadList } from '../lake/delta-schema.ts'
import { parquetSource } from '../lake/scan.ts'
import { cellColumns, cellTableColumns, unpackSql } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { Block } from '../model/ports/speed-store.ts'
import type { View } from '../model/view.ts'

export type SpeedChange = {
  /** Local number of the epoch. */
  epoch: number
  /** Blocks to be put in, in place of those of the same id. */
  put: Block[]
  /** Ids whose rows are to go. */
  gone: string[]
}

export type ViewTables = {
  speed: string
  batch: string
  names: string
  /** Grows before every change: a statement during which it stood still saw one state of both tables. */
  changes(): number
  changeSpeed(changes: SpeedChange[], dropEpochs: number[]): Promise<void>
  loadPart(part: number, path: string): Promise<void>
  dropParts(parts: number[]): Promise<void>
  close(): Promise<void>
}

const LOAD_BYTES = 16 * 1024 * 1024
const SMALL_BYTES = 1024 * 1024
const REWRITE_ROWS = 50_000

let serial = 0

export const openViewTables = async (engine: Engine, view: View): Promise<ViewTables> => {
  const session = await engine.session()
  const id = serial++
  const speed = `serving_speed_${id}`
  const batch = `serving_batch_${id}`
  const columns = cellTableColumns(view)
  const names = cellColumns(view)
    .map((c) => ident(c.name))
    .join(', ')
  const deleted = { [speed]: 0, [batch]: 0 }
  let changes = 0
  const list = `${columns}${columns ? ', ' : ''}`
  await session.run(`CREATE TABLE ${speed} (${list}_epoch INTEGER, _block VARCHAR)`)
  await session.run(`CREATE TABLE ${batch} (${list}_part INTEGER)`)

  const remove = async (table: string, where: string): Promise<void> => {
    const [row] = await session.rows<{ Count: string }>(`DELETE FROM ${table} WHERE ${where}`)
    deleted[table]! += Number(row?.Count ?? 0)
  }
  /** Deleted rows keep their place until the table is written anew. */
  const tidy = async (table: string): Promise<void> => {
    if (deleted[table]! < REWRITE_ROWS) return
    const [row] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${table}`)
    if (deleted[table]! < 2 * Number(row!.n)) return
    await session.run(`CREATE OR REPLACE TABLE ${table} AS SELECT * FROM ${table}`)
    deleted[table] = 0
  }
  const transaction = async (run: () => Promise<void>): Promise<void> => {
    await session.run('BEGIN TRANSACTION')
    try {
      await run()
      await session.run('COMMIT')
    } catch (error) {
      await session.run('ROLLBACK').catch(() => undefined)
      throw error
    }
  }

  return {
    speed,
    batch,
    names,
    changes: () => changes,
    changeSpeed: async (wanted, dropEpochs) => {
      changes++
      const puts = wanted.flatMap((c) => c.put.map((block) => ({ epoch: c.epoch, block })))
      await transaction(async () => {
        if (dropEpochs.length > 0) await remove(speed, `_epoch IN (${dropEpochs.join(', ')})`)
        for (const { epoch, put, gone } of wanted) {
          const ids = [...put.map((b) => b.id), ...gone]
          for (let i = 0; i < ids.length; i += 1_000)
            await remove(
              speed,
              `_epoch = ${epoch} AND _block IN (${ids
                .slice(i, i + 1_000)
                .map(literal)
                .join(', ')})`,
            )
        }
        for (let i = 0; i < puts.length; ) {
          let end = i
          for (let bytes = 0; end < puts.length && (end === i || bytes < LOAD_BYTES); end++)
            bytes += puts[end]!.block.bytes.byteLength
          await insertBlocks(engine, session, view, speed, names, puts.slice(i, end))
          i = end
        }
      })
      await tidy(speed)
    },
    loadPart: async (part, path) => {
      changes++
      const source = parquetSource([{ path, sha256: '' }])
      await session.run(`INSERT INTO ${batch} SELECT ${loadList(cellColumns(view))}, ${part} AS _part FROM ${source}`)
    },
    dropParts: async (parts) => {
      changes++
      if (parts.length > 0) await remove(batch, `_part IN (${parts.join(', ')})`)
      await tidy(batch)
    },
    close: async () => {
      changes++
      await session.run(`DROP TABLE IF EXISTS ${speed}`).catch(() => undefined)
      await session.run(`DROP TABLE IF EXISTS ${batch}`).catch(() => undefined)
      session.close()
    },
  }
}

const insertBlocks = async (
  engine: Engine,
  session: Session,
  view: View,
  table: string,
  names: string,
  puts: { epoch: number; block: Block }[],
): Promise<void> => {
  const small = puts.reduce((sum, p) => sum + p.block.bytes.byteLength, 0) < SMALL_BYTES
  const file = join(engine.scratchDir, `follow-${crypto.randomUUID()}.ndjson`)
  try {
    const bytes = Buffer.concat(puts.map((p) => p.block.bytes))
    // A small file in memory is written sooner than it is handed to another thread.
    if (small) writeFileSync(file, bytes)
    else await writeFile(file, bytes)
    if (puts.length === 1) {
      const { epoch, block } = puts[0]!
      await session.run(
        `INSERT INTO ${table} SELECT ${names}, ${epoch}, ${literal(block.id)} FROM (${unpackSql(view, file)})`,
      )
      return
    }
    // The blocks stand one after the other in the file: a line's number tells its block.
    let line = 0
    const starts = puts.map(({ epoch, block }) => {
      const start = line
      for (const byte of block.bytes) if (byte === 10) line++
      return `(${start}, ${epoch}, ${literal(block.id)})`
    })
    const cells = `(SELECT *, row_number() OVER () - 1 AS _line FROM (${unpackSql(view, file)}))`
    const columns = names ? `${names}, ` : ''
    await session.run(
      `INSERT INTO ${table} SELECT ${columns}start._epoch, start._block FROM ${cells} cell ASOF JOIN (VALUES ${starts.join(', ')}) start(_first, _epoch, _block) ON cell._line >= start._first`,
    )
  } finally {
    if (small) rmSync(file, { force: true })
    else await rm(file, { force: true })
  }
}
