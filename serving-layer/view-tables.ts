/**
 * The two tables of one view version in the serving engine: cells of the speed state, by block, and cells of published parts.
 * Invariant: a row of the speed table is never changed but for the version at which it ends, and goes only when no reader can
 * ask for it any more: at version v the rows born at or before v and not ended by then are the state that version v had,
 * whatever was put in since. Parts are put in and taken out at once; `changes()` tells.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine, Session } from '../engine/engine.ts'
import { loadList } from '../lake/delta-schema.ts'
import { parquetSource } from '../lake/scan.ts'
import { cellColumns, cellTableColumns, unpackSql } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import type { Block } from '../model/ports/speed-store.ts'
import type { View } from '../model/view.ts'

export type SpeedChange = {
  /** Blocks to be put in, each under a local number of its own and that of its epoch. */
  put: { number: number; epoch: number; block: Block }[]
  /** Local numbers of blocks whose rows end. */
  gone: number[]
}

/** What a reader holds on to: the speed table as it was at one version. */
export type Pin = { version: number; release(): void }

export type ViewTables = {
  speed: string
  batch: string
  /** Grows before every change of the parts: a statement during which it stood still saw one state of them. */
  changes(): number
  /** The newest version of the speed table; its rows stay until the pin is released. */
  pin(): Pin
  /** Condition on the speed table's rows. */
  at(version: number): string
  /** Writes the next version; it is the newest from when `publish` is called, which must be before the next change. */
  changeSpeed(change: SpeedChange): Promise<{ publish(): void }>
  /** To be called now and then, when everything is published. */
  tidySpeed(): Promise<void>
  loadPart(part: number, path: string): Promise<void>
  dropParts(parts: number[]): Promise<void>
  /** Waits for the pins. */
  close(): Promise<void>
}

const LOAD_BYTES = 16 * 1024 * 1024
const SMALL_BYTES = 1024 * 1024
const REWRITE_PARTS = 50_000
/** Ended rows of the speed table that are put up with. */
const REWRITE_ENDED = 8_192
const NEVER = '9223372036854775807'

let serial = 0

