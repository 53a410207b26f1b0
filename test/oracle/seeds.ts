/** Runs many schedules; on a failure, the minimal trace and how to replay it. */
import { printStep, randomSchedule, type Schedule, shrink } from './schedule.ts'
import { type Lab, memoTools, runSchedule, type WorldStats } from './world.ts'

export type SeedsOptions = {
  from: number
  seeds: number
  keepGoing?: boolean
  /** Do not shrink: a canary only wants to know. */
  quick?: boolean
  log?: (line: string) => void
  trace?: (line: string) => void
}
export type SeedFailure = { seed: number; error: string; trace: string[] }
export type SeedsResult = { stats: WorldStats & { schedules: number }; failures: SeedFailure[] }

export const runSeeds = async (shared: Lab, options: SeedsOptions): Promise<SeedsResult> => {
  const lab = { ...shared, tools: memoTools(shared.tools) }
  const stats: SeedsResult['stats'] = { schedules: 0, answers: 0, refusals: {}, crashes: 0, published: 0 }
  const failures: SeedFailure[] = []
  const attempt = async (schedule: Schedule, trace?: (line: string) => void): Promise<unknown> => {
    try {
      const one = await runSchedule(lab, schedule, trace)
      stats.answers += one.answers
      stats.crashes += one.crashes
      stats.published += one.published
      for (const [code, n] of Object.entries(one.refusals)) stats.refusals[code] = (stats.refusals[code] ?? 0) + n
      return null
    } catch (error) {
      return error
    }
  }
  for (let seed = options.from; seed < options.from + options.seeds; seed++) {
    const schedule = randomSchedule(seed)
    const error = await attempt(schedule, options.trace)
    stats.schedules++
    if (stats.schedules % 100 === 0) options.log?.(`${stats.schedules} schedules, ${stats.answers} answers compared`)
    if (error === null) continue
    let smallest = schedule
    if (!options.quick) smallest = await shrink(schedule, async (s) => (await attempt(s)) !== null)
    const last = options.quick ? error : ((await attempt(smallest)) ?? error)
    const failure = {
      seed,
      error: last instanceof Error ? (last.stack ?? last.message) : String(last),
      trace: smallest.steps.map(printStep),
    }
    failures.push(failure)
    options.log?.(
      `seed ${seed} fails (stores: ${schedule.stores}):\n${failure.error}\nminimal trace of ${failure.trace.length} steps:\n  ${failure.trace.join('\n  ')}\nreplay: npm run oracle -- --seeds 1 --from ${seed} --trace`,
    )
    if (!options.keepGoing) break
  }
  return { stats, failures }
}
