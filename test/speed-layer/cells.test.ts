/** Cells of an open epoch at sizes where blocks fill up, rows pile up, batches are rolled back and state is loaded again. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Engine, openEngine, type Session } from '../../engine/engine.ts'
import { cellColumns, partialSql, unpackSql } from '../../model/cells.ts'
import { digestOf } from '../../model/digest.ts'
import { ident } from '../../model/ident.ts'
import type { Block } from '../../model/ports/speed-store.ts'
import type { View } from '../../model/view.ts'
import { type Cells, commitCells, emptyCells, loadCells, mergePart, packAll } from '../../speed-layer/cells.ts'
import { below, rng } from '../support/orders.ts'
import { byCountry, ids, total } from './support.ts'

describe('cells', () => {
  let engine: Engine
  let session: Session
  beforeAll(async () => {
    engine = await openEngine()
    session = await engine.session()
  })
  afterAll(async () => {
    session.close()
    await engine.close()
  })
  const texts = async (view: View, sql: string): Promise<string[]> => {
    const columns = cellColumns(view).map((c) => ident(c.name))
    const rows = await session.rows<{ t: string }>(
      `SELECT to_json(c)::VARCHAR AS t FROM (SELECT ${columns.join(', ')} FROM (${sql})) c ORDER BY 1`,
    )
    return rows.map((r) => r.t)
  }
  const stored = async (view: View, blocks: Iterable<Block>): Promise<string[]> => {
    const file = join(engine.scratchDir, 'stored.ndjson')
    await writeFile(file, Buffer.concat([...blocks].map((b) => b.bytes)))
    return texts(view, unpackSql(view, file))
  }
  const lines = (block: Block): number => Buffer.from(block.bytes).toString().split('\n').length - 1
  const source = (seed: number, rows: number, countries: number): string =>
    `(SELECT 'e' || (h % 40) AS id, make_timestamptz((h // 3 % 4)::BIGINT * 60000000) AS ts,
      CASE WHEN h % 50 = 0 THEN NULL ELSE 'c' || (h // 7 % ${countries}) END AS country,
      (h // 11 % 1000)::DECIMAL(18,2) / 4 AS amount, (h % 1000)::BIGINT AS n
      FROM (SELECT (hash(i + ${seed} * 1000003) % 1000000007)::BIGINT AS h FROM range(${rows}) r(i)))`

  it.each([
    ['many cells per bucket', byCountry, 700, 512],
    ['a single cell', total, 10, 1],
    ['heavy cells', ids, 10, 32],
  ] as const)('stay equal to plain SQL: %s', async (_name, view, countries, most) => {
    const random = rng(countries)
    const blocks = new Map<string, Block>()
    let cells: Cells = await emptyCells(session, view)
    await session.run(`CREATE OR REPLACE TEMP TABLE everything AS SELECT * FROM ${source(0, 0, 1)}`)
    let merges = 0
    for (let batch = 1; batch <= 30; batch++) {
      const rows = source(batch, batch % 9 === 0 ? 0 : 1 + below(random, 600), countries)
      await session.run('BEGIN TRANSACTION')
      const change = await mergePart(session, cells, partialSql(view, rows))
      if (random() < 0.2) {
        await session.run('ROLLBACK')
        continue
      }
      await session.run('COMMIT')
      await session.run(`INSERT INTO everything SELECT * FROM ${rows}`)
      const before = cells.merged
      await commitCells(session, cells, change)
      if (cells.merged !== before) merges++
      for (const block of change.blocks) blocks.set(block.id, block)
      expect(change.blockCount).toBe(blocks.size)
      expect(cells.digest).toBe(digestOf([...blocks.values()].map((b) => b.hash)))
      if (batch % 7 === 0) {
        const expected = { digest: cells.digest, blocks: blocks.size }
        expect(await loadCells(engine, session, view, [...blocks.values()].slice(1), expected)).toBeNull()
        cells = (await loadCells(engine, session, view, [...blocks.values()], expected))!
      }
    }
    const reference = await texts(view, partialSql(view, 'everything'))
    expect(await stored(view, blocks.values())).toEqual(reference)
    expect(Math.max(...[...blocks.values()].map(lines))).toBeLessThanOrEqual(most)
    // Blocks fill up: all but a bucket's last one are full.
    if (view === byCountry) expect(blocks.size).toBeLessThan(2 * Math.ceil(reference.length / most) + 4)
    if (view !== total) expect(merges).toBeGreaterThan(0)
    expect(await stored(view, await packAll(session, cells))).toEqual(reference)
  })

  it('bound blocks in bytes where dimensions are long, before and after a load', async () => {
    const blockBytes = 20_000
    const blocks = new Map<string, Block>()
    let cells: Cells = await emptyCells(session, byCountry, blockBytes)
    const rows = (batch: number): string =>
      `(SELECT make_timestamptz(0) AS ts, repeat('x', ((i * 37 + ${batch}) % 50)::INTEGER * 100) || i AS country, 1::DECIMAL(18,2) AS amount, 1::BIGINT AS n FROM range(${batch * 40}, ${batch * 40 + 40}) r(i))`
    for (let batch = 0; batch < 12; batch++) {
      const change = await mergePart(session, cells, partialSql(byCountry, rows(batch)))
      await commitCells(session, cells, change)
      for (const block of change.blocks) blocks.set(block.id, block)
      const expected = { digest: cells.digest, blocks: blocks.size }
      if (batch % 3 === 2)
        cells = (await loadCells(engine, session, byCountry, [...blocks.values()], expected, blockBytes))!
    }
    const sizes = [...blocks.values()].map((b) => b.bytes.byteLength)
    // A block ends with the cell that passes the bound.
    expect(Math.max(...sizes)).toBeLessThan(blockBytes + 5_200)
    expect(sizes.length).toBeLessThan((2.5 * sizes.reduce((a, b) => a + b)) / blockBytes)
  })
})
