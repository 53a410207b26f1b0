/** `weir start`: the server. Runs until Ctrl-C or TERM, then takes no more, drains and closes. */
import type { Command } from 'commander'
import { type CommonOptions, dataFolder, projectFolder, projectOptions, stopSignal, wholeNumber } from '../context.ts'
import { openLogger } from '../logger.ts'
import { Exit, out } from '../output.ts'
import { loadProject } from '../project-files.ts'
import { parseRoles, ROLES } from '../roles.ts'
import type { Weir } from '../wire.ts'

type StartOptions = CommonOptions & { port?: number; host?: string; role: (typeof ROLES)[number][] }

/** Resolves at the first Ctrl-C or TERM. */
export const untilStopped = (): Promise<void> =>
  new Promise((resolve) => {
    const signal = stopSignal()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })

/** Stops; a stop that is not in time ends the process all the same: nothing that was acknowledged depends on it. */
export const stopWeir = async (weir: Weir): Promise<void> => {
  if ((await weir.stop()) === 'in time') return
  process.stderr.write(
    `weir: not everything was closed within ${weir.project.settings.server.stopMs} ms; nothing acknowledged is lost\n`,
  )
  process.exit(1)
}

export const startCommand = (program: Command): void => {
  const command = program
    .command('start')
    .option(
      '--port <port>',
      'TCP port; 0 takes a free one (default: server.port, 8080)',
      wholeNumber('--port', 0, 65_535),
    )
    .option('--host <host>', 'address to bind; without API keys loopback only (default: server.host, 127.0.0.1)')
    .option('--role <roles>', 'roles of this process, with commas', parseRoles, [...ROLES])
    .addHelpText(
      'after',
      `
Roles: ingest (the door), speed (fresh aggregates), batch (archive, extend, recompute), serving (queries).
Each role of a data folder runs in one process at a time. kill -9 at any moment is safe; the next start goes on.

Examples:
  weir start
  weir start --project shop --data /var/lib/weir --port 9000
  weir start --role ingest --port 8080 & weir start --role speed,batch,serving --port 8081
  weir keys create --scope admin && weir start --host 0.0.0.0

The log goes to stderr: JSON lines, or plain ones on a terminal. WEIR_LOG_LEVEL=debug says more.`,
    )
  projectOptions(command).action(async (options: StartOptions) => {
    const stopped = untilStopped()
    const { openWeir } = await import('../wire.ts')
    const project = await loadProject(projectFolder(options), options.config)
    const weir = await openWeir({
      project,
      dataDir: await dataFolder(options),
      roles: options.role,
      logger: openLogger(),
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.port === undefined ? {} : { port: options.port }),
    })
    out(`weir ${options.role.join(', ')} at ${weir.url}`)
    await stopped
    await stopWeir(weir)
    if (process.exitCode) throw new Exit(Number(process.exitCode))
  })
}
