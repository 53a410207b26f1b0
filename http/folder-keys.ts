/**
 * API keys in one JSON file of the data folder. Invariant: the file is replaced as a whole (written aside, fsynced,
 * renamed), so a reader sees the old keys or the new ones; a change by another process is seen by the next request.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { WeirError } from '../model/errors.ts'
import type { ApiKey, KeyStore } from '../model/ports/rejects.ts'

type KeysFile = { formatVersion: 1; keys: ApiKey[] }

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'

/** Keys in `<folder>/keys.json`; the file is made by the first `add`. Throws WEIR_HTTP_KEYS_FILE when it is not ours. */
export const openFolderKeys = async (folder: string): Promise<KeyStore> => {
  const path = join(folder, 'keys.json')
  let seen = ''
  let keys: ApiKey[] = []
  let writing: Promise<unknown> = Promise.resolve()

  const load = async (): Promise<ApiKey[]> => {
    let mark: string
    try {
      const s = await stat(path, { bigint: true })
      mark = `${s.ino}.${s.size}.${s.mtimeNs}`
    } catch (error) {
      if (!isMissing(error)) throw error
      seen = ''
      keys = []
      return keys
    }
    if (mark === seen) return keys
    const bad = (cause?: unknown) =>
      new WeirError({
        code: 'WEIR_HTTP_KEYS_FILE',
        message: `${path} does not hold API keys that this version understands.`,
        expected: '{ "formatVersion": 1, "keys": […] }',
        next: 'restore the file from a backup, or remove it and create keys anew',
        cause,
      })
    let read: KeysFile
    try {
      read = JSON.parse(await readFile(path, 'utf8')) as KeysFile
    } catch (error) {
      throw bad(error)
    }
    if (read?.formatVersion !== 1 || !Array.isArray(read.keys)) throw bad()
    keys = read.keys
    seen = mark
    return keys
  }

  const save = async (next: ApiKey[]): Promise<void> => {
    await mkdir(dirname(path), { recursive: true })
    const aside = `${path}.${randomUUID()}`
    try {
      const file = await open(aside, 'wx', 0o600)
      try {
        await file.writeFile(`${JSON.stringify({ formatVersion: 1, keys: next } satisfies KeysFile, null, 2)}\n`)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(aside, path)
    } finally {
      await rm(aside, { force: true })
    }
    const parent = await open(dirname(path), 'r')
    try {
      await parent.sync()
    } finally {
      await parent.close()
    }
  }

  // One change at a time inside this process.
  const exclusive = <T>(work: () => Promise<T>): Promise<T> => {
    const next = writing.then(work, work)
    writing = next.catch(() => undefined)
    return next
  }

  await load()
  return {
    list: load,
    add: (key) => exclusive(async () => save([...(await load()), key])),
    revoke: (id) =>
      exclusive(async () => {
        const all = await load()
        if (!all.some((k) => k.id === id && k.revokedAt === undefined)) return false
        await save(all.map((k) => (k.id === id ? { ...k, revokedAt: new Date().toISOString() } : k)))
        return true
      }),
  }
}
