/**
 * A speed worker of one partition on Kafka and Redis, in a process of its own. Invariant: it is told when to begin and tells
 * what it has counted, both over the channel to the process that forked it; without that one it ends.
 *
 * argv: WorkerTask as JSON.
 */
import { once } from 'node:events'
import { openSpeedWorker } from '../../speed-layer/worker.ts'
import { measured } from '../harness/cpu.ts'
import { drain, openWorld } from '../world.ts'
import type { WorkerDone, WorkerTask } from './cluster-drain.ts'
import { kafkaLog, redisStore } from './cluster-servers.ts'

const tell = (message: 'ready' | WorkerDone): void => void process.send!(message)

const { topic, keys, data, partition } = JSON.parse(process.argv[2]!) as WorkerTask
process.once('disconnect', () => process.exit(1))

const world = await openWorld({ project: 'stream', data })
const log = await kafkaLog(topic)
const store = await redisStore(keys)
await world.adopt()
const { engine, dataset } = world
const { history, publications, versions, settings } = world.ctx
const worker = await openSpeedWorker({
  log,
  store,
  history,
  publications,
  engine,
  dataset,
  partition,
  versions,
  settings: settings.speed,
})
tell('ready')
await once(process, 'message')
// `drain` asks where partition 0 ends; here that is the end of the partition of this process.
const own = { ...log, range: (name: string) => log.range(name, partition) }
const { cpuS, wallS } = await measured(() => drain({ ...world, ctx: { ...world.ctx, log: own } }, worker))
const { counted, duplicate, dead } = worker.state()
tell({ counted, duplicate, dead, cpuS, wallS })
await worker.close()
await store.close()
await log.close()
await world.close()
process.removeAllListeners('disconnect')
process.disconnect()
