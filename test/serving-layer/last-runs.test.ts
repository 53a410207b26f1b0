/** The newest runs are listed at most once a second, however many ask. */
import { expect, it } from 'vitest'
import type { Job } from '../../model/ports/scheduler.ts'
import { openLastRuns } from '../../serving-layer/last-runs.ts'
import { until } from '../support/server.ts'

const job = (id: string, view = 'v', action: Job['action'] = 'extend'): Job => ({
  id,
  view,
  action,
  state: 'done',
  progress: 1,
})

const lab = () => {
  const state = { calls: 0, jobs: [job('new'), job('other', 'w'), job('old'), job('night', 'v', 'recompute')] }
  const runs = openLastRuns({
    jobs: async () => {
      state.calls++
      return state.jobs
    },
  })
  return { state, runs }
}

it('lists once for all who ask together, newest of each action', async () => {
  const { state, runs } = lab()
  const all = await Promise.all(Array.from({ length: 50 }, () => runs.of()))
  expect(state.calls).toBe(1)
  expect(all[49]!('v')).toMatchObject({ extend: { id: 'new' }, recompute: { id: 'night' } })
  expect(all[0]!('w')).toMatchObject({ extend: { id: 'other' } })
  expect(all[0]!('x')).toEqual({})
})

it('tells what is new by itself, or at once when asked to', async () => {
  const { state, runs } = lab()
  await runs.of()
  state.jobs = [job('newer'), ...state.jobs]
  const seen = await until('the newer one', 10_000, async () => {
    const { extend } = (await runs.of())('v')
    return extend?.id === 'newer' ? extend : undefined
  })
  expect(seen.id).toBe('newer')
  expect(state.calls).toBe(2)
  state.jobs = [job('newest'), ...state.jobs]
  runs.forget()
  expect((await runs.of())('v').extend?.id).toBe('newest')
})

it('does not keep a failure', async () => {
  let isBroken = true
  const runs = openLastRuns({
    jobs: async () => {
      if (isBroken) throw new Error('away')
      return [job('a')]
    },
  })
  await expect(runs.of()).rejects.toThrow('away')
  isBroken = false
  expect((await runs.of())('v').extend?.id).toBe('a')
})
