/**
 * Blocks of an install, put aside in Redis before the commit that takes them.
 * Invariant: each request is bounded, and the commit renames a whole hash or none; what no commit takes expires by itself. State
 * never expires: the commit takes the expiry away in the step that makes it state.
 */
import { randomUUID } from 'node:crypto'
import type { Block } from '../model/ports/speed-store.ts'
import type { Argument, RedisConnection } from './redis-client.ts'
import { STAGE } from './redis-scripts.ts'
import { encodeRedisBlocks, type RedisKeys } from './redis-values.ts'

/** From the last part on: far longer than the parts of another epoch take, short enough not to fill Redis. */
const KEPT_SECONDS = 900

/** Name of the hash that now has the blocks. */
export const stageBlocks = async (
  redis: RedisConnection,
  keys: RedisKeys,
  blocks: Block[],
  requestBytes: number,
): Promise<string> => {
  const name = keys.staged(randomUUID())
  let part: Argument[] = []
  let bytes = 0
  const send = async (): Promise<void> => {
    await redis.run(STAGE, [name], [KEPT_SECONDS, ...part], true)
    part = []
    bytes = 0
  }
  for await (const { id, value } of encodeRedisBlocks(blocks)) {
    part.push(id, value)
    bytes += value.byteLength
    if (bytes >= requestBytes) await send()
  }
  if (part.length > 0) await send()
  return name
}
