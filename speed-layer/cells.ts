/**
 * The open epoch of one view version as a DuckDB table, and its blocks.
 * Invariant: the table holds exactly one row per cell, each cell stays in the block it was first put in, and the block
 * hashes kept here are those of the last committed state.
 *
 * A block is filled to a bound and then the next one of its bucket is begun: blocks are bounded, never split and never
 * move (docs/decisions/block-layout.md).
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine, Session } from '../engine/engine.ts'
import { cellTableColumns, keyColumns, mergeCellsSql, packSql, unpackSql } from '../model/cells.ts'
import { blockHash, digestOf, EMPTY_DIGEST, xorDigest } from '../model/digest.ts'
import { ident, literal } from '../model/ident.ts'
import type { Block } from '../model/ports/speed-store.ts'
import type { View } from '../model/view.ts'

const CELLS_PER_BLOCK = 512
const HEAVY_CELLS_PER_BLOCK = 32

export type Cells = {
  view: View
  table: string
  hashes: Map<string, string>
  digest: string
  /** Rows deleted since the table was last rewritten: DuckDB keeps their space until then. */
  deleted: number
}

/** What a merged batch changes: becomes real by `commitCells`, after the store has said `applied`. */
export type CellChange = {
  blocks: Block[]
  hashes: Map<string, string>
  digest: string
  blockCount: number
  replaced: number
}

let serial = 0

export const emptyCells = async (session: Session, view: View): Promise<Cells> => {
  const table = `cells_${serial++}`
  const columns = cellTableColumns(view)
  await session.run(`CREATE TEMP TABLE ${table} (${columns}${columns ? ', ' : ''}_block VARCHAR)`)
  return { view, table, hashes: new Map(), digest: EMPTY_DIGEST, deleted: 0 }
}

export const dropCells = (session: Session, cells: Cells): Promise<void> =>
  session.run(`DROP TABLE IF EXISTS ${cells.table}`)

/** Cells from the blocks of an epoch, or null when the blocks are not those that `digest` and `count` speak of. */
export const loadCells = async (
  engine: Engine,
  session: Session,
  view: View,
  blocks: Block[],
  expected: { digest: string; blocks: number },
): Promise<Cells | null> => {
  if (!blocksFit(blocks, expected)) return null
  const cells = await emptyCells(session, view)
  if (blocks.length === 0) return cells
  const file = join(engine.scratchDir, `${cells.table}.ndjson`)
  try {
    await writeFile(file, Buffer.concat(blocks.map((b) => b.bytes)))
    // The blocks stand one after the other in the file: a line's number tells its block.
    let line = 0
    const starts = blocks.map((block) => {
      const start = line
      for (const byte of block.bytes) if (byte === 10) line++
      cells.hashes.set(block.id, block.hash)
      return `(${start}, ${literal(block.id)})`
    })
    await session.run(`INSERT INTO ${cells.table} BY NAME
      SELECT cell.* EXCLUDE (_line), start._block FROM (SELECT *, row_number() OVER () - 1 AS _line FROM (${unpackSql(view, file)})) cell
      ASOF JOIN (VALUES ${starts.join(', ')}) start(_first, _block) ON cell._line >= start._first`)
  } finally {
    await rm(file, { force: true })
  }
  cells.digest = expected.digest
  return cells
}

/** Whether blocks are whole and exactly those of the epoch. */
export const blocksFit = (blocks: Block[], expected: { digest: string; blocks: number }): boolean =>
  blocks.length === expected.blocks &&
  blocks.every((b) => blockHash(b.id, b.bytes) === b.hash) &&
  digestOf(blocks.map((b) => b.hash)) === expected.digest

/**
 * Merges partial cells (a SELECT) into the table, inside the caller's transaction, and packs the touched blocks. Without
 * `pack` the hashes stay behind the table, until `packAll`.
 */