export const openViewTables = async (engine: Engine, view: View): Promise<ViewTables> => {
  const session = await engine.session()
  const id = serial++
  const speed = `serving_speed_${id}`
  const batch = `serving_batch_${id}`
  const columns = cellTableColumns(view)
  let deletedParts = 0
  let changes = 0
  let version = 0
  let broken = false
  let [rows, ended] = [0, 0]
  const pins = new Map<number, number>()
  let unpinned: (() => void) | undefined
  const list = `${columns}${columns ? ', ' : ''}`
  await session.run(`CREATE TABLE ${speed} (${list}_block INTEGER, _epoch INTEGER, _born BIGINT, _ended BIGINT)`)
  await session.run(`CREATE TABLE ${batch} (${list}_part INTEGER)`)

  const counted = async (sql: string): Promise<number> => {
    const [row] = await session.rows<{ Count: string }>(sql)
    return Number(row?.Count ?? 0)
  }
  /** Ended rows that nobody can ask for go, when there are many. A statement that runs meanwhile goes on with the old table. */
  const tidySpeed = async (): Promise<void> => {
    if (ended < REWRITE_ENDED || ended < rows - ended) return
    const oldest = Math.min(version, ...pins.keys())
    await session.run(`CREATE OR REPLACE TABLE ${speed} AS SELECT * FROM ${speed} WHERE _ended > ${oldest}`)
    const [row] = await session.rows<{ n: string; e: string }>(
      `SELECT count(*) AS n, count(*) FILTER (WHERE _ended <> ${NEVER}) AS e FROM ${speed}`,
    )
    rows = Number(row!.n)
    ended = Number(row!.e)
  }
  /** Deleted rows keep their place until the table is written anew. */
  const tidyParts = async (): Promise<void> => {
    if (deletedParts < REWRITE_PARTS) return
    const [row] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${batch}`)
    if (deletedParts < 2 * Number(row!.n)) return
    await session.run(`CREATE OR REPLACE TABLE ${batch} AS SELECT * FROM ${batch}`)
    deletedParts = 0
  }

  return {
    speed,
    batch,
    changes: () => changes,
    pin: () => {
      const own = version
      pins.set(own, (pins.get(own) ?? 0) + 1)
      let held = true
      return {
        version: own,
        release: () => {
          if (!held) return
          held = false
          const left = pins.get(own)! - 1
          if (left > 0) pins.set(own, left)
          else pins.delete(own)
          if (pins.size === 0) unpinned?.()
        },
      }
    },
    at: (v) => `_born <= ${v} AND _ended > ${v}`,
    changeSpeed: async ({ put, gone }) => {
      // After a change that failed half way nobody knows which rows are of the next version.
      if (broken) throw new Error('the tables are in an unknown state')
      broken = true
      const next = version + 1
      // Each statement commits by itself: nobody looks at the next version before both are through.
      for (let i = 0; i < put.length; ) {
        let end = i
        for (let bytes = 0; end < put.length && (end === i || bytes < LOAD_BYTES); end++)
          bytes += put[end]!.block.bytes.byteLength
        rows += await insertBlocks(engine, session, view, speed, put.slice(i, end), next)
        i = end
      }
      for (let i = 0; i < gone.length; i += 1_000)
        ended += await counted(
          `UPDATE ${speed} SET _ended = ${next} WHERE _ended = ${NEVER} AND _block IN (${gone.slice(i, i + 1_000).join(', ')})`,
        )
      return {
        publish: () => {
          version = next
          broken = false
        },
      }
    },
    tidySpeed,
    loadPart: async (part, path) => {
      changes++
      const source = parquetSource([{ path, sha256: '' }])
      await session.run(`INSERT INTO ${batch} SELECT ${loadList(cellColumns(view))}, ${part} AS _part FROM ${source}`)
    },
    dropParts: async (parts) => {
      changes++
      if (parts.length > 0) deletedParts += await counted(`DELETE FROM ${batch} WHERE _part IN (${parts.join(', ')})`)
      await tidyParts()
    },
    close: async () => {
      if (pins.size > 0)
        await new Promise<void>((resolve) => {
          unpinned = resolve
        })
      changes++
      await session.run(`DROP TABLE IF EXISTS ${speed}`).catch(() => undefined)
      await session.run(`DROP TABLE IF EXISTS ${batch}`).catch(() => undefined)
      session.close()
    },
  }
}

/** Lines of blocks with the numbers of block and epoch put into each: a packed cell is one line that begins with its brace. */
const numbered = (puts: SpeedChange['put']): Buffer =>
  Buffer.from(
    puts
      .map(({ number, epoch, block }) => {
        const head = `{"b":${number},"e":${epoch},`
        const text = Buffer.from(block.bytes.buffer, block.bytes.byteOffset, block.bytes.byteLength).toString('utf8')
        return `${head}${text.trimEnd().slice(1).replaceAll('\n{', `\n${head}`)}\n`
      })
      .join(''),
    'utf8',
  )

const insertBlocks = async (
  engine: Engine,
  session: Session,
  view: View,
  table: string,
  puts: SpeedChange['put'],
  version: number,
): Promise<number> => {
  const bytes = numbered(puts)
  const small = bytes.byteLength < SMALL_BYTES
  const file = join(engine.scratchDir, `follow-${crypto.randomUUID()}.ndjson`)
  try {
    // A small file in memory is written sooner than it is handed to another thread.
    if (small) writeFileSync(file, bytes)
    else await writeFile(file, bytes)
    // No line is longer than its block.
    const longest = puts.reduce((most, p) => Math.max(most, p.block.bytes.byteLength), 0) + 1_024
    const names = cellColumns(view).map((c) => `${ident(c.name)}, `)
    const [row] = await session.rows<{ Count: string }>(
      `INSERT INTO ${table} SELECT ${names.join('')}_block, _epoch, ${version}, ${NEVER} FROM (${unpackSql(view, file, longest, true)})`,
    )
    return Number(row?.Count ?? 0)
  } finally {
    if (small) rmSync(file, { force: true })
    else await rm(file, { force: true })
  }
}
