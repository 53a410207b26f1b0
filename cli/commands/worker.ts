/**
 * `weir worker` (hidden): shards of a recompute. On stdin first the place of the lake's store, then one JSON job a line; on stdout one JSON
 * reply a line. Started by worker-runner.ts.
 */
import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { decodeJob, runShard } from '../../batch-layer/shard.ts'
import { openEngine } from '../../engine/engine.ts'
import { WeirError } from '../../model/errors.ts'
import { openObjectStore, type StorePlace } from '../servers.ts'
import type { WorkerReply } from '../worker-runner.ts'

type WorkerCommandOptions = { memory: string; threads: string }

export const workerCommand = (program: Command): void => {
  program
    .command('worker', { hidden: true })
    .requiredOption('--memory <size>')
    .option('--threads <n>', '', '1')
    .action(async (options: WorkerCommandOptions) => {
      // Ctrl-C in a terminal reaches children too: the parent decides when they end.
      process.on('SIGINT', () => undefined)
      const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
      const { value: place, done } = await lines.next()
      if (done) return
      const lake = JSON.parse(place) as StorePlace
      const store = await openObjectStore(lake, false)
      const limits = { memoryLimit: options.memory, threads: Number(options.threads) }
      const engine = await openEngine({ ...limits, folders: [lake.folder] })
      const end = (): never => process.exit(0)
      process.on('SIGTERM', () => void engine.close().finally(end))
      for await (const line of { [Symbol.asyncIterator]: () => lines }) {
        let reply: WorkerReply
        try {
          reply = { result: await runShard({ store, engine, now: Date.now }, decodeJob(line)) }
        } catch (error) {
          const { code, next } =
            error instanceof WeirError ? error : { code: 'WEIR_CLI_WORKER_FAILED', next: undefined }
          reply = {
            error: {
              code,
              message: String((error as Error).message ?? error),
              ...(next === undefined ? {} : { next }),
            },
          }
        }
        process.stdout.write(`${JSON.stringify(reply)}\n`)
      }
      await engine.close()
      await store.close()
    })
}
