/** Archiving: log → lake, all columns, against bare DuckDB that decodes the same bytes and writes them as Parquet. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openEngine, type Session } from '../../engine/engine.ts'
import { decodeSql } from '../../model/decode/decode-sql.ts'
import { literal } from '../../model/ident.ts'
import { type Case, type Env, type Measured, rateRow, rates, ratioRow } from '../harness/case.ts'
import { measured } from '../harness/cpu.ts'
import { archiveAll, paths, preparedLog, streamOf } from '../prepare.ts'
import { compileProject } from '../project.ts'
import { DATASET, openWorld } from '../world.ts'

/** Sums over all columns of the events. */
const digest = async (session: Session, relation: string): Promise<string> => {
  const [row] = await session.rows(
    `SELECT count(*) AS n, count(DISTINCT id) AS ids, sum(epoch_us(ts)) AS ts, sum(amount) AS amount, sum(items) AS items,
       sum(strlen(concat(type, "user", country, page, ref))) AS bytes FROM ${relation}`,
  )
  return JSON.stringify(row)
}

const weir = async (env: Env): Promise<Measured> => {
  const data = join(env.scratch, 'data')
  await mkdir(data)
  const world = await openWorld({ project: 'stream', log: paths(env.shared, env.sharedMemory).streamLog, data })
  try {
    await world.adopt()
    const { cpuS, wallS } = await measured(() => archiveAll(world))
    const { position, counted } = (await world.ctx.history.archived(DATASET, 0))!
    const scan = await world.ctx.lake.scan(world.dataset, { below: { 0: position } })
    const answer = await world.engine.withSession((s) => digest(s, `(SELECT * FROM ${scan.sql})`))
    const files = await world.ctx.lake.events(world.dataset).files()
    return { figures: { events: counted, cpuS, wallS, files: files.length }, answer }
  } finally {
    await world.close()
  }
}

const bare = async (env: Env): Promise<Measured> => {
  const engine = await openEngine({ memoryLimit: '1GB', threads: 1 })
  try {
    const { datasets } = await compileProject('stream', engine)
    const file = join(env.scratch, 'events.parquet')
    const sql = decodeSql(datasets[0]!, paths(env.shared, env.sharedMemory).streamFile, {})
    const session = await engine.session()
    const { cpuS, wallS } = await measured(() =>
      session.run(
        `COPY (SELECT * EXCLUDE (_verdict) FROM (${sql}) WHERE _verdict = 0) TO ${literal(file)} (FORMAT parquet, COMPRESSION zstd)`,
      ),
    )
    const answer = await digest(session, `read_parquet(${literal(file)})`)
    session.close()
    return { figures: { events: env.sizes.events, cpuS, wallS }, answer }
  } finally {
    await engine.close()
  }
}

export const archive: Case = {
  name: 'archive',
  about: 'archiving: the log’s events into the lake, durable',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    const { streamLog, streamFile } = paths(shared, sharedMemory)
    await preparedLog(streamLog, streamOf(sizes.events), streamFile)
  },
  variants: { weir, bare },
  report: (results) => ({
    rows: [
      rateRow('archiver', results, 'weir'),
      rateRow('bare DuckDB, the decoder’s SQL to one Parquet file (zstd)', results, 'bare'),
      ratioRow('archiver / bare DuckDB', rates(results, 'weir'), rates(results, 'bare')),
    ],
  }),
}
