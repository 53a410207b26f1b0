/**
 * Options that many commands share, and what they resolve to: project folder, data folder, server, key.
 * Invariant: an option wins over its environment variable, that over weir.yaml, that over the default.
 */
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { WeirError } from '../model/errors.ts'
import { parseSettings, type Settings } from '../model/settings.ts'
import { type Client, openClient } from './client.ts'
import { holders } from './lock.ts'
import { out, outJson } from './output.ts'

export type CommonOptions = {
  project?: string
  data?: string
  config?: string
  url?: string
  key?: string
  json?: boolean
}

export const projectOptions = (command: Command): Command =>
  command
    .option('--project <dir>', 'project folder (default: the current one)')
    .option('--data <dir>', 'data folder (default: dataDir of weir.yaml, .weir)')
    .option('--config <file>', 'a settings file in place of <project>/weir.yaml')

export const serverOptions = (command: Command): Command =>
  projectOptions(command)
    .option('--url <url>', 'server (default: WEIR_URL, or the one that runs on the data folder)')
    .option('--key <key>', 'API key (better: the environment variable WEIR_API_KEY)')

export const jsonOption = (command: Command): Command => command.option('--json', 'print JSON, for scripts')

export const projectFolder = (options: CommonOptions): string => resolve(options.project ?? '.')

/** The settings file; '' where there is no weir.yaml. */
export const settingsText = async (options: CommonOptions): Promise<{ path: string; text: string }> => {
  const path = options.config ?? join(projectFolder(options), 'weir.yaml')
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && options.config === undefined) return ''
    throw error
  })
  return { path, text }
}

/** Settings alone, without compiling the project: what commands beside a server need. No weir.yaml: the defaults. */
export const readSettings = async (options: CommonOptions): Promise<Settings> => {
  const { path, text } = await settingsText(options)
  return parseSettings(text, process.env, path)
}

export const dataFolder = async (options: CommonOptions): Promise<string> =>
  resolve(options.data ?? (await readSettings(options)).dataDir)

export const serverUrl = async (options: CommonOptions): Promise<string> => {
  const named = options.url ?? process.env.WEIR_URL
  if (named !== undefined && named !== '') {
    if (/^https?:\/\/[^/]/.test(named)) return named
    throw new WeirError({
      code: 'WEIR_CLI_BAD_OPTION',
      message: 'The address of the server is not a URL.',
      expected: 'for example http://127.0.0.1:8080',
      got: named,
      next: 'correct --url or WEIR_URL',
    })
  }
  const running = (await holders(await dataFolder(options))).filter((h) => h.url !== null)
  const best = running.find((h) => h.role === 'serving') ?? running[0]
  return best?.url ?? `http://127.0.0.1:${(await readSettings(options)).server.port || 8080}`
}

export const clientOf = async (options: CommonOptions, signal?: AbortSignal): Promise<Client> =>
  openClient({ url: await serverUrl(options), key: options.key ?? process.env.WEIR_API_KEY, signal })

/** A result for a script, or as text for people. */
export const show = (options: { json?: boolean }, value: unknown, text: () => string): void => {
  if (options.json) outJson(value)
  else out(text())
}

/** Parsers of option values; wrong ones are wrong use (exit 2). */
export const listOf = (text: string): string[] =>
  text
    .split(',')
    .map((t) => t.trim())
    .filter((t) => t !== '')

export const wholeNumber =
  (name: string, from: number, to = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= from && value <= to) return value
    throw badOption(name, `a whole number from ${from} to ${to}`, text)
  }

export const share =
  (name: string) =>
  (text: string): number => {
    const value = Number(text)
    if (text.trim() !== '' && value >= 0 && value <= 1) return value
    throw badOption(name, 'a share from 0 to 1, for example 0.05', text)
  }

export const badOption = (name: string, expected: string, got: string, next?: string): WeirError =>
  new WeirError({ code: 'WEIR_CLI_BAD_OPTION', message: `${name} is not understood.`, expected, got, next })

let stopping: AbortController | undefined

/** Aborts at the first Ctrl-C or TERM; the second one ends the process as usual. One for the process. */
export const stopSignal = (): AbortSignal => {
  if (stopping) return stopping.signal
  const controller = new AbortController()
  stopping = controller
  const stop = (): void => controller.abort()
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  return controller.signal
}
