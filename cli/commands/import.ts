/**
 * `weir import`: history from Parquet or CSV, through the door, as log records: so it stays inside the theorem.
 * Invariant: values keep their digits (decimals and big integers travel as text, times as RFC 3339 in UTC), and memory and
 * scratch disk are bounded by one chunk beside the engine's own copy of the file.
 */
import { createReadStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import type { Command } from 'commander'
import { openEngine, type Session } from '../../engine/engine.ts'
import { WeirError } from '../../model/errors.ts'
import { ident, literal } from '../../model/ident.ts'
import {
  badOption,
  type CommonOptions,
  clientOf,
  jsonOption,
  serverOptions,
  show,
  stopSignal,
  wholeNumber,
} from '../context.ts'
import { linesOf } from '../lines.ts'
import { Exit, note, progress } from '../output.ts'
import { openSender, rejectionLines, sentText } from '../sending.ts'

type ImportOptions = CommonOptions & {
  select?: string
  format?: string
  chunk: number
  parallel: number
  idempotencyKey?: string
}

const sourceOf = (path: string, format: string | undefined): string => {
  const kind = format ?? extname(path.replace(/\.gz$/, '')).slice(1).toLowerCase()
  if (kind === 'parquet') return `read_parquet(${literal(path)}, file_row_number = true)`
  // Everything as text: the dataset says what each column is, a guess from the first rows would lose digits.
  if (kind === 'csv' || kind === 'tsv')
    return `(SELECT *, row_number() OVER () - 1 AS file_row_number FROM read_csv(${literal(path)}, all_varchar = true))`
  throw badOption('file', 'a .parquet or .csv file', path, 'name its kind: --format parquet')
}

/** How a column travels in JSON without loss. */
const jsonValue = (name: string, type: string): string => {
  const column = ident(name)
  if (/^TIMESTAMP/.test(type)) {
    const utc = type.includes('ZONE') || type === 'TIMESTAMPTZ' ? `(${column} AT TIME ZONE 'UTC')` : column
    return `strftime(${utc}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%fZ')`
  }
  if (/^(DECIMAL|HUGEINT|UHUGEINT|UBIGINT|BIGINT|DATE|TIME|UUID|ENUM|INTERVAL)/.test(type)) return `${column}::VARCHAR`
  if (type === 'BLOB')
    throw new WeirError({
      code: 'WEIR_CLI_IMPORT',
      message: `Column ${name} holds binary data.`,
      expected: 'columns that JSON can carry',
      got: type,
      next: `leave it out or turn it into text: --select "* EXCLUDE (${name}), hex(${name}) AS ${name}"`,
    })
  return column
}

/** Loads the file into a table `imported` of the session; names and types of its columns. */
const load = async (session: Session, source: string, select: string): Promise<{ name: string; type: string }[]> => {
  try {
    await session.run(`CREATE TEMP TABLE imported AS SELECT ${select} FROM ${source}`)
  } catch (cause) {
    throw new WeirError({
      code: 'WEIR_CLI_IMPORT',
      message: `The file cannot be read: ${String(cause).split('\n')[0]}`,
      expected: 'a Parquet or CSV file, and --select of columns that it has',
      got: select,
      next: 'check the path and --select',
      cause,
    })
  }
  const rows = await session.rows<{ column_name: string; column_type: string }>('DESCRIBE imported')
  return rows.map((r) => ({ name: r.column_name, type: r.column_type }))
}

export const importCommand = (program: Command): void => {
  const command = program
    .command('import')
    .argument('<dataset>', 'dataset')
    .argument('<file>', '.parquet, .csv or .csv.gz')
    .option(
      '--select <columns>',
      'what to send, as in SQL: "date AS departed, *" (default: every column under its own name)',
    )
    .option('--format <format>', 'parquet or csv, when the name does not tell')
    .option('--chunk <rows>', 'rows turned into JSON at a time', wholeNumber('--chunk', 1, 10_000_000), 100_000)
    .option(
      '--parallel <n>',
      'requests at a time; above 1 the order of the file is not kept',
      wholeNumber('--parallel', 1, 32),
      1,
    )
    .option('--idempotency-key <key>', 'with the same key and file a repeated run within the hour counts nothing twice')
    .addHelpText(
      'after',
      `
Rows become events like any others: they pass the same checks and are in the log, so every answer and every audit covers
them. --select has file_row_number to make ids of. CSV values are read as text; the dataset says what they are.

Examples:
  weir import orders history.parquet
  weir import orders history.csv.gz --select "id AS event_id, created_at AS ts, * EXCLUDE (id, created_at, file_row_number)"
  weir import flights flights-3m.parquet --select "file_row_number AS flight_id, date AS departed, origin, destination, delay, distance"`,
    )
  jsonOption(serverOptions(command)).action(async (dataset: string, file: string, options: ImportOptions) => {
    await stat(file).catch((cause: unknown) => {
      throw new WeirError({
        code: 'WEIR_CLI_NO_FILE',
        message: `There is no file ${file}.`,
        next: 'check the path',
        cause,
      })
    })
    const signal = stopSignal()
    const client = await clientOf(options, signal)
    const engine = await openEngine({ memoryLimit: '1GB' })
    const chunkFile = join(engine.scratchDir, 'chunk.ndjson')
    try {
      const session = await engine.session()
      note(`reading ${file}`)
      const columns = await load(
        session,
        sourceOf(file, options.format),
        options.select ?? '* EXCLUDE (file_row_number)',
      )
      const fields = columns.map((c) => `${jsonValue(c.name, c.type)} AS ${ident(c.name)}`).join(', ')
      const [counted] = await session.rows<{ n: string }>('SELECT count(*) AS n FROM imported')
      const total = Number(counted!.n)
      const bar = progress(dataset, total, options.json)
      const sender = openSender({
        client,
        dataset,
        parallel: options.parallel,
        runId: options.idempotencyKey,
        progress: (sent) => bar.update(sent.accepted + sent.rejected, sentText(sent)),
      })
      try {
        for (let from = 0; from < total && !signal.aborted; from += options.chunk) {
          await session.run(
            `COPY (SELECT ${fields} FROM imported WHERE rowid >= ${from} AND rowid < ${from + options.chunk} ORDER BY rowid) TO ${literal(chunkFile)} (FORMAT json)`,
          )
          let row = from
          for await (const line of linesOf(createReadStream(chunkFile, { highWaterMark: 1 << 20 })))
            await sender.write(line, ++row)
          await rm(chunkFile, { force: true })
        }
        const sent = await sender.end()
        bar.stop()
        show(options, sent, () => sentText(sent))
        if (!options.json) for (const line of rejectionLines(sent)) note(line.replace(/^line/, 'row'))
        if (sent.rejected > 0) throw new Exit(1)
      } finally {
        bar.stop()
      }
      session.close()
    } finally {
      await engine.close()
    }
  })
}
