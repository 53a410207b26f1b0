/**
 * `weir doctor`: what could go wrong here, before it does. Invariant: it only looks; what it writes to try a disk or a store it removes.
 * Servers are asked at the same time, each with a deadline.
 */
import { constants } from 'node:fs'
import { access, link, mkdir, open, rm, stat, statfs } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { isLoopback } from '../../http/auth.ts'
import { openFolderKeys } from '../../http/folder-keys.ts'
import { formatError } from '../../model/errors.ts'
import { type Project, ProjectErrors } from '../../model/project.ts'
import { type Settings, strayNames } from '../../model/settings.ts'
import { usesKafka, usesRedis, usesS3 } from '../../model/settings-servers.ts'
import { openClient } from '../client.ts'
import {
  type CommonOptions,
  dataFolder,
  jsonOption,
  projectFolder,
  readSettings,
  serverOptions,
  serverUrl,
  show,
} from '../context.ts'
import { holders } from '../lock.ts'
import { Exit } from '../output.ts'
import { loadProject } from '../project-files.ts'
import { strayText } from '../stray.ts'
import { type Finding, warning } from './doctor-finding.ts'

const GiB = 1024 ** 3

const node = (): Finding => {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const fits = major > 20 || (major === 20 && minor >= 19)
  return {
    check: 'node',
    state: fits ? 'ok' : 'problem',
    text: `${process.version}${fits ? '' : ', but 20.19 or newer is needed'}`,
  }
}

const project = async (options: CommonOptions): Promise<{ finding: Finding; found: Project | null }> => {
  const check = 'project'
  try {
    const found = await loadProject(projectFolder(options), options.config)
    const text = `${found.settings.name}: ${found.datasets.length} dataset(s), ${found.views.length} view(s)`
    return { finding: { check, state: 'ok', text }, found }
  } catch (error) {
    const first = error instanceof ProjectErrors ? error.errors[0] : error
    const text = formatError(first).split('\n')[0]!
    return { finding: { check, state: 'problem', text, next: 'see `weir check`' }, found: null }
  }
}

const strays = (): Finding[] =>
  strayNames(process.env).map((stray) =>
    warning('environment', strayText(stray), 'correct its name, or take it out of the environment'),
  )

/** The servers that the settings name; a profile without servers loads nothing of their clients. */
const servers = async (settings: Settings, found: Project | null): Promise<Finding[]> => {
  const datasets = found?.datasets ?? []
  const asked: Promise<Finding[]>[] = []
  if (usesKafka(settings))
    asked.push(import('./doctor-kafka.ts').then(({ kafkaFindings }) => kafkaFindings(settings, datasets)))
  if (usesRedis(settings)) asked.push(import('./doctor-redis.ts').then(({ redisFindings }) => redisFindings(settings)))
  if (usesS3(settings)) asked.push(import('./doctor-s3.ts').then(({ s3Findings }) => s3Findings(settings)))
  return (await Promise.all(asked)).flat()
}

/** The nearest folder above that exists: a data folder is made at the first start. */
const existing = async (folder: string): Promise<string> => {
  for (let at = resolve(folder); ; at = dirname(at)) {
    const found = await stat(at).catch(() => null)
    if (found?.isDirectory() || at === dirname(at)) return at
  }
}

const disk = async (data: string): Promise<Finding[]> => {
  const folder = await existing(data)
  const probe = join(folder, `.weir-doctor-${process.pid}`)
  const found: Finding[] = []
  try {
    await access(folder, constants.W_OK)
    await mkdir(probe)
    const file = await open(join(probe, 'a'), 'wx')
    await file.writeFile('x')
    await file.sync()
    await file.close()
    await link(join(probe, 'a'), join(probe, 'b'))
    found.push({ check: 'data folder', state: 'ok', text: `${data}: writable, fsync and hard links work` })
  } catch (error) {
    found.push({
      check: 'data folder',
      state: 'problem',
      text: `${data}: ${String(error)}; it must be writable and on a file system with hard links`,
    })
  } finally {
    await rm(probe, { recursive: true, force: true })
  }
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  found.push({
    check: 'disk',
    state: free < GiB ? 'problem' : free < 5 * GiB ? 'warning' : 'ok',
    text: `${(free / GiB).toFixed(1)} GiB free`,
  })
  return found
}

