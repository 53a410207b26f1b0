/**
 * What the terminal sees. Invariant: results go to stdout, progress and complaints to stderr, so that a script can pipe;
 * bars appear on a terminal only, elsewhere one plain line every few seconds.
 */
import { SingleBar } from 'cli-progress'
import { formatError, WeirError } from '../model/errors.ts'

export const out = (text: string): void => {
  process.stdout.write(`${text}\n`)
}
export const note = (text: string): void => {
  process.stderr.write(`${text}\n`)
}
export const outJson = (value: unknown): void => out(JSON.stringify(value, null, process.stdout.isTTY ? 2 : undefined))

/** Ends the command with an exit code: 1 = differences or failure, 2 = wrong use. */
export class Exit extends Error {
  readonly exitCode: number
  constructor(exitCode: number) {
    super(`exit ${exitCode}`)
    this.exitCode = exitCode
  }
}

const asJson = (error: unknown): Record<string, unknown> =>
  error instanceof WeirError
    ? {
        code: error.code,
        message: error.message,
        expected: error.expected,
        got: error.got,
        next: error.next,
        file: error.file,
        line: error.line,
      }
    : { message: String(error) }

/** Prints an error for people, or as JSON on stdout for scripts. */
export const printError = (error: unknown, json: boolean): void => {
  // ProjectErrors (and the platform's AggregateError) hold several.
  const several = error instanceof Error && 'errors' in error && Array.isArray(error.errors)
  const all: unknown[] = several ? (error.errors as unknown[]) : [error]
  if (json) outJson({ errors: all.map(asJson) })
  else for (const one of all) note(formatError(one))
}

/** Rows as an aligned table; numbers to the right. */
export const table = (columns: { name: string; numeric?: boolean }[], rows: unknown[][]): string => {
  const cell = (v: unknown): string =>
    v === null || v === undefined ? '' : typeof v === 'object' ? JSON.stringify(v) : String(v)
  const text = rows.map((row) => columns.map((_, i) => cell(row[i]).replace(/[\p{Cc}]/gu, ' ')))
  const widths = columns.map((c, i) => Math.max(c.name.length, ...text.map((r) => r[i]!.length), 1))
  const line = (cells: string[]): string =>
    cells
      .map((c, i) => (columns[i]!.numeric ? c.padStart(widths[i]!) : c.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd()
  return [line(columns.map((c) => c.name)), line(widths.map((w) => '─'.repeat(w))), ...text.map(line)].join('\n')
}

export type Progress = { update(done: number, detail?: string): void; stop(): void }

/** A bar on a terminal; else a line every 5 seconds on stderr. `total` 0: unknown. */
export const progress = (label: string, total: number, quiet = false): Progress => {
  if (quiet) return { update: () => undefined, stop: () => undefined }
  if (process.stderr.isTTY && total > 0) {
    const bar = new SingleBar({
      stream: process.stderr,
      format: `${label} {bar} {percentage}% {detail}`,
      hideCursor: true,
      clearOnComplete: false,
    })
    bar.start(total, 0, { detail: '' })
    return { update: (done, detail = '') => bar.update(Math.min(done, total), { detail }), stop: () => bar.stop() }
  }
  let last = Date.now()
  return {
    update: (done, detail = '') => {
      if (Date.now() - last < 5_000) return
      last = Date.now()
      note(`${label} ${total > 0 ? `${Math.floor((done / total) * 100)} % ` : ''}${detail}`)
    },
    stop: () => undefined,
  }
}
