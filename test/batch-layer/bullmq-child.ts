/** A batch process for tests, to be killed: runs jobs that never end. Says `running <view>` on its output. Arguments: connection, prefix, lock ms. */
import { openBullMqScheduler } from '../../batch-layer/bullmq-scheduler.ts'

const [connection, prefix, lockMs] = process.argv.slice(2)
await openBullMqScheduler({
  connection: JSON.parse(connection!),
  prefix: prefix!,
  work: true,
  lockMs: Number(lockMs),
  runner: ({ view }) => {
    process.stdout.write(`running ${view}\n`)
    return new Promise(() => undefined)
  },
})
process.stdout.write('ready\n')