const portFree = (host: string, port: number): Promise<boolean> =>
  new Promise((done) => {
    const server = createServer()
    server.once('error', () => done(false))
    server.listen(port, host, () => server.close(() => done(true)))
  })

const server = async (options: CommonOptions, data: string): Promise<Finding[]> => {
  const running = await holders(data)
  if (running.length === 0 && options.url === undefined && !process.env.WEIR_URL) {
    const { host, port } = (await readSettings(options)).server
    const free = port === 0 || (await portFree(host, port))
    return [
      { check: 'server', state: 'ok', text: 'none runs on this data folder' },
      {
        check: 'port',
        state: free ? 'ok' : 'warning',
        text: `${host}:${port} is ${free ? 'free' : 'taken; start with --port <other>'}`,
      },
    ]
  }
  const url = await serverUrl(options)
  try {
    const answer = await openClient({ url, key: options.key ?? process.env.WEIR_API_KEY, retries: 0 }).send(
      'GET',
      '/readyz',
    )
    const { ready, reasons = [] } = JSON.parse(answer.body.toString('utf8')) as { ready: boolean; reasons?: string[] }
    return [
      {
        check: 'server',
        state: ready ? 'ok' : 'problem',
        text: ready ? `ready at ${url}` : `not ready at ${url}: ${reasons.join('; ')}`,
      },
    ]
  } catch (error) {
    return [{ check: 'server', state: 'problem', text: formatError(error).split('\n')[0]! }]
  }
}

const safety = async (options: CommonOptions, data: string): Promise<Finding[]> => {
  const { host } = (await readSettings(options)).server
  const keys = (await (await openFolderKeys(data)).list()).filter((k) => k.revokedAt === undefined)
  const found: Finding[] = []
  if (keys.length === 0 && !isLoopback(host))
    found.push({
      check: 'keys',
      state: 'problem',
      text: `server.host is ${host} and there is no API key: it will not start; \`weir keys create\``,
    })
  else
    found.push({
      check: 'keys',
      state: 'ok',
      text: keys.length ? `${keys.length} live key(s)` : 'none; loopback only, open to everybody on this machine',
    })
  const file = await stat(join(data, 'keys.json')).catch(() => null)
  if (file && (file.mode & 0o077) !== 0)
    found.push({
      check: 'keys file',
      state: 'warning',
      text: `${join(data, 'keys.json')} can be read by others: chmod 600`,
    })
  if (process.getuid?.() === 0)
    found.push({ check: 'user', state: 'warning', text: 'running as root; a user of its own is safer' })
  return found
}

const MARKS = { ok: '  ok     ', warning: '  warning', problem: '  PROBLEM' }
const line = ({ state, check, text, next }: Finding): string =>
  `${MARKS[state]}  ${check}: ${text}${next === undefined ? '' : `\n             → ${next}`}`

export const doctorCommand = (program: Command): void => {
  const command = program.command('doctor').addHelpText(
    'after',
    `
Servers that the settings name (Kafka, Redis, S3) are reached and asked: version, policy, rights, topics.

Examples:
  weir doctor
  weir doctor --project shop --json
  weir doctor --url http://10.0.0.5:8080`,
  )
  jsonOption(serverOptions(command)).action(async (options: CommonOptions) => {
    const data = await dataFolder(options)
    const settings = await readSettings(options)
    const { finding, found } = await project(options)
    const findings = [
      node(),
      finding,
      ...strays(),
      ...(await disk(data)),
      ...(await safety(options, data)),
      ...(await servers(settings, found)),
      ...(await server(options, data)),
    ]
    show(options, findings, () => findings.map(line).join('\n'))
    if (findings.some((f) => f.state === 'problem')) throw new Exit(1)
  })
}
