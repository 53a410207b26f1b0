/**
 * Answers as digests, so that what was measured is known to be right. Invariant: two relations have one digest iff they hold
 * the same rows as text, whatever their order.
 */
import { createHash } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cellsOf } from '../batch-layer/parts.ts'
import type { Session } from '../engine/engine.ts'
import { mergeCellsSql, unpackSql } from '../model/cells.ts'
import { ident } from '../model/ident.ts'
import type { View } from '../model/view.ts'
import { DATASET, type World } from './world.ts'

/** Output columns of a view in their order: bucket, dimensions, measures. */
const columnsOf = (view: View): string[] => [
  ...(view.bucket ? [view.bucket.name] : []),
  ...view.dimensions.map((d) => d.name),
  ...view.measures.map((m) => m.name),
]

/** Digest of a relation with a view's output columns. */
export const digestOf = async (session: Session, view: View, relation: string): Promise<string> => {
  const fields = columnsOf(view).map((c) => `coalesce(${ident(c)}::VARCHAR, '')`)
  const [row] = await session.rows<{ n: string; h: string | null }>(
    `SELECT count(*) AS n, md5(string_agg(line, chr(10) ORDER BY line)) AS h FROM (SELECT concat_ws('|', ${fields.join(', ')}) AS line FROM ${relation})`,
  )
  return `${view.name}:${row!.n}:${row!.h ?? ''}`
}

export const joined = (digests: string[]): string =>
  createHash('sha256')
    .update([...digests].sort().join('\n'))
    .digest('hex')

/** A view presented over a relation of its cells. */
const presented = (view: View, cells: string): string => {
  const keys = [
    ...(view.bucket ? [`_bucket AS ${ident(view.bucket.name)}`] : []),
    ...view.dimensions.map((d) => ident(d.name)),
  ]
  const measures = view.measures.map((m) => `(${m.present}) AS ${ident(m.name)}`)
  return `(SELECT ${[...keys, ...measures].join(', ')} FROM (${mergeCellsSql(view, cells)}))`
}

/** Digest of what the speed store holds of all views. */
export const speedDigest = async (world: World): Promise<string> => {
  const key = { dataset: DATASET, partition: 0 }
  const header = await world.ctx.speed.header(key)
  const digests: string[] = []
  for (const view of world.project.views) {
    const file = join(world.engine.scratchDir, `digest-${view.name}.ndjson`)
    const blocks = []
    for (const epoch of header!.views[view.version]!.epochs)
      blocks.push(...(await world.ctx.speed.blocks(key, view.version, epoch.from)))
    await writeFile(file, Buffer.concat(blocks.map((b) => b.bytes)))
    digests.push(
      await world.engine.withSession((session) =>
        digestOf(session, view, presented(view, `(${unpackSql(view, file)})`)),
      ),
    )
    await rm(file)
  }
  return joined(digests)
}

/** Digest of what is published of some views. */
export const publishedDigest = async (world: World, views: View[]): Promise<string> => {
  const digests: string[] = []
  for (const view of views) {
    const current = await world.ctx.publications.current(view.name, view.version)
    if (current === null || current === 'dropped') throw new Error(`${view.name} is not published`)
    const cells = await cellsOf(world.ctx.lake.store, view, current.pointer.files)
    digests.push(await world.engine.withSession((session) => digestOf(session, view, presented(view, cells))))
  }
  return joined(digests)
}
