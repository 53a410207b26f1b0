/**
 * Who runs on a data folder: one process per role, or several where the state is on servers. Invariant: a lock file appears whole (link of a finished file) and
 * names a process; a lock of a process that is gone, or whose number now belongs to another one, is stale and taken over.
 */
import { randomUUID } from 'node:crypto'
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { WeirError } from '../model/errors.ts'

export type Holder = {
  formatVersion: 1
  role: string
  pid: number
  host: string
  /** Start of the process as the system tells it ('' where it does not): a process number may be used again. */
  processStart: string
  startedAt: string
  /** Where it serves HTTP; null until it listens. */
  url: string | null
}

const code = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code
const folderOf = (dataDir: string): string => join(dataDir, 'run')

/** Field 22 of /proc/<pid>/stat: clock ticks since boot. The name before it may hold spaces and parentheses. */
const processStart = async (pid: number): Promise<string> => {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch {
    return ''
  }
}

const isAlive = async (holder: Holder): Promise<boolean> => {
  // A folder shared between machines: nobody here can tell, so the holder is believed.
  if (holder.host !== hostname()) return true
  try {
    process.kill(holder.pid, 0)
  } catch (error) {
    if (code(error) === 'ESRCH') return false
  }
  const started = await processStart(holder.pid)
  return started === '' || holder.processStart === '' || started === holder.processStart
}

const readHolder = async (path: string): Promise<Holder | null> => {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Holder
  } catch (error) {
    if (code(error) === 'ENOENT' || error instanceof SyntaxError) return null
    throw error
  }
}

/** Who holds a role of the data folder right now; stale locks are not counted. */
export const holders = async (dataDir: string): Promise<Holder[]> => {
  const names = await readdir(folderOf(dataDir)).catch((error: unknown) => {
    if (code(error) === 'ENOENT') return []
    throw error
  })
  const found: Holder[] = []
  for (const name of names.filter((n) => n.endsWith('.lock'))) {
    const holder = await readHolder(join(folderOf(dataDir), name))
    if (holder !== null && (await isAlive(holder))) found.push(holder)
  }
  return found
}

/**
 * Removes a lock whose process is gone. Only who holds `<lock>.takeover` removes one, and looks again first: else of two that saw
 * the same stale lock the slower one would take away the new lock of the quicker one.
 */
const removeStale = async (path: string, mine: string): Promise<void> => {
  const takeover = `${path}.takeover`
  try {
    await link(mine, takeover)
  } catch (error) {
    if (code(error) !== 'EEXIST') throw error
    const other = await readHolder(takeover)
    // Left by a process that died between these lines.
    if (other !== null && !(await isAlive(other))) await rm(takeover, { force: true })
    else await new Promise((resolve) => setTimeout(resolve, 10))
    return
  }
  try {
    const holder = await readHolder(path)
    if (holder === null || !(await isAlive(holder))) await rm(path, { force: true })
  } finally {
    await rm(takeover, { force: true })
  }
}

export type Lock = { setUrl(url: string): Promise<void>; release(): Promise<void> }

/**
 * Takes the roles of a data folder, all or none. `several`: other processes may have them too, and this one only tells where it is.
 * Throws WEIR_CLI_LOCKED.
 */
export const lockRoles = async (dataDir: string, roles: readonly string[], several = false): Promise<Lock> => {
  const folder = folderOf(dataDir)
  await mkdir(folder, { recursive: true })
  const started = await processStart(process.pid)
  const holderOf = (role: string, url: string | null): Holder => ({
    formatVersion: 1,
    role,
    pid: process.pid,
    host: hostname(),
    processStart: started,
    startedAt: new Date().toISOString(),
    url,
  })
  const pathOf = (role: string): string => join(folder, several ? `${role}.${process.pid}.lock` : `${role}.lock`)
  const held: string[] = []
  const aside = async (holder: Holder): Promise<string> => {
    const path = join(folder, `${randomUUID()}.tmp`)
    await writeFile(path, `${JSON.stringify(holder)}\n`, { flag: 'wx' })
    return path
  }

  const take = async (role: string): Promise<void> => {
    const mine = await aside(holderOf(role, null))
    try {
      for (let attempt = 0; ; attempt++) {
        try {
          await link(mine, pathOf(role))
          held.push(role)
          return
        } catch (error) {
          if (code(error) !== 'EEXIST') throw error
        }
        const holder = await readHolder(pathOf(role))
        if (attempt > 50 || (holder !== null && (await isAlive(holder)))) throw locked(dataDir, role, holder)
        await removeStale(pathOf(role), mine)
      }
    } finally {
      await rm(mine, { force: true })
    }
  }
  const release = async (): Promise<void> => {
    for (const role of held.splice(0)) await rm(pathOf(role), { force: true })
  }

  try {
    for (const role of roles) await take(role)
  } catch (error) {
    await release()
    throw error
  }
  return {
    setUrl: async (url) => {
      for (const role of held) await rename(await aside(holderOf(role, url)), pathOf(role))
    },
    release,
  }
}

const locked = (dataDir: string, role: string, holder: Holder | null): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_LOCKED',
    message: `Another process already runs the role ${role} on ${dataDir}.`,
    expected: 'one process per role and data folder',
    got: holder ? `process ${holder.pid} on ${holder.host}, since ${holder.startedAt}` : 'a lock that changes hands',
    next: holder?.url
      ? `use the one at ${holder.url}, stop it (kill ${holder.pid}), or name another folder: --data <dir>`
      : 'stop that process, or name another folder: --data <dir>',
  })