export const mergePart = async (session: Session, cells: Cells, partSql: string, pack = true): Promise<CellChange> => {
  const { view, table } = cells
  const part = `${table}_part`
  const next = `${table}_next`
  await session.run(`CREATE OR REPLACE TEMP TABLE ${part} AS ${partSql}`)
  const [touched] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${part}`)
  const unchanged = {
    blocks: [],
    hashes: cells.hashes,
    digest: cells.digest,
    blockCount: cells.hashes.size,
    replaced: 0,
  }
  if (touched!.n === '0') return unchanged

  const keys = keyColumns(view).map((k) => ident(k.name))
  const same = keys.length ? keys.map((k) => `c.${k} IS NOT DISTINCT FROM p.${k}`).join(' AND ') : 'true'
  const bucket = view.bucket ? '_bucket' : 'NULL::TIMESTAMPTZ'
  const perBlock = view.states.some((s) => s.heavy) ? HEAVY_CELLS_PER_BLOCK : CELLS_PER_BLOCK
  const columns = [...keys, ...view.states.map((s) => s.name)].map((c) => `c.${c}`).join(', ')
  // Existing cells keep their block; new ones fill up the blocks of their bucket in turn.
  await session.run(`CREATE OR REPLACE TEMP TABLE ${next} AS
    WITH merged AS (${mergeCellsSql(view, `(SELECT * FROM ${part} UNION ALL SELECT ${columns} FROM ${table} c SEMI JOIN ${part} p ON ${same})`)}),
    known AS (SELECT p.*, c._block FROM merged p LEFT JOIN ${table} c ON ${same}),
    counts AS (SELECT ${bucket} AS b, count(*) AS n FROM ${table} GROUP BY ALL)
    SELECT known.* EXCLUDE (_block), coalesce(_block,
      coalesce(epoch_us(${bucket})::VARCHAR, 'all') || '.' ||
      ((coalesce(counts.n, 0) + row_number() OVER (PARTITION BY ${bucket}, _block IS NULL ORDER BY ${keys.length ? keys.join(', ') : '1'}) - 1) // ${perBlock})::VARCHAR) AS _block
    FROM known LEFT JOIN counts ON counts.b IS NOT DISTINCT FROM ${bucket}`)
  const [gone] = await session.rows<{ Count: string }>(`DELETE FROM ${table} c USING ${next} p WHERE ${same}`)
  await session.run(`INSERT INTO ${table} BY NAME SELECT * FROM ${next}`)
  const replaced = Number(gone?.Count ?? 0)
  if (!pack) return { ...unchanged, replaced }
  const packed = await session.rows<{ _block: string; lines: string }>(
    packSql(view, `(SELECT * FROM ${table} WHERE _block IN (SELECT DISTINCT _block FROM ${next}))`),
  )
  const hashes = new Map(cells.hashes)
  let digest = cells.digest
  const blocks = packed.map(blockOf)
  for (const { id, hash } of blocks) {
    const old = hashes.get(id)
    if (old !== undefined) digest = xorDigest(digest, old)
    digest = xorDigest(digest, hash)
    hashes.set(id, hash)
  }
  return { blocks, hashes, digest, blockCount: hashes.size, replaced }
}

const blockOf = ({ _block: id, lines }: { _block: string; lines: string }): Block => {
  const bytes = Buffer.from(`${lines}\n`, 'utf8')
  return { id, bytes, hash: blockHash(id, bytes) }
}

/** Makes a change the committed state; outside a transaction, it also rewrites a table that is mostly deleted rows. */
export const commitCells = async (session: Session, cells: Cells, change: CellChange): Promise<void> => {
  cells.hashes = change.hashes
  cells.digest = change.digest
  cells.deleted += change.replaced
  if (cells.deleted < 20_000) return
  const [row] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${cells.table}`)
  if (cells.deleted < 2 * Number(row!.n)) return
  await session.run(`CREATE OR REPLACE TEMP TABLE ${cells.table} AS SELECT * FROM ${cells.table}`)
  cells.deleted = 0
}

/** All blocks of the table, for `install`; they become the committed ones. */
export const packAll = async (session: Session, cells: Cells): Promise<Block[]> => {
  const blocks = (await session.rows<{ _block: string; lines: string }>(packSql(cells.view, cells.table))).map(blockOf)
  cells.hashes = new Map(blocks.map((b) => [b.id, b.hash]))
  cells.digest = digestOf(cells.hashes.values())
  return blocks
}
