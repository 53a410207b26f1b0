/**
 * Whether a Redis is fit to hold speed state: at start, each minute, and for `weir doctor`.
 * Invariant: only asks, changes nothing. INFO, which every user may run, is enough for a verdict; what it does not tell is
 * asked from CONFIG, and where that is forbidden (managed services) a warning says what to look at by hand.
 */
import { WeirError } from '../model/errors.ts'
import type { RedisConnection } from './redis-client.ts'
import { READ } from './redis-scripts.ts'

export type RedisFinding = {
  /** 'error': Weir must not run on this. 'warning': it is exact, but less safe or soon in trouble. */
  severity: 'error' | 'warning'
  /** Address of the server. */
  node: string
  what: string
  expected: string
  got: string
  /** How to mend it. */
  next: string
}

export type RedisCheckOptions = {
  /** Persistence is a condition ('required', the default), or only advised: without it each restart of Redis is a rebuild. */
  persistence?: 'required' | 'advised'
  /** As the store is opened with; default `weir`. */
  keyPrefix?: string
}

type Info = Record<string, string>
type Report = (finding: Omit<RedisFinding, 'node'>) => void

const OLDEST_MAJOR = 7
/** Share of maxmemory above which somebody should know. */
const NEARLY_FULL = 0.8

/** Findings of all masters; empty when all is well. A server that does not answer is a finding. */
export const checkRedis = async (redis: RedisConnection, options: RedisCheckOptions = {}): Promise<RedisFinding[]> => {
  const findings: RedisFinding[] = []
  const [infos, saves] = await Promise.all([redis.onMasters('info', []), redis.onMasters('config', ['get', 'save'])])
  for (const { node, reply } of infos) {
    const report: Report = (finding) => void findings.push({ ...finding, node })
    if (reply instanceof Error) {
      report({
        severity: 'error',
        what: 'the server does not tell about itself',
        expected: 'an answer to INFO',
        got: reply.message,
        next: 'see that it runs, can be reached, and lets this user run INFO',
      })
      continue
    }
    const info = parseInfo(reply)
    checkServer(info, redis.kind, report)
    checkMemory(info, report)
    const save = saves.find((s) => s.node === node)?.reply
    checkPersistence(info, save === undefined || save instanceof Error ? null : savesOf(save), options, report)
  }
  if (redis.kind === 'cluster') findings.push(...(await checkSlots(redis)))
  await checkScripts(
    redis,
    options.keyPrefix ?? 'weir',
    (finding) => void findings.push({ ...finding, node: redis.at }),
  )
  return findings
}

/** A Cluster in which a part of the slots has no master refuses everything by default: the partitions of that part stand still. */
const checkSlots = async (redis: RedisConnection): Promise<RedisFinding[]> => {
  const states = await redis.onMasters('cluster', ['info'])
  return states.flatMap(({ node, reply }) => {
    const state = reply instanceof Error ? reply.message : /cluster_state:(\w+)/.exec(reply)?.[1]
    if (state === 'ok') return []
    const next = 'see `redis-cli --cluster check`, and bring the missing masters or their replicas back'
    return {
      severity: 'error',
      node,
      what: 'the Cluster is not whole',
      expected: 'cluster_state:ok',
      got: `${state}`,
      next,
    }
  })
}

/** Throws WEIR_SPEED_REDIS_UNFIT, naming every finding that is an error. */
export const refuseUnfit = (findings: RedisFinding[]): void => {
  const errors = findings.filter((f) => f.severity === 'error')
  if (errors.length === 0) return
  const list = (of: (f: RedisFinding) => string): string => [...new Set(errors.map(of))].join('; ')
  throw new WeirError({
    code: 'WEIR_SPEED_REDIS_UNFIT',
    message: `Redis cannot hold speed state: ${list((f) => `${f.what} at ${f.node}`)}.`,
    expected: list((f) => f.expected),
    got: list((f) => f.got),
    next: list((f) => f.next),
  })
}

const parseInfo = (text: string): Info =>
  Object.fromEntries(
    text.split(/\r?\n/).flatMap((line) => {
      const colon = line.indexOf(':')
      return line.startsWith('#') || colon < 0 ? [] : [[line.slice(0, colon), line.slice(colon + 1)]]
    }),
  )

/** The value in a reply to CONFIG GET save, which reaches us as `save,<value>`. */
const savesOf = (reply: string): string => reply.slice(reply.indexOf(',') + 1)

