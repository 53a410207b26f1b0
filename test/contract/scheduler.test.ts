/** The scheduler in the process keeps the scheduler's contract. */
import { openCronerScheduler } from '../../batch-layer/croner-scheduler.ts'
import { schedulerContract } from './scheduler.ts'

schedulerContract('croner', async () => ({
  open: async (options) => openCronerScheduler(options),
  jobsAreKept: false,
  remove: async () => undefined,
}))
