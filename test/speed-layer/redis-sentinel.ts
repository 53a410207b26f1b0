/** A master, its replica and a Sentinel of a test's own, plain or with TLS alone; and the certificate of all servers. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { freePort, until } from '../support/server.ts'
import { openRedisServer, type RedisServer } from './redis-server.ts'

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0

export type Certificate = { ca: string; caFile: string; settings: string[]; remove(): Promise<void> }

/** A certificate for 127.0.0.1 that is its own authority, and the settings of a server that has it. */
export const openCertificate = async (): Promise<Certificate> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-tls-'))
  const [key, caFile] = [join(folder, 'key.pem'), join(folder, 'ca.pem')]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  const made = spawnSync('openssl', ['req', ...kind, '-keyout', key, '-out', caFile, ...subject])
  if (made.status !== 0) throw new Error(String(made.stderr))
  const files = ['--tls-cert-file', caFile, '--tls-key-file', key, '--tls-ca-cert-file', caFile]
  return {
    ca: await readFile(caFile, 'utf8'),
    caFile,
    settings: [...files, '--tls-auth-clients', 'no'],
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

const offsetOf = (info: string, field: string): number =>
  Number(new RegExp(`^${field}:(\\d+)`, 'm').exec(info)?.[1] ?? -1)

export type SentinelGroup = {
  /** `host:port` of the Sentinel, which calls the master `weir`. */
  address: string
  master: RedisServer
  replica: RedisServer
  /** Resolves once the replica has all that the master has acknowledged. */
  replicated(): Promise<void>
  /** Resolves once the replica is the master. */
  promoted(): Promise<void>
  remove(): Promise<void>
}

/** `certificate`: servers and Sentinel talk by TLS, and to clients too; only the test's own connections do not. */
export const openSentinelGroup = async (certificate?: Certificate): Promise<SentinelGroup> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-sentinel-'))
  const open = async (settings: string[]): Promise<{ server: RedisServer; port: number }> => {
    const common = ['--maxmemory', '64mb', '--repl-diskless-sync-delay', '0', ...settings]
    if (certificate === undefined) {
      const server = await openRedisServer(common)
      return { server, port: server.port }
    }
    const port = await freePort()
    const tls = ['--tls-port', `${port}`, '--tls-replication', 'yes', ...certificate.settings]
    return { server: await openRedisServer([...common, ...tls]), port }
  }
  const master = await open([])
  const replica = await open(['--replicaof', '127.0.0.1', `${master.port}`])
  const port = await freePort()
  const lines = [
    ...(certificate === undefined ? [`port ${port}`] : ['port 0', `tls-port ${port}`, 'tls-replication yes']),
    'bind 127.0.0.1',
    `dir ${folder}`,
    `sentinel monitor weir 127.0.0.1 ${master.port} 1`,
    'sentinel down-after-milliseconds weir 500',
    'sentinel failover-timeout weir 3000',
  ]
  await writeFile(join(folder, 'sentinel.conf'), lines.join('\n'))
  const args = [join(folder, 'sentinel.conf'), '--sentinel', ...(certificate?.settings ?? [])]
  const child: ChildProcess = spawn('redis-server', args, { stdio: 'ignore' })
  const end = (): void => void child.kill('SIGKILL')
  process.on('exit', end)
  const tls = certificate === undefined ? {} : { tls: { ca: certificate.ca } }
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50, ...tls })
  client.on('error', () => undefined)
  const remove = async (): Promise<void> => {
    client.disconnect()
    if (child.exitCode === null) {
      const gone = once(child, 'exit')
      end()
      await gone
    }
    process.off('exit', end)
    for (const { server } of [master, replica]) {
      server.signal('SIGCONT')
      await server.remove()
    }
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await until('the Sentinel', 20_000, async () => {
      const replicas = (await client.call('SENTINEL', ['REPLICAS', 'weir'])) as unknown[]
      return replicas.length > 0 ? true : undefined
    })
    await until('the replica', 20_000, async () =>
      (await replica.server.client.info('replication')).includes('master_link_status:up') ? true : undefined,
    )
  } catch (error) {
    await remove()
    throw error
  }
  return {
    address: `127.0.0.1:${port}`,
    master: master.server,
    replica: replica.server,
    replicated: async () => {
      // Not WAIT: it waits for the writes of its own connection alone.
      const written = offsetOf(await master.server.client.info('replication'), 'master_repl_offset')
      await until('the replica', 20_000, async () =>
        offsetOf(await replica.server.client.info('replication'), 'slave_repl_offset') >= written ? true : undefined,
      )
    },
    promoted: async () => {
      await until('another master', 20_000, async () =>
        ((await replica.server.client.role()) as unknown[])[0] === 'master' ? true : undefined,
      )
    },
    remove,
  }
}
