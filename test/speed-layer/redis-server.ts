/** A redis-server of a test's own, on a free port, to be killed, stopped and brought back; and a proxy that loses replies. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { freePort, until } from '../support/server.ts'

export type RedisServer = {
  port: number
  url: string
  folder: string
  /** A connection past every proxy. */
  client: Redis
  signal(name: NodeJS.Signals): void
  kill(): Promise<void>
  /** Starts it again: with its data, with none, or with those of an earlier `copy`. */
  start(data?: 'kept' | 'none' | { copy: string }): Promise<void>
  /** Resolves once all that it has answered is in its append-only file: a write waits while another one is being flushed. */
  written(): Promise<void>
  /** A copy of its append-only file, with all that it has answered. */
  copy(): Promise<string>
  remove(): Promise<void>
}

export const openRedisServer = async (settings: string[] = [], givenPort?: number): Promise<RedisServer> => {
  const port = givenPort ?? (await freePort())
  const folder = await mkdtemp(join(tmpdir(), 'weir-redis-'))
  const data = join(folder, 'data')
  const client = new Redis({ port, host: '127.0.0.1', lazyConnect: true, retryStrategy: () => 50 })
  client.on('error', () => undefined)
  let child: ChildProcess | undefined
  let copies = 0

  // A test run that ends early leaves no server behind.
  const end = (): void => void child?.kill('SIGKILL')
  process.on('exit', end)
  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }
  const start: RedisServer['start'] = async (from = 'kept') => {
    await kill()
    if (from !== 'kept') await rm(data, { recursive: true, force: true })
    if (typeof from === 'object') await cp(from.copy, data, { recursive: true })
    await mkdir(data, { recursive: true })
    const fixed = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', data, '--save', '', '--daemonize', 'no']
    const persistent = ['--appendonly', 'yes', '--appendfsync', 'everysec', '--maxmemory-policy', 'noeviction']
    child = spawn('redis-server', [...fixed, ...persistent, ...settings], { stdio: 'ignore' })
    await until(`redis-server at ${port}`, 20_000, async () => {
      if (client.status !== 'ready') throw new Error(`${client.status}, exit ${child?.exitCode}`)
      return (await client.ping()) === 'PONG' ? true : undefined
    })
  }
  const written = async (): Promise<void> => {
    await until('the append-only file', 20_000, async () =>
      /aof_buffer_length:0\r[\s\S]*aof_pending_bio_fsync:0\r/.test(await client.info('persistence')) ? true : undefined,
    )
  }
  const opened = start()
  client.connect().catch(() => undefined)
  await opened
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    folder,
    client,
    signal: (name) => void child?.kill(name),
    kill,
    start,
    written,
    copy: async () => {
      await written()
      const target = join(folder, `copy-${copies++}`)
      await cp(data, target, { recursive: true })
      return target
    },
    remove: async () => {
      client.disconnect()
      await kill()
      process.off('exit', end)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export type RedisProxy = {
  url: string
  /** What happens to the next request of more than 300 bytes: it is not passed on, or its reply is not; then the connection ends. */
  loseNext(what: 'request' | 'reply'): void
  /** Connections that were cut. */
  cuts(): number
  close(): Promise<void>
}

export const openRedisProxy = async (port: number): Promise<RedisProxy> => {
  let next: 'request' | 'reply' | null = null
  let cuts = 0
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    let isMute = false
    const end = (): void => {
      near.destroy()
      far.destroy()
    }
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', end)
      socket.on('close', () => {
        sockets.delete(socket)
        end()
      })
    }
    near.on('data', (bytes) => {
      if (next !== null && bytes.byteLength > 300) {
        const what = next
        next = null
        cuts++
        if (what === 'request') return end()
        isMute = true
      }
      far.write(bytes)
    })
    far.on('data', (bytes) => {
      // Redis has answered, so it has carried the request out.
      if (isMute) return end()
      near.write(bytes)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address() as { port: number }
  return {
    url: `redis://127.0.0.1:${address.port}`,
    loseNext: (what) => {
      next = what
    },
    cuts: () => cuts,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
