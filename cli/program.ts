/**
 * `weir`: the program and its commands. Invariant: exit 0 = done, 1 = a difference or a failure, 2 = wrong use;
 * results on stdout, all else on stderr.
 */
import { Command, CommanderError } from 'commander'
import { WeirError } from '../model/errors.ts'
import { auditCommand } from './commands/audit.ts'
import { batchCommand } from './commands/batch.ts'
import { checkCommand } from './commands/check.ts'
import { configCommand } from './commands/config.ts'
import { deadLettersCommand } from './commands/dead-letters.ts'
import { demoCommand } from './commands/demo.ts'
import { doctorCommand } from './commands/doctor.ts'
import { generateCommand } from './commands/generate.ts'
import { importCommand } from './commands/import.ts'
import { initCommand } from './commands/init.ts'
import { keysCommand } from './commands/keys.ts'
import { queryCommand } from './commands/query.ts'
import { sendCommand } from './commands/send.ts'
import { startCommand } from './commands/start.ts'
import { versionsCommand } from './commands/versions.ts'
import { workerCommand } from './commands/worker.ts'
import { Exit, printError } from './output.ts'
import { packageVersion } from './package.ts'

export const buildProgram = (): Command => {
  const program = new Command('weir')
    .description(
      'Events in, exact and fresh aggregates out: one log, a speed layer, a batch layer, answers that equal plain SQL.',
    )
    .version(packageVersion, '-V, --version', 'print the version')
    .showHelpAfterError('(weir <command> --help has examples)')
    .showSuggestionAfterError(true)
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .addHelpText(
      'after',
      `
A first view in five minutes:
  weir init shop --example shop && cd shop
  weir check                                   is every definition sound?
  weir start                                   all roles, on http://127.0.0.1:8080 (leave it running)
  weir generate orders --events 10000          in another terminal: synthetic events
  weir query revenue_by_country --grain '1 hour' --by country
  weir audit                                   are the answers what plain SQL says? exit 1 if not

Or just look: weir demo

Exit codes: 0 done, 1 a difference or a failure, 2 wrong use. Most commands take --json.`,
    )
  for (const add of [
    initCommand,
    checkCommand,
    startCommand,
    demoCommand,
    sendCommand,
    importCommand,
    generateCommand,
    queryCommand,
    batchCommand,
    auditCommand,
    versionsCommand,
    deadLettersCommand,
    keysCommand,
    doctorCommand,
    configCommand,
    workerCommand,
  ])
    add(program)
  const strict = (command: Command): void => {
    command.exitOverride()
    for (const sub of command.commands) strict(sub)
  }
  strict(program)
  return program
}

const WRONG_USE = new Set(['WEIR_CLI_BAD_OPTION', 'WEIR_CLI_WHERE'])

/** Exit code of whatever a command threw. */
export const exitCodeOf = (error: unknown): number => {
  if (error instanceof Exit) return error.exitCode
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  return error instanceof WeirError && WRONG_USE.has(error.code) ? 2 : 1
}

/** Runs one command line and leaves the exit code with the process. */
export const run = async (argv: string[]): Promise<void> => {
  // A reader that goes away (`weir query … | head`) is not an error of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  try {
    await buildProgram().parseAsync(argv)
  } catch (error) {
    process.exitCode = exitCodeOf(error)
    if (error instanceof Exit || error instanceof CommanderError) return
    printError(error, argv.includes('--json'))
    if (!(error instanceof WeirError) && !(error as { errors?: unknown }).errors && process.env.WEIR_DEBUG)
      process.stderr.write(`${(error as Error).stack ?? ''}\n`)
  }
}
