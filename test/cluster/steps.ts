/** What may happen to a cluster: steps of random schedules, and the faults among them. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Random } from '../../cli/random.ts'
import { type Fault, noFaults, seededFaults } from '../support/s3-proxy.ts'
import { ROOT } from '../support/server.ts'
import type { ClusterWorld } from './world.ts'

/** Faults of an S3 store that a client must get over, or refuse loudly. */
const S3_FAULTS: Fault[] = [409, 412, 500, 503, 'cut-before', 'cut-after', 'cut-body', 'late', { delayMs: 200 }]

export type Servers = {
  /** Ends a server with KILL and starts it again: `kafka`, `redis`, `redis-cluster-2`, …. */
  restart(name: string): Promise<void>
  /** Takes everything, or some keys, of this prefix away from Redis. */
  lose(prefix: string, share: number, r: Random): Promise<number>
  /** A replica takes over from its master (Redis Cluster only). */
  failover(r: Random): Promise<void>
  isCluster: boolean
}

const program = (file: string, args: string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', join(ROOT, file), ...args], {
      cwd: ROOT,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')))
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${file} ${args.join(' ')}: ${code}\n${said}`)),
    )
  })

export const openServers = async (redis: Record<string, string>): Promise<Servers & { close(): void }> => {
  const { Cluster, Redis } = await import('ioredis')
  const nodes = redis.WEIR_REDIS_CLUSTER?.split(',').map((n) => ({
    host: n.split(':')[0]!,
    port: Number(n.split(':')[1]),
  }))
  const client = nodes ? new Cluster(nodes) : new Redis(redis.WEIR_REDIS_URL!)
  // Reconnecting is what the client is for; errors in between are expected here.
  client.on('error', () => undefined)
  const masters = (): InstanceType<typeof Redis>[] => ('nodes' in client ? client.nodes('master') : [client])
  return {
    isCluster: nodes !== undefined,
    restart: (name) => program('scripts/services/main.ts', ['restart', name, 'KILL']),
    lose: async (prefix, share, r) => {
      let lost = 0
      for (const node of masters())
        for await (const keys of node.scanStream({ match: `${prefix}:*`, count: 1_000 }))
          for (const key of keys as string[]) if (r.chance(share)) lost += await client.del(key)
      return lost
    },
    failover: async (r) => {
      if (!('nodes' in client)) return
      const replica = r.pick(client.nodes('slave'))
      await replica.call('CLUSTER', 'FAILOVER').catch(() => undefined)
    },
    close: () => client.disconnect(),
  }
}

type Step = { name: string; weight: number; run(w: ClusterWorld, servers: Servers): Promise<string | undefined> }

const someProcess = (w: ClusterWorld) => {
  const all = [
    ...new Set((['ingest', 'speed', 'batch', 'serving'] as const).flatMap((role) => w.cluster.running(role))),
  ]
  return all.length === 0 ? null : w.r.pick(all)
}

const STEPS: Step[] = [
  { name: 'send', weight: 10, run: async (w) => void (await w.send()) },
  { name: 'produce', weight: 4, run: async (w) => void (await w.produce()) },
  { name: 'ask', weight: 10, run: async (w) => void (await w.ask()) },
  { name: 'job', weight: 4, run: async (w) => void (await w.job()) },
  {
    name: 'kill',
    weight: 1.2,
    run: async (w) => {
      const server = someProcess(w)
      if (server === null) return undefined
      const roles = w.cluster.rolesOf(server)
      // Under load, and something is asked while it is away.
      await Promise.all([w.send(), w.cluster.kill(server)])
      await w.ask()
      await w.cluster.start(roles)
      return roles
    },
  },
  {
    name: 'rebalance',
    weight: 0.6,
    run: async (w) => {
      const extra = await w.cluster.start('speed')
      await w.send()
      await w.ask()
      if (w.r.chance(0.5)) await w.cluster.kill(extra)
      else await w.cluster.stop(extra)
      return undefined
    },
  },
  {
    name: 's3 faults',
    weight: 1.5,
    run: async (w) => {
      const share = w.r.pick([0.05, 0.2, 0.5])
      w.proxy.plan(seededFaults(w.r.int(1, 1e9), share, S3_FAULTS))
      return `${share}`
    },
  },
  { name: 's3 mends', weight: 1.5, run: async (w) => void w.proxy.plan(noFaults) },
  {
    name: 'redis loses keys',
    weight: 0.8,
    run: async (w, servers) => {
      const share = w.r.pick([1, 1, 0.5, 0.1])
      return `${await servers.lose(w.cluster.name, share, w.r)} keys`
    },
  },
  {
    name: 'redis restarts',
    weight: 0.25,
    run: async (w, servers) => {
      const name = servers.isCluster ? `redis-cluster-${w.r.int(1, 7)}` : 'redis'
      await Promise.all([w.send(), servers.restart(name)])
      return name
    },
  },
  { name: 'redis failover', weight: 0.4, run: async (w, servers) => void (await servers.failover(w.r)) },
  {
    name: 'broker killed in mid-produce',
    weight: 0.08,
    run: async (w, servers) => {
      const restarted = servers.restart('kafka')
      await Promise.all([w.send(), w.send(), w.send()])
      await restarted
      return undefined
    },
  },
]
const TOTAL = STEPS.reduce((sum, s) => sum + s.weight, 0)

const drawn = (r: Random): Step => {
  const at = r.next() * TOTAL
  let sum = 0
  for (const step of STEPS) {
    sum += step.weight
    if (at < sum) return step
  }
  return STEPS[0]!
}

/** One schedule: steps, then quiet, then everything must be there and right. */
export const runSchedule = async (w: ClusterWorld, servers: Servers): Promise<void> => {
  const count = w.r.int(8, 20)
  for (let n = 0; n < count; n++) {
    const step = drawn(w.r)
    w.trace(`${n} ${step.name}`)
    const what = await step.run(w, servers)
    if (what !== undefined) w.trace(`    ${what}`)
  }
  w.proxy.plan(noFaults)
  w.trace('settle')
  await w.settle(90_000)
}
