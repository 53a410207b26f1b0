/**
 * Local copies of stored files, for DuckDB, which reads local files only. Several processes may share a folder.
 *
 *     files/<name>          checked files, one link each
 *     use-<uuid>/<name>.<n> further links of those that one process has handed out; its downloads and scratch files too
 *
 * Invariants: a name in `files/` is only ever a whole file, put there by link(2) after its size and SHA-256 were checked, and each process
 * checks again at its first use. What a process hands out is a link of its own: no other process can take it away, and eviction frees
 * files with a single link only, so the kernel's link count says across processes what is in use.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { link, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'

export type FileCacheOptions = {
  folder: string
  /** Size at which the least recently used files go. Files in use stay, so it is no bound for a statement that needs more at once. */
  maxBytes: number
  /**
   * A path that was handed out stays this long after the last time, even when the cache is full: DuckDB opens the files of a statement one
   * after the other. Default 1 hour.
   */
  leaseMs?: number
  /** Folders of processes that gave no sign of life for so long are removed. Default 1 hour. */
  staleMs?: number
}

export type Expected = { size: number; sha256?: string }
export type Fetched = { size: number; sha256: string }

export type FileCache = {
  /** The path that this process was handed before, if the file is still as it was checked. */
  held(name: string, expected: Expected): Promise<string | null>
  /** The path of the file in the cache, fetched into it when it is not there or damaged; null when what was fetched is not as expected. */
  take(name: string, expected: Expected, fetch: (path: string) => Promise<Fetched>): Promise<string | null>
  /** Takes over a local file whose content is known: for files just written, which are often read soon. May also drop it. */
  adopt(name: string, path: string, content: Fetched): Promise<void>
  forget(name: string): Promise<void>
  /** A fresh path for a temporary file, removed with this process at the latest. */
  scratch(suffix: string): Promise<string>
  close(): Promise<void>
}

/** What this process has handed out: its link as it was checked, and when it was asked for last (ms; 0: never). */
type Held = { path: string; sha256: string; size: number; mtimeMs: number; ino: number; usedMs: number }

const HEARTBEAT_MS = 60_000

const code = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code
const absentAsNull = (error: unknown): null => {
  if (code(error) === 'ENOENT') return null
  throw error
}

/** Size and SHA-256 (hex) of a file. */
export const digestFile = async (path: string): Promise<Fetched> => {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    size += (chunk as Buffer).length
    hash.update(chunk as Buffer)
  }
  return { size, sha256: hash.digest('hex') }
}

const isExpected = (expected: Expected, got: Fetched): boolean =>
  got.size === expected.size && (expected.sha256 === undefined || got.sha256 === expected.sha256)

/** Marks a file as used now. Access times are the order of eviction; modification times, in whole seconds, stay: they tell a change. */
const touch = async (path: string): Promise<void> => {
  const { mtimeMs } = await stat(path)
  await utimes(path, new Date(), Math.floor(mtimeMs / 1000))
}

