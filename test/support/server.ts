/** A real `weir start` as a child process: started on a free port, killed or stopped by pid. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

export const ROOT = join(import.meta.dirname, '..', '..')
export const MAIN = join(ROOT, 'dist', 'cli', 'main.js')

export const freePort = async (): Promise<number> => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

/** Polls until `check` gives a value; the last error is told when the deadline passes. */
export const until = async <T>(what: string, deadlineMs: number, check: () => Promise<T | undefined>): Promise<T> => {
  const end = performance.now() + deadlineMs
  let last: unknown = 'nothing yet'
  while (performance.now() < end) {
    try {
      const found = await check()
      if (found !== undefined) return found
    } catch (error) {
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(`waited ${deadlineMs} ms for ${what}: ${String(last)}`)
}

export type Server = {
  url: string
  child: ChildProcess
  /** Everything it printed so far. */
  output(): string
  kill(): Promise<void>
  /** SIGTERM; resolves to the exit code. */
  stop(): Promise<number | null>
}

const running = new Set<ChildProcess>()
// Whoever ends early, by a failure or a signal, leaves no process behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export const startServer = async (options: {
  project: string
  data: string
  port?: number
  args?: string[]
  env?: Record<string, string>
  ready?: boolean
  deadlineMs?: number
}): Promise<Server> => {
  if (!existsSync(MAIN)) throw new Error(`${MAIN} is missing: run npm run build`)
  const port = options.port ?? (await freePort())
  const child = spawn(
    process.execPath,
    [
      MAIN,
      'start',
      '--project',
      options.project,
      '--data',
      options.data,
      '--port',
      String(port),
      ...(options.args ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } },
  )
  running.add(child)
  child.once('exit', () => running.delete(child))
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (printed += String(chunk)))
  let ended: { code: number | null } | undefined
  const exit = once(child, 'exit').then(([code]) => (ended = { code: code as number | null }))
  const url = `http://127.0.0.1:${port}`
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exit
  }
  try {
    await until('the server', options.deadlineMs ?? 60_000, async () => {
      if (ended) return true
      const { status } = await fetch(`${url}${options.ready === false ? '/healthz' : '/readyz'}`)
      return status === 200 ? true : undefined
    })
    if (ended) throw new Error('the server ended')
  } catch (error) {
    await kill()
    throw new Error(`${String(error)}\n${printed}`)
  }
  return {
    url,
    child,
    output: () => printed,
    kill,
    stop: async () => {
      child.kill('SIGTERM')
      return (await exit).code
    },
  }
}
