/** Once faults stop, a world converges by ordinary work alone. */
import { archiverOf } from '../../batch-layer/archiver.ts'
import { catchUp } from '../../batch-layer/catch-up.ts'
import { extend } from '../../batch-layer/extend.ts'
import { recompute } from '../../batch-layer/recompute.ts'
import { retireCovered } from '../../batch-layer/retire.ts'
import { verify } from '../../batch-layer/verify.ts'
import { random } from '../../cli/random.ts'
import { check, compare } from './answers.ts'
import { reopenSpeed } from './processes.ts'
import { wholeQuery } from './queries.ts'
import { Difference, type Speed, tolerated, type World } from './state.ts'
import { noDifference } from './work.ts'

/** The speed side alone: lost, rolled-back or unfit state is rebuilt without any batch work, while the log holds every cut (rule 8). */
const healAlone = async (w: World, speed: Speed): Promise<void> => {
  const { partitions, answering } = w
  await speed.versions.refresh()
  await answering.versions.refresh()
  for (const p of partitions)
    for (let i = 0; i < 300; i++) if ((await speed.workers.get(p)!.step()).kind === 'idle') break
  const states = partitions.map((p) => speed.workers.get(p)!.state())
  if (states.some((s) => s.stopped !== null || Object.values(s.versions).includes('below-start'))) return
  for (const { name } of w.project.views) {
    const view = answering.versions.active(name)
    if (view === null) continue
    for (let tries = 0; (await compare(w, view, wholeQuery(view))) === null; tries++)
      if (tries > 20) throw new Difference(`the speed side does not heal by itself: ${JSON.stringify(states)}`)
  }
}

/** No more faults: everything must converge by ordinary work alone. */
export const calm = async (w: World): Promise<void> => {
  await reopenSpeed(w, 0, true)
  const { speeds, batches, answering, partitions, expected, stats, alarms } = w
  const { dataset } = w.project
  const ends = (): string => JSON.stringify(partitions.map((p) => expected.end(p)))
  const [speed, batch] = [speeds[0]!, batches[0]!]
  for (const s of speeds) await s.versions.refresh()
  const errors: unknown[] = []
  const attempt = async (run: () => Promise<unknown>): Promise<void> => {
    try {
      await run()
    } catch (error) {
      if (!tolerated(w, error)) throw error
      errors.push(error)
    }
  }
  await healAlone(w, speed)
  for (let round = 0; round < 12; round++) {
    errors.length = 0
    await attempt(() => batch.ctx.versions.refresh())
    await attempt(() => speed.versions.refresh())
    for (const p of partitions)
      for (let i = 0; i < 12; i++) {
        const before = errors.length
        const kind = await speed.workers
          .get(p)!
          .step()
          .then(
            (d) => d.kind,
            (error) => attempt(() => Promise.reject(error)),
          )
        if (kind === 'idle' && errors.length === before) break
      }
    for (const p of partitions) await attempt(() => archiverOf(batch.ctx, dataset.name).step(p, { force: true }))
    for (const view of batch.ctx.versions.fed(dataset.name)) {
      if (round % 3 === 2) await attempt(() => catchUp(batch.ctx, view))
      await attempt(() => extend(batch.ctx, view))
      await attempt(() => retireCovered(batch.ctx, view))
    }
    await attempt(() => answering.versions.refresh())
    let good = true
    for (const { name } of w.project.views) {
      const view = answering.versions.active(name)
      const upper = view && (await compare(w, view, wholeQuery(view)))
      good &&= upper !== null && JSON.stringify(partitions.map((p) => Number(upper[p] ?? 0))) === ends()
    }
    if (good && errors.length === 0) break
    if (round === 11)
      throw new Difference(
        `nothing converges: ${errors.map(String).join('; ')} alarms: ${alarms.map(String).join('; ')}`,
      )
  }
  for (const view of batch.ctx.versions.fed(dataset.name)) {
    noDifference(await verify(batch.ctx, view))
    // All again from the lake must be what the chain of extends has made.
    noDifference(await recompute(batch.ctx, view))
    const current = await batch.ctx.publications.current(view.name, view.version)
    if (current !== null && current !== 'dropped') stats.published += current.pointer.generation
  }
  await check(w, random(1))
}