export const openFileCache = async (options: FileCacheOptions): Promise<FileCache> => {
  const { folder, maxBytes, leaseMs = 3_600_000, staleMs = 3_600_000 } = options
  const files = join(folder, 'files')
  const own = join(folder, `use-${randomUUID()}`)
  /** So much may come in between two looks at the folder; a look makes room for as much again. */
  const slack = maxBytes / 16
  const held = new Map<string, Held>()
  const underWay = new Map<string, Promise<string | null>>()
  let added = 0
  let links = 0

  const makeFolders = async (): Promise<void> => {
    await mkdir(files, { recursive: true })
    await mkdir(own, { recursive: true })
  }
  await makeFolders()
  const heartbeat = setInterval(() => {
    utimes(own, new Date(), new Date()).catch(() => undefined) // made again at the next use
  }, HEARTBEAT_MS).unref()

  const scratchPath = (suffix: string): string => join(own, `${randomUUID()}${suffix}`)
  /** Never one that was handed out before: whoever has that one may still be about to open it. */
  const linkPath = (name: string): string => join(own, `${name}.${links++}`)

  const drop = async (name: string): Promise<void> => {
    const found = held.get(name)
    if (found === undefined) return
    held.delete(name)
    await touch(found.path).catch(absentAsNull)
    await rm(found.path, { force: true })
  }

  const removeDeadProcesses = async (): Promise<void> => {
    for (const name of await readdir(folder)) {
      const path = join(folder, name)
      if (!name.startsWith('use-') || path === own) continue
      const info = await stat(path).catch(absentAsNull)
      if (info !== null && Date.now() - info.mtimeMs > staleMs) await rm(path, { recursive: true, force: true })
    }
  }

  const makeRoom = async (): Promise<void> => {
    added = 0
    await removeDeadProcesses()
    const found = await Promise.all(
      (await readdir(files)).map(async (name) => {
        const info = await stat(join(files, name)).catch(absentAsNull)
        return info && { name, size: info.size, atimeMs: info.atimeMs }
      }),
    )
    const present = found.filter((f) => f !== null).sort((a, b) => a.atimeMs - b.atimeMs)
    let over = present.reduce((n, f) => n + f.size, 0) - (maxBytes - slack)
    if (over <= 0) return
    // Ours go back first, so that they are in the running.
    for (const [name, { usedMs }] of held) if (Date.now() - usedMs > leaseMs) await drop(name)
    for (const { name, size } of present) {
      if (over <= 0) return
      const info = await stat(join(files, name)).catch(absentAsNull)
      if (info !== null && info.nlink > 1) continue
      // One that takes it now has its own link already, or fetches it again.
      await rm(join(files, name), { force: true })
      over -= size
    }
  }

  const come = async (bytes: number): Promise<void> => {
    added += bytes
    if (added > slack) await makeRoom()
  }

  /** Remembers this process's link as checked. */
  const hold = async (name: string, path: string, content: Fetched, usedMs: number): Promise<string> => {
    await touch(path)
    const { mtimeMs, ino } = await stat(path)
    held.set(name, { ...content, path, mtimeMs, ino, usedMs })
    return path
  }

  /** A link of our own to the cached file, checked; null when there is none that is as expected. */
  const fromCache = async (name: string, expected: Expected): Promise<string | null> => {
    // Without a digest, what another process left cannot be told from damage.
    if (expected.sha256 === undefined) return null
    const path = linkPath(name)
    try {
      await link(join(files, name), path)
    } catch (error) {
      return absentAsNull(error)
    }
    const content = await digestFile(path)
    if (isExpected(expected, content)) return hold(name, path, content, Date.now())
    await rm(path, { force: true })
    await rm(join(files, name), { force: true })
    return null
  }

  /** Places a checked file: our link first, then the shared one, which another process may have placed meanwhile. */
  const place = async (name: string, from: string, content: Fetched, usedMs: number): Promise<string> => {
    const path = linkPath(name)
    await rename(from, path)
    await hold(name, path, content, usedMs)
    await link(path, join(files, name)).catch((error: unknown) => {
      if (code(error) !== 'EEXIST') throw error
    })
    await come(content.size)
    return path
  }

  const acquire = async (
    name: string,
    expected: Expected,
    fetch: (path: string) => Promise<Fetched>,
  ): Promise<string | null> => {
    await makeFolders()
    const cached = await fromCache(name, expected)
    if (cached !== null) return cached
    const path = scratchPath('.part')
    try {
      const content = await fetch(path)
      return isExpected(expected, content) ? await place(name, path, content, Date.now()) : null
    } finally {
      await rm(path, { force: true })
    }
  }

  const cache: FileCache = {
    held: async (name, expected) => {
      const found = held.get(name)
      if (found === undefined || !isExpected(expected, found)) return null
      found.usedMs = Date.now() // before the first await: from here on it is not dropped
      const info = await stat(found.path).catch(absentAsNull)
      if (info?.mtimeMs !== found.mtimeMs || info.ino !== found.ino || info.size !== found.size) {
        held.delete(name)
        return null
      }
      return found.path
    },
    take: async (name, expected, fetch) => {
      // Callers that want the same file share one download.
      const same = `${name} ${expected.size} ${expected.sha256}`
      const found = underWay.get(same)
      if (found !== undefined) return found
      const coming = cache
        .held(name, expected)
        .then((path) => path ?? acquire(name, expected, fetch))
        .finally(() => underWay.delete(same))
      underWay.set(same, coming)
      return coming
    },
    adopt: async (name, path, content) => {
      if (content.size <= maxBytes / 4 && !held.has(name)) {
        await makeFolders()
        try {
          await place(name, path, content, 0)
          return
        } catch (error) {
          if (code(error) !== 'EXDEV') throw error
        }
      }
      await rm(path, { force: true })
    },
    forget: async (name) => {
      await drop(name)
      await rm(join(files, name), { force: true })
    },
    scratch: async (suffix) => {
      await makeFolders()
      return scratchPath(suffix)
    },
    close: async () => {
      clearInterval(heartbeat)
      held.clear()
      await rm(own, { recursive: true, force: true })
    },
  }
  await makeRoom()
  return cache
}
