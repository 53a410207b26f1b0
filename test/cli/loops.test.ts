/** Loops: back-off, alarms that come and go, and a stop after which nothing runs. */
import { expect, test } from 'vitest'
import { openAlarms } from '../../cli/alarms.ts'
import { startLoop } from '../../cli/loops.ts'
import { WeirError } from '../../model/errors.ts'
import { until } from '../support/server.ts'

const silent = { error: () => undefined, info: () => undefined }

test('a failing step raises an alarm and is tried again; a good one clears it', async () => {
  const alarms = openAlarms(silent)
  let fail = true
  let steps = 0
  const loop = startLoop({
    name: 'x',
    alarms,
    backoffMs: 1,
    maxBackoffMs: 4,
    step: async () => {
      steps++
      if (fail) throw new WeirError({ code: 'WEIR_X_Y', message: 'no', next: 'wait' })
      return 1
    },
  })
  await until('repeated failures', 5_000, async () => (alarms.list()[0]?.count ?? 0) >= 3 || undefined)
  expect(alarms.list()[0]).toMatchObject({ source: 'x', code: 'WEIR_X_Y', message: 'no', next: 'wait' })
  fail = false
  await until('no alarm', 5_000, async () => alarms.list().length === 0 || undefined)
  await loop.stop()
  const after = steps
  await new Promise((resolve) => setImmediate(resolve))
  expect(steps).toBe(after)
})

test('stop waits for the running step, and ends a long pause', async () => {
  const alarms = openAlarms(silent)
  let done = false
  let started = false
  const loop = startLoop({
    name: 'x',
    alarms,
    step: async (signal) => {
      started = true
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => setImmediate(resolve)))
      done = true
      return 3_600_000
    },
  })
  await until('the step', 5_000, async () => started || undefined)
  await loop.stop()
  expect(done).toBe(true)

  let pauses = 0
  const idle = startLoop({ name: 'y', alarms, step: async () => 3_600_000 * Math.sign(++pauses) })
  await until('a pause', 5_000, async () => pauses > 0 || undefined)
  idle.wake()
  await until('the step after a wake', 5_000, async () => pauses > 1 || undefined)
  await idle.stop()
})

test('a notice fades; an alarm is logged when it appears and when its text changes', () => {
  let now = 0
  const logged: string[] = []
  const alarms = openAlarms({ error: (_, text) => void logged.push(text), info: () => undefined }, () => now)
  alarms.raise('a', new Error('one'), 100)
  alarms.raise('a', new Error('one'), 100)
  alarms.raise('a', new Error('two'), 100)
  expect(logged).toEqual(['one', 'two'])
  expect(alarms.list()).toHaveLength(1)
  now = 100
  expect(alarms.list()).toEqual([])
})
