/**
 * A started Weir server as its own process, and a client that costs little. Invariant: the server listens on loopback on a
 * free port, its CPU and memory are read from outside, and it is ended whatever happens.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { Agent, request as httpRequest } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ProjectName, projectFiles, settingsOf } from './project.ts'

export type Answer = { status: number; body: Buffer }

export type Client = {
  post(path: string, body: Uint8Array | string, type?: string): Promise<Answer>
  get(path: string): Promise<Answer>
  close(): void
}

/** Keeps connections; retries nothing. */
export const openClient = (url: string, sockets: number): Client => {
  const agent = new Agent({ keepAlive: true, maxSockets: sockets })
  const { hostname, port } = new URL(url)
  const send = (method: string, path: string, body: Uint8Array | string | null, type: string): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const headers = body === null ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(body) }
      const req = httpRequest({ agent, hostname, port, method, path, headers, timeout: 60_000 }, (res) => {
        const parts: Buffer[] = []
        res.on('data', (part: Buffer) => parts.push(part))
        res.on('end', () => resolve({ status: res.statusCode ?? 0, body: Buffer.concat(parts) }))
        res.on('error', reject)
      })
      req.on('error', reject)
      req.on('timeout', () => req.destroy(new Error(`${method} ${path} was not answered within a minute`)))
      req.end(body ?? undefined)
    })
  return {
    post: (path, body, type = 'application/json') => send('POST', path, body, type),
    get: (path) => send('GET', path, null, ''),
    close: () => agent.destroy(),
  }
}

export const EVENTS_PATH = '/v1/events/events'
export const NDJSON = 'application/x-ndjson'

export type Server = {
  url: string
  pid: number
  /** TERM, then waits; throws when it does not end by itself. */
  stop(): Promise<void>
}

export type ServerOptions = {
  /** Folder for the project's files. */
  scratch: string
  data: string
  project: ProjectName
  roles?: string
  /** Schedule of extends; default every minute. */
  extend?: string
  /** Settings by environment, WEIR_…: servers to stand on. */
  env?: Record<string, string>
}

const main = join(dirname(fileURLToPath(import.meta.url)), '..', 'cli', 'main.js')
const START_MS = 60_000
const STOP_MS = 30_000

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve()
    else child.once('exit', () => resolve())
  })

export const startServer = async (options: ServerOptions): Promise<Server> => {
  const project = join(options.scratch, 'project')
  for (const file of projectFiles(options.project, settingsOf('', options.extend))) {
    await mkdir(dirname(join(project, file.path)), { recursive: true })
    await writeFile(join(project, file.path), file.text)
  }
  const roles = options.roles === undefined ? [] : ['--role', options.roles]
  const child = spawn(
    process.execPath,
    [main, 'start', '--project', project, '--data', options.data, '--port', '0', ...roles],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, WEIR_LOG_LEVEL: 'warn', ...options.env } },
  )
  process.once('exit', () => child.kill('SIGKILL'))
  let said = ''
  const url = await new Promise<string>((resolve, reject) => {
    const failed = (why: string): void => {
      child.kill('SIGKILL')
      reject(new Error(`the server did not start (${why}):\n${said}`))
    }
    const timer = setTimeout(() => failed('no address within a minute'), START_MS)
    const look = (part: Buffer): void => {
      said = (said + part.toString('utf8')).slice(-10_000)
      const found = / at (http:\/\/\S+)/.exec(said)
      if (!found) return
      clearTimeout(timer)
      resolve(found[1]!)
    }
    child.stdout.on('data', look)
    child.stderr.on('data', look)
    child.on('exit', (code) => {
      clearTimeout(timer)
      failed(`it ended with ${code}`)
    })
  })
  const client = openClient(url, 1)
  await until(
    'the server is ready',
    async () => (await client.get('/readyz')).status === 200,
    () => said,
  )
  client.close()
  return {
    url,
    pid: child.pid!,
    stop: async () => {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await ended(child)
      clearTimeout(timer)
      if (child.exitCode !== 0) throw new Error(`the server ended with ${child.exitCode ?? child.signalCode}:\n${said}`)
    },
  }
}

/** Asks again every 20 ms until it holds; throws after a minute. */
export const until = async (
  what: string,
  holds: () => Promise<boolean>,
  said: () => string = () => '',
  deadlineMs = 60_000,
): Promise<void> => {
  const deadline = performance.now() + deadlineMs
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}\n${said()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Throws unless every event of a request was accepted; the token of the answer. */
export const accepted = (answer: Answer, events: number): string => {
  const body = JSON.parse(answer.body.toString('utf8')) as { accepted?: number; token?: string }
  if (answer.status !== 200 || body.accepted !== events)
    throw new Error(
      `${events} events were sent, and the answer was ${answer.status} ${answer.body.toString('utf8').slice(0, 500)}`,
    )
  return body.token!
}
