/** Redis, as `weir doctor` sees it: is it fit for speed state, and can BullMQ keep its queues there? Changes nothing. */

import { countJobs } from '../../batch-layer/bullmq-look.ts'
import type { RedisPlace } from '../../model/redis-place.ts'
import type { Settings } from '../../model/settings.ts'
import { checkRedis } from '../../speed-layer/redis-check.ts'
import { openRedis } from '../../speed-layer/redis-client.ts'
import { redisConnection } from '../servers.ts'
import { ANSWER_MS, type Finding, failed, lookAt, ok } from './doctor-finding.ts'

const versionsOf = (infos: { reply: string | Error }[]): string =>
  [
    ...new Set(
      infos.map(({ reply }) => (reply instanceof Error ? '?' : (/redis_version:(\S+)/.exec(reply)?.[1] ?? '?'))),
    ),
  ].join(', ')

const speed = async (place: RedisPlace, keyPrefix: string): Promise<Finding[]> => {
  const redis = await openRedis({ ...place, timeoutMs: ANSWER_MS })
  try {
    const [found, infos] = await Promise.all([checkRedis(redis, { keyPrefix }), redis.onMasters('info', ['server'])])
    if (found.length === 0) {
      const what = `${versionsOf(infos)}, ${redis.kind}, ${infos.length} master(s): noeviction, persisted, runs scripts`
      return [ok(`redis ${redis.at}`, what)]
    }
    return found.map(({ severity, node, what, expected, got, next }) => ({
      check: `redis ${node}`,
      state: severity === 'error' ? 'problem' : 'warning',
      text: `${what}: ${got}, expected ${expected}`,
      next,
    }))
  } finally {
    await redis.close()
  }
}

const queues = async (place: RedisPlace, prefix: string): Promise<Finding[]> => {
  const { waiting, active, failed: lost } = await countJobs(place, prefix)
  return [ok('job queues', `BullMQ under ${prefix}: ${waiting} waiting, ${active} running, ${lost} failed`)]
}

export const redisFindings = async (settings: Settings): Promise<Finding[]> =>
  lookAt('redis', async () => {
    const place = await redisConnection(settings)
    if (place === null) return []
    const found = await speed(place, settings.redis.prefix).catch((error: unknown) => [failed('redis', error)])
    // What ails the server ails the queues: no second word.
    const isUnfit = found.some((f) => f.state === 'problem')
    if (settings.batch.scheduler === 'embedded' || isUnfit) return found
    return [...found, ...(await lookAt('job queues', () => queues(place, `{${settings.redis.prefix}}`), ANSWER_MS))]
  })
