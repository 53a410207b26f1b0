/**
 * Speed layer: drain of a prepared log with three views, against bare DuckDB over the same bytes, with the decoder's SQL
 * (strict) and with typed `read_json` (not strict). One thread each.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openEngine } from '../../engine/engine.ts'
import { decodeSql } from '../../model/decode/decode-sql.ts'
import { literal } from '../../model/ident.ts'
import { digestOf, joined, speedDigest } from '../answers.ts'
import { type Case, type Env, figuresOf, type Measured, rateRow, rates, ratioRow } from '../harness/case.ts'
import { measured } from '../harness/cpu.ts'
import { paths, preparedLog, streamOf } from '../prepare.ts'
import { compileProject, groupingSetsSql, type ProjectName, viewOfSets } from '../project.ts'
import { drain, openWorld } from '../world.ts'

const COLUMNS = ['ts', 'type', 'country', 'page', 'amount', 'items']
const TYPED = `{id: 'VARCHAR', ts: 'TIMESTAMPTZ', type: 'VARCHAR', country: 'VARCHAR', page: 'VARCHAR', amount: 'DECIMAL(18,2)', items: 'INTEGER'}`

const weir =
  (project: ProjectName) =>
  async (env: Env): Promise<Measured> => {
    const data = join(env.scratch, 'data')
    await mkdir(data)
    const world = await openWorld({ project, log: paths(env.shared, env.sharedMemory).streamLog, data })
    try {
      await world.adopt()
      const worker = await world.worker()
      const { cpuS, wallS } = await measured(() => drain(world, worker))
      const { counted, duplicate, dead } = worker.state()
      if (counted !== env.sizes.events || duplicate + dead > 0)
        throw new Error(`${counted} counted, ${duplicate} duplicate, ${dead} dead of ${env.sizes.events}`)
      return { figures: { events: counted, cpuS, wallS }, answer: await speedDigest(world) }
    } finally {
      await world.close()
    }
  }

/** One GROUPING SETS query over the whole file; `source` makes its relation. */
const bare =
  (source: (file: string, strict: string) => string) =>
  async (env: Env): Promise<Measured> => {
    const engine = await openEngine({ memoryLimit: '1GB', threads: 1 })
    try {
      const { datasets, views } = await compileProject('stream', engine)
      const file = paths(env.shared, env.sharedMemory).streamFile
      const strict = `(SELECT * FROM (${decodeSql(datasets[0]!, file, { columns: COLUMNS })}) WHERE _verdict = 0)`
      const session = await engine.session()
      const sql = groupingSetsSql(source(file, strict))
      const { cpuS, wallS } = await measured(() => session.run(`CREATE TEMP TABLE sets AS ${sql}`))
      const digests: string[] = []
      for (const view of views) digests.push(await digestOf(session, view, viewOfSets(view.name, 'sets')))
      session.close()
      return { figures: { events: env.sizes.events, cpuS, wallS }, answer: joined(digests) }
    } finally {
      await engine.close()
    }
  }

export const speed: Case = {
  name: 'speed',
  about: 'speed layer: drain of a prepared log, three views (minute × type × country, minute × page, minute)',
  prepare: async ({ shared, sharedMemory, sizes }) => {
    const { streamLog, streamFile } = paths(shared, sharedMemory)
    await preparedLog(streamLog, streamOf(sizes.events), streamFile)
  },
  variants: {
    weir: weir('stream'),
    bare: bare((_file, strict) => strict),
    typed: bare((file) => `read_json(${literal(file)}, format = 'newline_delimited', columns = ${TYPED})`),
    'weir-deduped': weir('stream-deduped'),
  },
  report: (results, sizes) => ({
    rows: [
      rateRow('speed layer', results, 'weir'),
      rateRow('speed layer, ids de-duplicated (1 hour, all live)', results, 'weir-deduped'),
      rateRow('bare DuckDB, the decoder’s SQL and GROUPING SETS', results, 'bare'),
      rateRow('bare DuckDB, typed read_json (not strict) and GROUPING SETS', results, 'typed'),
      ratioRow('speed layer / bare DuckDB', rates(results, 'weir'), rates(results, 'bare'), 0.6),
      ratioRow(
        'cost of de-duplication: CPU with / without',
        figuresOf(results, 'weir-deduped', 'cpuS'),
        figuresOf(results, 'weir', 'cpuS'),
      ),
      ratioRow(
        'cost of strict decoding: CPU strict / typed, with aggregation',
        figuresOf(results, 'bare', 'cpuS'),
        figuresOf(results, 'typed', 'cpuS'),
      ),
    ],
    notes: [`${sizes.events} events of 181 bytes; 20,000 events a second of event time, 2 % up to ten minutes late.`],
  }),
}
