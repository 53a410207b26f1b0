/**
 * A batch process for tests, to be killed: its work never ends. Says `running …` on its output for each job that it began.
 * Arguments: `jobs` or `shards`, connection, prefix, lock ms, version of the engine.
 */
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'
import { openBullMqShardWorker } from '../../batch-layer/bullmq-shard-worker.ts'
import { decodeJob } from '../../batch-layer/shard.ts'

const [kind, connection, prefix, lockMs, engineVersion] = process.argv.slice(2)
const common = { connection: JSON.parse(connection!), prefix: prefix!, lockMs: Number(lockMs) }
const never = (what: string): Promise<never> => {
  process.stdout.write(`running ${what}\n`)
  return new Promise(() => undefined)
}
if (kind === 'jobs') await openBullMqScheduler({ ...common, work: true, runner: ({ view }) => never(view) })
else
  await openBullMqShardWorker({
    ...common,
    engineVersion: engineVersion!,
    run: (encoded) => never(decodeJob(encoded).recordKey),
  })
