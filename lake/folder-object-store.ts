/**
 * Object store in a local folder. Invariant: an object appears under its key whole and durable, or not at all:
 * bytes are written and fsynced under a temporary name, then placed with link(2), which has one winner, then the folder is
 * fsynced. Nothing but `putHint` ever replaces an object.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { WeirError } from '../model/errors.ts'
import type { ObjectInfo, ObjectStore } from '../model/ports/object-store.ts'
import { checkKey, checkPrefix, compareKeys, TEMP_FOLDER } from './keys.ts'

const code = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code

const fsyncPath = async (path: string): Promise<void> => {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const sha256Of = async (path: string): Promise<{ size: number; sha256: string }> => {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    size += (chunk as Buffer).length
    hash.update(chunk as Buffer)
  }
  return { size, sha256: hash.digest('hex') }
}

/** Files up to this size are read whole, once, for their digest. */
const WHOLE_BYTES = 4 * 1024 * 1024

/** Makes a file durable; its size and digest. */
const settle = async (path: string): Promise<{ size: number; sha256: string; mtimeMs: number; ino: number }> => {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
    const { size, mtimeMs, ino } = await handle.stat()
    if (size > WHOLE_BYTES) return { ...(await sha256Of(path)), mtimeMs, ino }
    const bytes = await handle.readFile()
    return { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex'), mtimeMs, ino }
  } finally {
    await handle.close()
  }
}

const corrupt = (key: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_CORRUPT',
    message: `The stored object ${key} is not what was written.`,
    expected,
    got,
    next: 'set the file aside; restore it from a copy, or recompute what was derived from it',
  })

export type FolderStoreOptions = {
  /** Temporary files older than this are leftovers of a crash and removed when the store is opened. Default 24 hours. */
  tempAgeMs?: number
}

