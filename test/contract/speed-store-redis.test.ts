/** The Redis speed store keeps the speed store's contract, on one server and on a Cluster. */

import { describe } from 'vitest'
import { speedStoreOnRedis } from '../speed-layer/redis-support.ts'
import { service } from '../support/services.ts'
import { speedStoreContract } from './speed-store.ts'

for (const name of ['REDIS_URL', 'REDIS_CLUSTER'] as const) {
  const at = service(name)
  describe.skipIf(at === null)(name, () => {
    speedStoreContract(name === 'REDIS_URL' ? 'Redis' : 'Redis Cluster', () => speedStoreOnRedis(name, at!))
  })
}
