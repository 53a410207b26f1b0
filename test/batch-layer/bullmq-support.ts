/** BullMQ for tests: the servers of the environment, and a prefix per test that is removed afterwards. */

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Cluster, Redis } from 'ioredis'
import { connect } from '../../batch-layer/bullmq-connection.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import { service } from '../support/services.ts'

export const SERVERS: { name: string; connection: RedisPlace | null }[] = [
  { name: 'single Redis', connection: one('REDIS_URL', (url) => ({ url })) },
  { name: 'Redis Cluster', connection: one('REDIS_CLUSTER', (list) => ({ cluster: list.split(',') })) },
]

function one(name: 'REDIS_URL' | 'REDIS_CLUSTER', of: (value: string) => RedisPlace): RedisPlace | null {
  const value = service(name)
  return value === null ? null : of(value)
}

export const newPrefix = (): string => `{weir-test-${crypto.randomUUID().slice(0, 8)}}`

/** Removes all keys that begin with a prefix. */
export const removeKeys = async (connection: RedisPlace, prefix: string): Promise<void> => {
  const client = await connect(connection, 'calls', () => undefined)
  try {
    const masters: Redis[] = 'nodes' in client ? (client as Cluster).nodes('master') : [client as Redis]
    for (const node of masters) {
      let cursor = '0'
      do {
        const [next, keys] = await node.scan(cursor, 'MATCH', `${prefix}:*`, 'COUNT', 1_000)
        cursor = next
        // By the client, which knows where a key lies now.
        if (keys.length > 0) await client.del(...keys)
      } while (cursor !== '0')
    }
  } finally {
    client.disconnect()
  }
}

const DEADLINE_MS = 20_000
/** Looks until the condition holds; fails at the deadline. */
export const until = async <T>(
  look: () => Promise<T | null | undefined | false>,
  what = 'the condition',
): Promise<T> => {
  const deadline = performance.now() + DEADLINE_MS
  for (;;) {
    const found = await look()
    if (found) return found
    if (performance.now() > deadline) throw new Error(`${what} did not come to hold`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** A process that does what bullmq-child.ts says; the lines that it said so far. */
export const startChild = (
  kind: 'jobs' | 'shards',
  connection: RedisPlace,
  prefix: string,
  engineVersion = '',
): { said: string[]; kill(): void } => {
  const file = fileURLToPath(new URL('./bullmq-child.ts', import.meta.url))
  const args = ['--import', 'tsx', file, kind, JSON.stringify(connection), prefix, '1000', engineVersion]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const said: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => said.push(line))
  return { said, kill: () => void child.kill('SIGKILL') }
}
