/**
 * Who runs on a data folder: one process per role, or several where the state is on servers. Invariants: a lock file appears whole (link of a
 * finished file) and names a process; a lock of a process that is gone, or whose number now belongs to another one, is stale and taken over;
 * where nobody can tell, a lock is stale once it was watched for `staleMs` and not renewed, whatever the clocks say.
 */
import { randomUUID } from 'node:crypto'
import { link, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { WeirError } from '../model/errors.ts'
import { type Holder, machineOf, processStart, stateOf } from './holder.ts'

export type { Holder } from './holder.ts'

const code = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code
const folderOf = (dataDir: string): string => join(dataDir, 'run')

const BEAT_MS = 5_000
/** Far longer than an event loop is ever blocked. */
const STALE_MS = 30_000
const LOOK_MS = 200

const readHolder = async (path: string): Promise<Holder | null> => {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Holder
  } catch (error) {
    if (code(error) === 'ENOENT' || error instanceof SyntaxError) return null
    throw error
  }
}

/** Changes with every renewal; null: no such file. */
const markOf = async (path: string): Promise<string | null> => {
  try {
    const s = await stat(path, { bigint: true })
    return `${s.ino}.${s.mtimeNs}`
  } catch (error) {
    if (code(error) === 'ENOENT') return null
    throw error
  }
}

/** The mark of a file that did not change while it was watched; null: it did. */
const unchanged = async (path: string, ms: number): Promise<string | null> => {
  const mark = await markOf(path)
  const end = performance.now() + ms
  while (performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(LOOK_MS, ms / 4)))
    if ((await markOf(path)) !== mark) return null
  }
  return mark
}

/** Who holds a role of the data folder right now; stale locks are not counted, nor those that nobody has renewed lately. */
export const holders = async (dataDir: string): Promise<Holder[]> => {
  const names = await readdir(folderOf(dataDir)).catch((error: unknown) => {
    if (code(error) === 'ENOENT') return []
    throw error
  })
  const found: Holder[] = []
  for (const name of names.filter((n) => n.endsWith('.lock'))) {
    const path = join(folderOf(dataDir), name)
    const holder = await readHolder(path)
    const state = holder === null ? 'gone' : await stateOf(holder)
    if (state === 'alive' || (state === 'unseen' && (await ageMs(path)) < STALE_MS)) found.push(holder!)
  }
  return found
}

/** By the clock: good enough to look for a server, not to take its lock. */
const ageMs = async (path: string): Promise<number> => {
  const s = await stat(path).catch(() => null)
  return s === null ? Number.POSITIVE_INFINITY : Date.now() - s.mtimeMs
}

/**
 * Removes a lock whose process is gone, or that has the mark of one that was not renewed. Only who holds `<lock>.takeover` removes one, and
 * looks again first: else of two that saw the same stale lock the slower one would take away the new lock of the quicker one.
 */
const removeStale = async (path: string, mine: string, mark: string | null, staleMs: number): Promise<void> => {
  const takeover = `${path}.takeover`
  try {
    await link(mine, takeover)
  } catch (error) {
    if (code(error) !== 'EEXIST') throw error
    const other = await readHolder(takeover)
    const state = other === null ? 'alive' : await stateOf(other)
    // Left by a process that died between these lines.
    if (state === 'gone' || (state === 'unseen' && (await unchanged(takeover, staleMs)) !== null))
      await rm(takeover, { force: true })
    else await new Promise((resolve) => setTimeout(resolve, 10))
    return
  }
  try {
    const holder = await readHolder(path)
    const isStale = holder === null || (await stateOf(holder)) === 'gone'
    if (isStale || (mark !== null && (await markOf(path)) === mark)) await rm(path, { force: true })
  } finally {
    await rm(takeover, { force: true })
  }
}

export type Lock = { setUrl(url: string): Promise<void>; release(): Promise<void> }

export type LockOptions = {
  /** Other processes may have the roles too, and this one only tells where it is. */
  several?: boolean
  /** Told when another process has taken a role over: this one was held up for longer than `staleMs`. */
  onLost?(error: WeirError): void
  /** How often a lock is renewed, and after how long without that it is stale where its process cannot be seen; ms. */
  beatMs?: number
  staleMs?: number
}

/** Takes the roles of a data folder, all or none. Throws WEIR_CLI_LOCKED. */
export const lockRoles = async (
  dataDir: string,
  roles: readonly string[],
  { several = false, onLost, beatMs = BEAT_MS, staleMs = STALE_MS }: LockOptions = {},
): Promise<Lock> => {
  const folder = folderOf(dataDir)
  await mkdir(folder, { recursive: true })
  const id = randomUUID()
  const own = { pid: process.pid, host: hostname(), machine: await machineOf() }
  const started = await processStart(process.pid)
  const holderOf = (role: string, url: string | null): Holder => ({
    formatVersion: 2,
    id,
    role,
    ...own,
    processStart: started,
    startedAt: new Date().toISOString(),
    url,
  })
  // Process numbers of several containers are alike.
  const pathOf = (role: string): string => join(folder, several ? `${role}.${id}.lock` : `${role}.lock`)
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
        const state = holder === null ? 'gone' : await stateOf(holder)
        const mark = state === 'unseen' ? await unchanged(pathOf(role), staleMs) : null
        if (attempt > 50 || state === 'alive' || (state === 'unseen' && mark === null))
          throw locked(dataDir, role, holder)
        await removeStale(pathOf(role), mine, mark, staleMs)
      }
    } finally {
      await rm(mine, { force: true })
    }
  }
  const isMine = async (role: string): Promise<boolean> => (await readHolder(pathOf(role)))?.id === id
  const release = async (): Promise<void> => {
    clearInterval(beating)
    for (const role of held.splice(0)) if (await isMine(role)) await rm(pathOf(role), { force: true })
  }
  // The time of a file that is renewed only grows, also when the clock stands or goes back.
  let renewedMs = 0
  const beat = async (): Promise<void> => {
    renewedMs = Math.max(Date.now(), renewedMs + 1)
    for (const role of [...held]) {
      if (await isMine(role)) await utimes(pathOf(role), renewedMs / 1_000, renewedMs / 1_000)
      else if (held.includes(role)) {
        held.splice(held.indexOf(role), 1)
        onLost?.(locked(dataDir, role, await readHolder(pathOf(role))))
      }
    }
  }
  // A folder that cannot be written now may be so at the next beat.
  const beating = setInterval(() => void beat().catch(() => undefined), beatMs)
  beating.unref()

  try {
    if (several) await tidy(folder)
    for (const role of roles) await take(role)
  } catch (error) {
    await release()
    throw error
  }
  return {
    setUrl: async (url) => {
      for (const role of held) if (await isMine(role)) await rename(await aside(holderOf(role, url)), pathOf(role))
    },
    release,
  }
}

/** Locks of several holders have names of their own, so nobody takes them over: what is left of those that are gone. */
const tidy = async (folder: string): Promise<void> => {
  for (const name of (await readdir(folder)).filter((n) => /\.[0-9a-f-]{36}\.lock$/.test(n))) {
    const holder = await readHolder(join(folder, name))
    if (holder !== null && (await stateOf(holder)) === 'gone') await rm(join(folder, name), { force: true })
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
