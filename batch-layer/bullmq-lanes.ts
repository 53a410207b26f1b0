/**
 * Lanes over several processes: one job of a (view, action) runs at a time; those that find their lane taken are parked, and the oldest is
 * woken when it is free. Invariant: a lane belongs to a job, not to a process, and only for as long as BullMQ calls that job active, so
 * that nothing has to expire. Two jobs in one lane would be waste, not harm: jobs propose, the commit decides.
 *
 * Keys: `<prefix>:lanes:running`, a hash lane → job id; `<prefix>:lanes:parked:<lane>`, a sorted set of job ids by order.
 */
import type { RedisClient } from './bullmq-connection.ts'

/**
 * Takes a lane, or is noted as parked.
 * KEYS: running, parked. ARGV: lane, job id, order, id of a holder that is active no longer or ''. Returns the id that has the lane.
 * Atomic, because between a look and a write another process could take it.
 */
const TAKE = `
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and holder ~= ARGV[2] and holder ~= ARGV[4] then
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
  return holder
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
return ARGV[2]`

/**
 * Frees a lane, if the job has it.
 * KEYS: running, parked. ARGV: lane, job id. Returns the id of the oldest parked job, taken off the list, or ''.
 * Atomic, because the lane may have passed to another job meanwhile.
 */
const RELEASE = `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return '' end
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZPOPMIN', KEYS[2])[1] or ''`

export type Lanes = {
  /** Id of the job that has the lane now: ours, or another's, and then ours is parked. `gone` names a holder to be put out. */
  take(lane: string, id: string, order: number, gone?: string): Promise<string>
  /** The oldest job that was parked, if any. */
  release(lane: string, id: string): Promise<string | null>
  holder(lane: string): Promise<string | null>
  /** Ids of all jobs that have a lane. */
  holders(): Promise<Set<string>>
}

export const openLanes = (client: RedisClient, prefix: string): Lanes => {
  const running = `${prefix}:lanes:running`
  const parked = (lane: string): string => `${prefix}:lanes:parked:${lane}`
  return {
    take: async (lane, id, order, gone = '') =>
      String(await client.eval(TAKE, 2, running, parked(lane), lane, id, order, gone)),
    release: async (lane, id) => String((await client.eval(RELEASE, 2, running, parked(lane), lane, id)) ?? '') || null,
    holder: (lane) => client.hget(running, lane),
    holders: async () => new Set(await client.hvals(running)),
  }
}
