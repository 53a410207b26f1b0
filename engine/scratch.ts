/**
 * Folders for scratch and spill.
 * Invariant: a folder names its process, and whoever opens an engine clears what dead processes left: scratch lies in memory, so
 * a `kill -9` must not leak it.
 */
import { existsSync, readlinkSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const MEMORY = '/dev/shm'

export const scratchBase = (tempDir: string | undefined): string => tempDir ?? (existsSync(MEMORY) ? MEMORY : tmpdir())
export const spillBase = (tempDir: string | undefined): string => tempDir ?? tmpdir()

/** Process ids mean something only inside one pid namespace; containers may share the folder. */
const namespace = (): string => {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0'
  } catch {
    return '0'
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

/** A fresh folder `<prefix>-<namespace>-<pid>-…`; those of processes that are gone are removed. */
export const ownFolder = async (base: string, prefix: string): Promise<string> => {
  await mkdir(base, { recursive: true })
  const mine = `${prefix}-${namespace()}-`
  for (const name of await readdir(base)) {
    if (!name.startsWith(mine)) continue
    const pid = Number(/^\d+/.exec(name.slice(mine.length))?.[0] ?? Number.NaN)
    if (Number.isSafeInteger(pid) && pid > 0 && !isAlive(pid))
      await rm(join(base, name), { recursive: true, force: true })
  }
  return mkdtemp(join(base, `${mine}${process.pid}-`))
}
