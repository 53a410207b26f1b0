/**
 * Who holds a lock, and whether it still runs. Invariant: only what can be known is said: of a process on another machine, or in a
 * container beside this one, nothing but that its lock is renewed.
 */
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'

export type Holder = {
  /** 1: a lock that is not renewed, of an older version of Weir. */
  formatVersion: 1 | 2
  /** One for each start; the same in all its locks. */
  id?: string
  role: string
  pid: number
  host: string
  /** Boot of the machine and namespace of process numbers: where `pid` means the same process. '' where the system does not tell. */
  machine?: string
  /** Start of the process as the system tells it ('' where it does not): a process number may be used again. */
  processStart: string
  startedAt: string
  /** Where it serves HTTP; null until it listens. */
  url: string | null
}

const code = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** Field 22 of /proc/<pid>/stat: clock ticks since boot. The name before it may hold spaces and parentheses. */
export const processStart = async (pid: number): Promise<string> => {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch {
    return ''
  }
}

export const machineOf = async (): Promise<string> => {
  try {
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    return `${boot} ${await readlink('/proc/self/ns/pid')}`
  } catch {
    return ''
  }
}

/** 'unseen': nobody here can tell, but it renews its lock for as long as it lives. */
export const stateOf = async (holder: Holder): Promise<'alive' | 'gone' | 'unseen'> => {
  const isHere = holder.machine ? holder.machine === (await machineOf()) : holder.host === hostname()
  if (!isHere) return holder.formatVersion === 1 ? 'alive' : 'unseen'
  try {
    process.kill(holder.pid, 0)
  } catch (error) {
    if (code(error) === 'ESRCH') return 'gone'
  }
  const started = await processStart(holder.pid)
  return started === '' || holder.processStart === '' || started === holder.processStart ? 'alive' : 'gone'
}
