/**
 * The open epoch of one view version as a DuckDB table, and its blocks.
 * Invariant: merging the table's rows by key gives the epoch's cells; a cell stays in the block it was first put in; the
 * block hashes kept here are those of the last committed state.
 *
 * A batch only adds rows: its partial cells, beside those of earlier batches. Packing merges the rows of the touched blocks,
 * and when rows have piled up the whole table is merged into one row per cell. A block is filled to a bound, in cells and in
 * bytes, and then the next one of its bucket is begun: blocks are never split and never move (docs/decisions/block-layout.md).
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine, Session } from '../engine/engine.ts'
import { cellColumns, cellTableColumns, keyColumns, packSql, unpackSql } from '../model/cells.ts'
import { blockHash, digestOf, EMPTY_DIGEST, xorDigest } from '../model/digest.ts'
import { ident, literal } from '../model/ident.ts'
import type { Block } from '../model/ports/speed-store.ts'
import type { View } from '../model/view.ts'

/** Places of a block: one for each cell of ordinary size. */
const PLACES = 512
const HEAVY_PLACES = 32
const BLOCK_BYTES = 256 * 1024

/** The table's own columns: block, last place in the bucket (blocks are runs of places), batch that added the row. */
const OWN = '_block VARCHAR, _slot BIGINT, _batch BIGINT'

export type Cells = {
  view: View
  table: string
  /** Size in bytes to which a block is filled. */
  blockBytes: number
  hashes: Map<string, string>
  digest: string
  /** Rows in the table, and the rows there were when it was last merged. */
  rows: number
  merged: number
  /** Number of the last batch. */
  batch: number
}

/** What a merged batch changes: becomes real by `commitCells`, after the store has said `applied`. */
export type CellChange = {
  blocks: Block[]
  hashes: Map<string, string>
  digest: string
  blockCount: number
  added: number
}

let serial = 0

export const emptyCells = async (session: Session, view: View, blockBytes = BLOCK_BYTES): Promise<Cells> => {
  const table = `cells_${serial++}`
  const columns = cellTableColumns(view)
  await session.run(`CREATE TEMP TABLE ${table} (${columns}${columns ? ', ' : ''}${OWN})`)
  return { view, table, blockBytes, hashes: new Map(), digest: EMPTY_DIGEST, rows: 0, merged: 0, batch: 0 }
}

export const dropCells = (session: Session, cells: Cells): Promise<void> =>
  session.run(`DROP TABLE IF EXISTS ${cells.table}`)

const isHeavy = (view: View): boolean => view.states.some((s) => s.heavy)
const placesOf = (view: View): number => (isHeavy(view) ? HEAVY_PLACES : PLACES)

/** About the bytes that a new cell's numbers and its sketches take in a block. */
const NUMBER_BYTES = 24
const SKETCH_BYTES = 1_024

/** Places that a cell takes, as SQL: one, more if its texts are long, so that a block's bytes are bounded too. */
const weightSql = ({ view, blockBytes }: Cells, alias: string): string => {
  const columns = cellColumns(view)
  const texts = columns.filter((c) => c.type === 'VARCHAR' || c.type === 'JSON')
  const sketches = view.states.filter((s) => s.heavy).length
  const bytes = [
    NUMBER_BYTES * columns.length + SKETCH_BYTES * sketches,
    ...texts.map((c) => `coalesce(strlen(${alias}.${ident(c.name)}), 0)`),
  ]
  return `(1 + (${bytes.join(' + ')}) // ${Math.max(1, Math.floor(blockBytes / placesOf(view)))})`
}