const checkServer = (info: Info, kind: RedisConnection['kind'], report: Report): void => {
  const version = info.redis_version ?? ''
  if (!(Number(version.split('.')[0]) >= OLDEST_MAJOR))
    report({
      severity: 'error',
      what: 'the server is too old for scripts with flags',
      expected: `Redis ${OLDEST_MAJOR}.0 or newer, or Valkey`,
      got: version || 'no version',
      next: 'upgrade Redis',
    })
  if (info.role !== undefined && info.role !== 'master')
    report({
      severity: 'error',
      what: 'the server is a replica',
      expected: 'a master',
      got: info.role,
      next: 'give the address of the master, of Sentinels, or of the Cluster',
    })
  if ((info.cluster_enabled === '1') !== (kind === 'cluster'))
    report({
      severity: 'error',
      what: info.cluster_enabled === '1' ? 'the server is part of a Cluster' : 'the server is not part of a Cluster',
      expected: kind === 'cluster' ? 'nodes of a Cluster' : 'a server on its own',
      got: `cluster_enabled:${info.cluster_enabled ?? ''}`,
      next: info.cluster_enabled === '1' ? 'give its nodes as cluster' : 'give its URL as url',
    })
}

const checkMemory = (info: Info, report: Report): void => {
  if (info.maxmemory_policy !== 'noeviction')
    report({
      severity: 'error',
      what: 'keys may be evicted',
      expected: 'maxmemory-policy noeviction',
      got: `maxmemory-policy ${info.maxmemory_policy ?? 'unknown'}`,
      next: 'CONFIG SET maxmemory-policy noeviction, and the same in its configuration',
    })
  const [most, used] = [Number(info.maxmemory ?? 0), Number(info.used_memory ?? 0)]
  if (most === 0)
    report({
      severity: 'warning',
      what: 'memory has no bound: the system ends Redis when it runs out',
      expected: 'maxmemory below the memory of the machine',
      got: 'maxmemory 0',
      next: 'set maxmemory; a full Redis refuses applies, and heals when a publish lets epochs be swept',
    })
  else if (used > most * NEARLY_FULL)
    report({
      severity: 'warning',
      what: 'memory is nearly full',
      expected: `at most ${NEARLY_FULL * 100} % of maxmemory`,
      got: `${Math.round((100 * used) / most)} %`,
      next: 'raise maxmemory, or extend more often so that epochs are swept',
    })
}

const checkPersistence = (info: Info, save: string | null, options: RedisCheckOptions, report: Report): void => {
  const severity = options.persistence === 'advised' ? 'warning' : 'error'
  const next = 'CONFIG SET appendonly yes, and the same in its configuration'
  if (info.aof_enabled !== '1' && save === null)
    report({
      severity: 'warning',
      what: 'whether Redis keeps snapshots cannot be asked: CONFIG is forbidden and the append-only file is off',
      expected: 'appendonly yes, or snapshots',
      got: `aof_enabled:${info.aof_enabled ?? ''}, ${info.rdb_saves ?? '?'} snapshots since its start`,
      next: 'see in the settings of the service that it persists',
    })
  else if (info.aof_enabled !== '1' && save === '')
    report({
      severity,
      what: 'nothing is persisted: each restart is a rebuild from the lake and the log',
      expected: 'appendonly yes, or snapshots',
      got: 'appendonly no, save ""',
      next,
    })
  for (const [field, what] of [
    ['aof_last_write_status', 'the append-only file cannot be written'],
    ['rdb_last_bgsave_status', 'the last snapshot failed'],
  ] as const)
    if (info[field] !== undefined && info[field] !== 'ok')
      report({
        severity: 'warning',
        what,
        expected: `${field}:ok`,
        got: `${field}:${info[field]}`,
        next: 'look at the disk of Redis and its log; it refuses changes meanwhile',
      })
}

/** Scripts are what everything runs by: one that only reads tells whether this user may run them. */
const checkScripts = async (redis: RedisConnection, prefix: string, report: Report): Promise<void> => {
  try {
    await redis.run(READ, [`${prefix}:{check}:h`, `${prefix}:{check}:e`], [], false)
  } catch (error) {
    const { message, got, next } = error as WeirError
    report({
      severity: 'error',
      what: 'scripts cannot be run',
      expected: 'a user that may run EVALSHA and EVAL on the keys of the prefix',
      got: got ?? message,
      next: next ?? 'see the log of Redis',
    })
  }
}
