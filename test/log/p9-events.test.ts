/** P9: the log counts the events that were appended itself, so that the fates of events are compared with another number. */
import { afterEach, expect, test } from 'vitest'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { cleanUp, onCleanUp, record, tempFolder } from './support.ts'

afterEach(cleanUp)

test('over appends, refusals, a trim and a restart', async () => {
  const folder = await tempFolder()
  const log = await openLmdbLog({ folder, blockBytes: 10 })
  await log.create('d', 2)
  expect(await log.range('d', 0)).toMatchObject({ events: 0 })
  await log.append('d', 0, [
    { ...record(1), events: 3 },
    { ...record(2), events: 4 },
  ])
  await log.append('d', 1, [record(3)])
  await expect(log.append('d', 7, [record(4)])).rejects.toThrow()
  await log.trim('d', 0, 1)
  await log.create('d', 2)
  expect(await log.range('d', 0)).toMatchObject({ startOffset: 1, endOffset: 2, events: 7 })
  await log.close()
  const again = await openLmdbLog({ folder })
  onCleanUp(() => again.close())
  await again.append('d', 0, [record(5)])
  expect(await again.range('d', 0)).toMatchObject({ events: 8 })
  expect(await again.range('d', 1)).toMatchObject({ events: 1 })
})
