/**
 * `weir`: the program and its commands. Invariant: exit 0 = done, 1 = a difference or a failure, 2 = wrong use;
 * results on stdout, all else on stderr.
 */
import { Command, CommanderError } from 'commander'
import { WeirError } from '../model/errors.ts'
import { Exit, printError } from './output.ts'
import { packageVersion } from './package.ts'

type Add = (program: Command) => void

/** Commands in the order of the help. A module is loaded when its command is run: most of the start of a process is loading. */
const COMMANDS: Record<string, [description: string, load: () => Promise<Add>]> = {
  init: ['a project to start from', async () => (await import('./commands/init.ts')).initCommand],
  check: [
    'compile all definitions; print what each view becomes, or errors that teach',
    async () => (await import('./commands/check.ts')).checkCommand,
  ],
  start: [
    'run the server: all roles in one process, or some of them',
    async () => (await import('./commands/start.ts')).startCommand,
  ],
  demo: [
    'see it work: all roles, the shop example, events at a steady rate',
    async () => (await import('./commands/demo.ts')).demoCommand,
  ],
  send: [
    'send events (NDJSON, also gzipped) to a running server',
    async () => (await import('./commands/send.ts')).sendCommand,
  ],
  import: [
    'history from a Parquet or CSV file, through the door',
    async () => (await import('./commands/import.ts')).importCommand,
  ],
  generate: [
    'synthetic events: a function of the dataset and a seed',
    async () => (await import('./commands/generate.ts')).generateCommand,
  ],
  query: ['ask a view', async () => (await import('./commands/query.ts')).queryCommand],
  batch: [
    'extend, recompute, verify, publish, rollback, status',
    async () => (await import('./commands/batch.ts')).batchCommand,
  ],
  audit: [
    'compare merged answers with plain SQL over lake and log; exit 1 unless they are equal',
    async () => (await import('./commands/audit.ts')).auditCommand,
  ],
  versions: [
    'versions of views: list, activate (going back is instant), drop',
    async () => (await import('./commands/versions.ts')).versionsCommand,
  ],
  'dead-letters': [
    'events in the log that could not be decoded: list, show, replay, drop',
    async () => (await import('./commands/dead-letters.ts')).deadLettersCommand,
  ],
  keys: ['API keys: create, list, revoke', async () => (await import('./commands/keys.ts')).keysCommand],
  doctor: [
    'check settings, disk, server and safety; exit 1 on a problem',
    async () => (await import('./commands/doctor.ts')).doctorCommand,
  ],
  config: [
    'print every setting: value, default, environment variable, meaning',
    async () => (await import('./commands/config.ts')).configCommand,
  ],
}
const HIDDEN: Record<string, () => Promise<Add>> = {
  worker: async () => (await import('./commands/worker.ts')).workerCommand,
}

/** The program with the commands `only` whole, the others by name and description; default: all whole. */
export const buildProgram = async (only?: string): Promise<Command> => {
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
  for (const [name, [description, load]] of Object.entries(COMMANDS)) {
    if (only === undefined || only === name) (await load())(program)
    else program.command(name)
    program.commands.at(-1)!.description(description)
  }
  if (only !== undefined && Object.hasOwn(HIDDEN, only)) (await HIDDEN[only]!())(program)
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
  try {
    await (await buildProgram(argv[2] ?? '')).parseAsync(argv)
  } catch (error) {
    process.exitCode = exitCodeOf(error)
    if (error instanceof Exit || error instanceof CommanderError) return
    printError(error, argv.includes('--json'))
    if (!(error instanceof WeirError) && !(error as { errors?: unknown }).errors && process.env.WEIR_DEBUG)
      process.stderr.write(`${(error as Error).stack ?? ''}\n`)
  }
}