/** Opens (and creates) a folder as an object store. The folder must be on a file system with hard links. */
export const openFolderStore = async (folder: string, options: FolderStoreOptions = {}): Promise<ObjectStore> => {
  const root = resolve(folder)
  const temp = join(root, TEMP_FOLDER)
  await mkdir(temp, { recursive: true })
  for (const name of await readdir(temp)) {
    const info = await stat(join(temp, name)).catch(() => null)
    if (info && Date.now() - info.mtimeMs > (options.tempAgeMs ?? 86_400_000))
      await rm(join(temp, name), { recursive: true, force: true })
  }
  const pathOf = (key: string): string => join(root, ...checkKey(key).split('/'))
  const tempPath = (suffix = '.tmp'): string => join(temp, `${randomUUID()}${suffix}`)

  /** Creates a folder and makes each new name durable in its parent. */
  const known = new Set<string>([root])
  const ensureFolder = async (path: string): Promise<void> => {
    if (known.has(path)) return
    await ensureFolder(dirname(path))
    await mkdir(path).catch((error: unknown) => {
      if (code(error) !== 'EEXIST') throw error
    })
    // Also when another process made it: that one may not have come to its fsync yet.
    await fsyncPath(dirname(path))
    known.add(path)
  }

  /**
   * Makes the names in a folder durable. Calls that come while one runs share the next: one fsync settles every name that was there
   * when it began.
   */
  const syncing = new Map<string, { running: Promise<void>; next: Promise<void> | undefined }>()
  const syncFolder = (path: string): Promise<void> => {
    const found = syncing.get(path)
    if (found === undefined) {
      const begun = { running: fsyncPath(path), next: undefined as Promise<void> | undefined }
      syncing.set(path, begun)
      return begun.running.finally(() => {
        if (begun.next === undefined) syncing.delete(path)
      })
    }
    found.next ??= found.running.finally(() => syncing.delete(path)).then(() => syncFolder(path))
    return found.next
  }

  const writeTemp = async (bytes: Uint8Array): Promise<string> => {
    const path = tempPath()
    const handle = await open(path, 'wx')
    try {
      await handle.writeFile(bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    return path
  }

  /** Links a durable temporary file under its key; the temporary name is gone afterwards either way. */
  const place = async (from: string, path: string): Promise<'written' | 'exists'> => {
    try {
      await ensureFolder(dirname(path))
      let outcome: 'written' | 'exists' = 'written'
      try {
        await link(from, path)
      } catch (error) {
        if (code(error) !== 'EEXIST') throw error
        outcome = 'exists'
      }
      // Also for the loser: it may act on the winner's object, which must not vanish in a power failure.
      await syncFolder(dirname(path))
      return outcome
    } finally {
      await unlink(from).catch((error: unknown) => {
        if (code(error) !== 'ENOENT') throw error
      })
    }
  }

  /** key → what was verified; a file that changed on disk since is hashed again. */
  const verified = new Map<string, { size: number; sha256: string; mtimeMs: number; ino: number }>()

  return {
    putIfAbsent: async (key, bytes) => {
      const path = pathOf(key)
      return place(await writeTemp(bytes), path)
    },
    putHint: async (key, bytes) => {
      const path = pathOf(key)
      await ensureFolder(dirname(path))
      const from = await writeTemp(bytes)
      await rename(from, path)
    },
    get: async (key) => {
      try {
        return await readFile(pathOf(key))
      } catch (error) {
        if (code(error) === 'ENOENT' || code(error) === 'ENOTDIR') return null
        throw error
      }
    },
    list: async (prefix, after) => {
      const out: ObjectInfo[] = []
      const walk = async (path: string, at: string): Promise<void> => {
        const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
          if (code(error) === 'ENOENT' || code(error) === 'ENOTDIR') return []
          throw error
        })
        for (const entry of entries) {
          const key = `${at}${entry.name}`
          if (entry.isDirectory()) {
            if (key !== TEMP_FOLDER) await walk(join(path, entry.name), `${key}/`)
          } else if (after === undefined || compareKeys(key, after) > 0) {
            const info = await stat(join(path, entry.name)).catch(() => null)
            if (info?.isFile()) out.push({ key, size: info.size, modifiedMs: Math.trunc(info.mtimeMs) })
          }
        }
      }
      await walk(join(root, ...checkPrefix(prefix).split('/')), prefix)
      return out.sort((a, b) => compareKeys(a.key, b.key))
    },
    delete: async (key) => {
      verified.delete(key)
      await unlink(pathOf(key)).catch((error: unknown) => {
        if (code(error) !== 'ENOENT') throw error
      })
    },
    scratch: async (suffix) => {
      if (!/^[\w.-]*$/.test(suffix)) checkKey(`${suffix}/..`)
      await mkdir(temp, { recursive: true })
      return tempPath(suffix)
    },
    publishFile: async (localPath, key) => {
      const path = pathOf(key)
      let from = resolve(localPath)
      if (!from.startsWith(`${temp}${sep}`)) {
        from = tempPath()
        await copyFile(localPath, from)
        await rm(localPath, { force: true })
      }
      const { size, sha256, mtimeMs, ino } = await settle(from)
      if ((await place(from, path)) === 'exists')
        throw new WeirError({
          code: 'WEIR_LAKE_EXISTS',
          message: `An object ${key} exists already; objects are never overwritten.`,
          expected: 'a fresh name for each file',
          got: key,
          next: 'this is a defect in the caller: names must carry a unique part',
        })
      // The same file under another name: its digest is known.
      verified.set(key, { size, sha256, mtimeMs, ino })
      return { size, sha256 }
    },
    localFile: async (key, expect) => {
      const path = pathOf(key)
      const info = await stat(path).catch((error: unknown) => {
        if (code(error) === 'ENOENT') return null
        throw error
      })
      if (info === null) throw corrupt(key, `${expect.size} bytes`, 'no such object')
      if (info.size !== expect.size) throw corrupt(key, `${expect.size} bytes`, `${info.size} bytes`)
      if (expect.sha256 === undefined) return path
      const seen = verified.get(key)
      const same = seen?.mtimeMs === info.mtimeMs && seen.ino === info.ino && seen.size === info.size
      const sha256 = same ? seen.sha256 : (await sha256Of(path)).sha256
      if (sha256 !== expect.sha256) {
        verified.delete(key)
        throw corrupt(key, `SHA-256 ${expect.sha256}`, `SHA-256 ${sha256}`)
      }
      verified.set(key, { size: info.size, sha256, mtimeMs: info.mtimeMs, ino: info.ino })
      return path
    },
    close: async () => {
      verified.clear()
    },
  }
}