/** Cells from the blocks of an epoch, or null when the blocks are not those that `digest` and `count` speak of. */
export const loadCells = async (
  engine: Engine,
  session: Session,
  view: View,
  blocks: Block[],
  expected: { digest: string; blocks: number },
  blockBytes = BLOCK_BYTES,
): Promise<Cells | null> => {
  if (!blocksFit(blocks, expected)) return null
  const cells = await emptyCells(session, view, blockBytes)
  if (blocks.length === 0) return cells
  const size = placesOf(view)
  const file = join(engine.scratchDir, `${cells.table}-${process.pid}.ndjson`)
  try {
    await writeFile(file, Buffer.concat(blocks.map((b) => b.bytes)))
    // The blocks stand one after the other in the file: a line's number tells its block.
    let line = 0
    const starts = blocks.map(({ id, bytes, hash }) => {
      const start = line
      for (const byte of bytes) if (byte === 10) line++
      cells.hashes.set(id, hash)
      return `(${start}, ${literal(id)}, ${Number(id.slice(id.lastIndexOf('.') + 1)) * size})`
    })
    await session.run(`INSERT INTO ${cells.table} BY NAME
      SELECT cell.* EXCLUDE (_line), start._block, start._place + least(${size}, sum(${weightSql(cells, 'cell')})
        OVER (PARTITION BY start._block ORDER BY cell._line))::BIGINT - 1 AS _slot, 0 AS _batch
      FROM (SELECT *, row_number() OVER () - 1 AS _line FROM (${unpackSql(view, file)})) cell
      ASOF JOIN (VALUES ${starts.join(', ')}) start(_first, _block, _place) ON cell._line >= start._first`)
    cells.rows = line
    cells.merged = line
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

const bucketOf = (view: View, alias: string): string => (view.bucket ? `${alias}._bucket` : 'NULL::TIMESTAMPTZ')

/** Rows merged into one per cell, with the table's own columns. */
const mergedSql = (view: View, source: string): string => {
  const keys = keyColumns(view).map((k) => ident(k.name))
  const states = view.states.map((s) => `CAST(${s.merge} AS ${s.type}) AS ${s.name}`)
  const own = ['any_value(_block) AS _block', 'any_value(_slot) AS _slot', '0 AS _batch']
  return `SELECT ${[...keys, ...states, ...own].join(', ')} FROM ${source}${
    keys.length ? ` GROUP BY ${keys.join(', ')}` : ' HAVING count(*) > 0'
  }`
}

/** Adds a batch's partial cells: a known cell keeps its place, new ones take the next places of their bucket. */
const addSql = (cells: Cells, partSql: string, batch: number): string => {
  const { view, table } = cells
  const keys = keyColumns(view).map((k) => ident(k.name))
  const same = keys.length ? keys.map((k) => `k.${k} IS NOT DISTINCT FROM p.${k}`).join(' AND ') : 'true'
  const columns = cellColumns(view).map((c) => `p.${ident(c.name)}`)
  const order = keys.length ? ` ORDER BY ${keys.map((k) => `p.${k}`).join(', ')}` : ''
  const bucket = bucketOf(view, 'p')
  const name = view.bucket ? 'epoch_us(_bucket)::VARCHAR' : `'all'`
  const known = [...keys.map((k) => `c.${k}`), 'c._block', 'c._slot'].join(', ')
  const buckets = view.bucket ? ` WHERE c._bucket IN (SELECT _bucket FROM part) OR c._bucket IS NULL` : ''
  return `INSERT INTO ${table} BY NAME
    WITH part AS MATERIALIZED (${partSql}),
    near AS MATERIALIZED (SELECT ${known}, ${bucketOf(view, 'c')} AS _b FROM ${table} c${buckets}),
    known AS (SELECT DISTINCT * EXCLUDE (_b) FROM near),
    ends AS (SELECT _b, max(_slot) + 1 AS _end FROM near GROUP BY _b),
    placed AS (SELECT ${columns.length ? `${columns.join(', ')}, ` : ''}k._block AS _block, coalesce(k._slot, coalesce(e._end, 0) - 1 +
        sum(${weightSql(cells, 'p')}) OVER (PARTITION BY ${bucket}, k._slot IS NULL${order} ROWS UNBOUNDED PRECEDING)::BIGINT) AS _slot
      FROM part p LEFT JOIN known k ON ${same} LEFT JOIN ends e ON e._b IS NOT DISTINCT FROM ${bucket})
    SELECT * REPLACE (coalesce(_block, ${name} || '.' || (_slot // ${placesOf(view)})::VARCHAR) AS _block), ${batch} AS _batch FROM placed`
}

/**
 * Merges partial cells (a SELECT) into the table, inside the caller's transaction, and packs the touched blocks. Without
 * `pack` the hashes stay behind the table, until `packAll`.
 */
export const mergePart = async (session: Session, cells: Cells, partSql: string, pack = true): Promise<CellChange> => {
  const { view, table } = cells
  const batch = cells.batch + 1
  const [inserted] = await session.rows<{ Count: string }>(addSql(cells, partSql, batch))
  const added = Number(inserted!.Count)
  const change = { blocks: [], hashes: cells.hashes, digest: cells.digest, blockCount: cells.hashes.size, added }
  if (!pack || added === 0) return change
  const touched = `(SELECT * FROM ${table} WHERE _block IN (SELECT _block FROM ${table} WHERE _batch = ${batch}))`
  const blocks = await packed(session, view, touched)
  const hashes = new Map(cells.hashes)
  let digest = cells.digest
  for (const { id, hash } of blocks) {
    const old = hashes.get(id)
    if (old !== undefined) digest = xorDigest(digest, old)
    digest = xorDigest(digest, hash)
    hashes.set(id, hash)
  }
  return { blocks, hashes, digest, blockCount: hashes.size, added }
}

const packed = async (session: Session, view: View, source: string): Promise<Block[]> => {
  const rows = await session.rows<{ _block: string; lines: string }>(packSql(view, `(${mergedSql(view, source)})`))
  return rows.map(({ _block: id, lines }) => {
    const bytes = Buffer.from(`${lines}\n`, 'utf8')
    return { id, bytes, hash: blockHash(id, bytes) }
  })
}

/** Makes a change the committed state; outside a transaction, it also merges a table whose rows have piled up. */
export const commitCells = async (session: Session, cells: Cells, change: CellChange): Promise<void> => {
  cells.hashes = change.hashes
  cells.digest = change.digest
  cells.rows += change.added
  cells.batch++
  const { view, table } = cells
  // Sketches are wide, and merging many of them again and again is what costs.
  if (cells.rows < 2 * cells.merged + (isHeavy(view) ? 16 : 2_048)) return
  await session.run(`CREATE OR REPLACE TEMP TABLE ${table} AS ${mergedSql(view, table)}`)
  const [count] = await session.rows<{ n: string }>(`SELECT count(*) AS n FROM ${table}`)
  cells.rows = Number(count!.n)
  cells.merged = cells.rows
}

/** All blocks of the table, for `install`; they become the committed ones. */
export const packAll = async (session: Session, cells: Cells): Promise<Block[]> => {
  const blocks = await packed(session, cells.view, cells.table)
  cells.hashes = new Map(blocks.map((b) => [b.id, b.hash]))
  cells.digest = digestOf(cells.hashes.values())
  return blocks
}
