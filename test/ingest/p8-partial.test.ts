/** P8, P9: a request whose events went to several partitions, one of which refused: what is said of it, and its retry. */
import { afterEach, expect, test } from 'vitest'
import { diskFull } from '../../log/log-errors.ts'
import { WeirError } from '../../model/errors.ts'
import { cleanUp, event, eventsOf, lines, openWorld, orders, readAll } from './support.ts'

afterEach(cleanUp)

const body = lines(...Array.from({ length: 20 }, (_, i) => event(i)))

test('stored in part: it does not say that nothing was stored, and the retry makes the same records', async () => {
  let full = true
  const dataset = orders({ partitions: 2 })
  const world = await openWorld({
    datasets: [dataset],
    log: (log) => ({
      ...log,
      append: async (name, partition, records) => {
        if (partition === 1 && full) throw diskFull(new Error('ENOSPC'))
        return log.append(name, partition, records)
      },
    }),
  })
  const send = () => world.door.accept('orders', body, { idempotencyKey: 'one' })
  const failed: unknown = await send().catch((error: unknown) => error)
  expect(failed).toBeInstanceOf(WeirError)
  expect(failed).toMatchObject({ code: 'WEIR_INGEST_UNAVAILABLE', retryable: true })
  expect((failed as WeirError).message).toMatch(/part/)
  const before = await readAll(world.log, 'orders', 0)
  expect(eventsOf(before).flat().length).toBeGreaterThan(0)
  full = false
  await send()
  const after = await readAll(world.log, 'orders', 0)
  expect(after.map((r) => r.recordId)).toEqual([...before, ...before].map((r) => r.recordId))
})

test('refused everywhere: the log speaks for itself', async () => {
  const world = await openWorld({
    datasets: [orders({ partitions: 2 })],
    log: (log) => ({ ...log, append: () => Promise.reject(diskFull(new Error('ENOSPC'))) }),
  })
  await expect(world.door.accept('orders', body)).rejects.toMatchObject({ code: 'WEIR_LOG_DISK_FULL' })
})
