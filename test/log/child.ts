/**
 * A process of its own for the log's tests. `append <folder>`: appends for ever and tells each acknowledged record, one
 * line `n offset fingerprint`. `full <folder>`: fills the disk under the folder and checks what the log does about it.
 */
import { writeSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { readAll, record } from './support.ts'

const [mode, folder] = process.argv.slice(2) as [string, string]

const appendForEver = async (): Promise<void> => {
  const log = await openLmdbLog({ folder })
  await log.create('d', 1)
  let n = (await log.range('d', 0)).endOffset * 1_000
  const one = async (): Promise<never> => {
    for (;;) {
      const own = n++
      const end = await log.append('d', 0, [record(own, own % 3_000)])
      // A whole line or none: what the parent reads was acknowledged.
      writeSync(1, `${own} ${end.offset} ${end.fingerprint}\n`)
    }
  }
  await Promise.all(Array.from({ length: 16 }, one))
}

const fillDisk = async (): Promise<void> => {
  const check = (is: boolean, what: string): void => {
    if (!is) throw new Error(`not so: ${what}`)
  }
  const log = await openLmdbLog({ folder: join(folder, 'log') })
  await log.create('d', 1)
  await writeFile(join(folder, 'ballast'), Buffer.alloc(1_500_000))
  let stored = 0
  let failure: { code?: string; retryable?: boolean } | undefined
  for (; stored < 1_000 && failure === undefined; ) {
    try {
      await log.append('d', 0, [record(stored, 20_000)])
      stored++
    } catch (error) {
      failure = error as { code?: string }
    }
  }
  check(failure?.code === 'WEIR_LOG_DISK_FULL' && failure.retryable === true, `full disk, got ${String(failure)}`)
  const matches = async (): Promise<boolean> => {
    const found = await readAll(log)
    return found.length === stored && found.every((r, n) => Buffer.from(r.bytes).equals(record(n, 20_000).bytes))
  }
  check(await matches(), 'all that was acknowledged, and no more, is read')
  await rm(join(folder, 'ballast'))
  await log.append('d', 0, [record(stored, 20_000)])
  stored++
  check(await matches(), 'appends come back when there is room')
  await log.close()
  process.stdout.write('ok\n')
}

await (mode === 'full' ? fillDisk() : appendForEver())
