/** Recompute of the three views from the lake, children included, against bare DuckDB over the same Parquet files. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { recompute as recomputeView } from '../../batch-layer/recompute.ts'
import { literal } from '../../model/ident.ts'
import { digestOf, joined, publishedDigest } from '../answers.ts'
import { type Case, type Env, type Measured, rateRow, rates, ratioRow } from '../harness/case.ts'
import { measured } from '../harness/cpu.ts'
import { paths, preparedData, streamOf } from '../prepare.ts'
import { VIEWS } from '../project.ts'
import { DATASET, openWorld } from '../world.ts'

/** A copy of the prepared data would cost more than it measures: generations simply follow one another. */
const weir = async (env: Env): Promise<Measured> => {
  const world = await openWorld({ project: 'stream', data: paths(env.shared, env.sharedMemory).history })
  try {
    await world.adopt()
    const { views } = world.project
    const { cpuS, wallS } = await measured(async () => {
      for (const view of views) {
        const done = await recomputeView(world.ctx, view)
        if (done.outcome !== 'published' || done.differing > 0)
          throw new Error(`${view.name}: ${done.outcome}, ${done.differing} cells differ; ${done.reasons.join('; ')}`)
      }
    })
    const events = env.sizes.history * views.length
    return { figures: { events, cpuS, wallS }, answer: await publishedDigest(world, views) }
  } finally {
    await world.close()
  }
}

/** A sum of integers is a HUGEINT, which DuckDB writes to Parquet as a double. */
const storable = (sql: string): string =>
  sql.includes('item_count') ? `SELECT * REPLACE (item_count::BIGINT AS item_count) FROM (${sql})` : sql

/** Each view's own SQL over the files of the lake, the result written as Parquet. */
const bare = async (env: Env): Promise<Measured> => {
  const world = await openWorld({ project: 'stream', data: paths(env.shared, env.sharedMemory).history })
  try {
    await world.adopt()
    const { views } = world.project
    const { position } = (await world.ctx.history.archived(DATASET, 0))!
    const scan = await world.ctx.lake.scan(world.dataset, { below: { 0: position } })
    const list = `[${scan.files.map((f) => literal(f.path)).join(', ')}]`
    const session = await world.engine.session()
    await session.run(
      `CREATE TEMP VIEW events AS SELECT * FROM read_parquet(${list}, hive_partitioning = false) WHERE NOT _duplicate`,
    )
    const out = (name: string): string => literal(join(env.scratch, `${name}.parquet`))
    const { cpuS, wallS } = await measured(async () => {
      for (const view of views)
        await session.run(
          `COPY (${storable(VIEWS.stream[view.name]!)}) TO ${out(view.name)} (FORMAT parquet, COMPRESSION zstd)`,
        )
    })
    const digests: string[] = []
    for (const view of views) digests.push(await digestOf(session, view, `read_parquet(${out(view.name)})`))
    session.close()
    return { figures: { events: env.sizes.history * views.length, cpuS, wallS }, answer: joined(digests) }
  } finally {
    await world.close()
  }
}

export const recompute: Case = {
  name: 'recompute',
  about: 'recompute of three views from the lake, one after the other, in child processes',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    await mkdir(shared, { recursive: true })
    await preparedData(paths(shared, sharedMemory).history, 'stream', streamOf(sizes.history), true)
  },
  variants: { weir, bare },
  report: (results, sizes) => ({
    rows: [
      rateRow('recompute (start of children, comparison with the base, publishing included)', results, 'weir'),
      rateRow('bare DuckDB, the views’ SQL over the same Parquet files, results to Parquet', results, 'bare'),
      ratioRow('recompute / bare DuckDB', rates(results, 'weir'), rates(results, 'bare'), 0.6),
    ],
    notes: [`${sizes.history.toLocaleString('en')} events, counted once for each view.`],
  }),
}
