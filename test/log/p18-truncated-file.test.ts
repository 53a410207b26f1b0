/** P18, fault 10: a log file cut anywhere is refused with words; it never takes the process down (SIGBUS) or reads as less. */
import { stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { cleanUp, record, tempFolder } from './support.ts'

afterEach(cleanUp)

test('a shortened log file is refused', async () => {
  const folder = await tempFolder()
  const log = await openLmdbLog({ folder })
  await log.create('d', 1)
  for (let n = 0; n < 20; n++) await log.append('d', 0, [record(n, 5_000)])
  await log.close()
  const file = join(folder, 'data.mdb')
  const { size } = await stat(file)
  for (const cut of [1, 4_096, 60_000, size - 20_000]) {
    await truncate(file, size - cut)
    await expect(openLmdbLog({ folder })).rejects.toMatchObject({ code: 'WEIR_LOG_CORRUPT' })
  }
})
