/** One Redis by itself and a cluster of 3 masters with a replica each, from the system's package. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './install.ts'
import { RUN } from './run-folder.ts'

/** As Weir asks of a Redis: append-only file, no eviction. */
export const prepareRedis = async (port: number, cluster: boolean): Promise<string[]> => {
  const folder = join(RUN, `redis-${port}`)
  await mkdir(folder, { recursive: true })
  const settings = {
    port: String(port),
    bind: '127.0.0.1',
    dir: folder,
    save: '',
    appendonly: 'yes',
    appendfsync: 'everysec',
    maxmemory: '1gb',
    'maxmemory-policy': 'noeviction',
    ...(cluster ? { 'cluster-enabled': 'yes', 'cluster-node-timeout': '2000' } : {}),
  }
  return ['redis-server', ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])]
}

const ask = (port: number, ...command: string[]): Promise<string> => run('redis-cli', ['-p', String(port), ...command])

export const redisAnswers = async (port: number): Promise<boolean> => (await ask(port, 'ping')).trim() === 'PONG'

export const clusterAnswers = async (port: number): Promise<boolean> =>
  (await ask(port, 'cluster', 'info')).includes('cluster_state:ok')

export const joinCluster = async (ports: number[]): Promise<void> => {
  const nodes = ports.map((port) => `127.0.0.1:${port}`)
  await run('redis-cli', ['--cluster', 'create', ...nodes, '--cluster-replicas', '1', '--cluster-yes'])
}
