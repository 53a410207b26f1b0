/**
 * API keys in one JSON file of the data folder. Invariants: the file is replaced as a whole (written aside, fsynced,
 * renamed), so a reader sees the old keys or the new ones; a change by another process is seen by the next request; of two
 * changes at once, in any processes on any machines, none undoes the other.
 *
 * The last needs neither a lock nor a clock. A change first puts its own file aside, then deletes those of all others, and only then
 * reads the keys. Had another change replaced them after that, its file would have been put aside after ours was looked for, so it
 * would have deleted ours first, and our rename finds nothing: the change begins anew. What a killed process left goes the same way.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { WeirError } from '../model/errors.ts'
import type { ApiKey, KeyStore } from '../model/ports/rejects.ts'

type KeysFile = { formatVersion: 1; keys: ApiKey[] }

/** Time that a change leaves to one that is on its way, and that it takes in all; ms. */
const PATIENCE_MS = 1_000
const DEADLINE_MS = 30_000
const PAUSE_MS = 50

/** What a change puts aside; not a copy that a person made. */
const ASIDE = /^keys\.json\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

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

  /** Files that changes have put aside. */
  const pending = async (): Promise<string[]> =>
    (await readdir(folder)).filter((name) => ASIDE.test(name)).map((name) => join(folder, name))

  /** One try: false when another change came between. */
  const replace = async (change: (keys: ApiKey[]) => ApiKey[] | null): Promise<boolean | 'none'> => {
    const aside = `${path}.${randomUUID()}`
    const file = await open(aside, 'wx', 0o600)
    try {
      for (const other of await pending()) if (other !== aside) await rm(other, { force: true })
      const next = change(await load())
      if (next === null) return 'none'
      await file.writeFile(`${JSON.stringify({ formatVersion: 1, keys: next } satisfies KeysFile, null, 2)}\n`)
      await file.sync()
      await rename(aside, path)
      return true
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    } finally {
      await file.close()
      await rm(aside, { force: true })
    }
  }

  /** Whether `change` had anything to do; it may be asked several times. */
  const save = async (change: (keys: ApiKey[]) => ApiKey[] | null): Promise<boolean> => {
    await mkdir(folder, { recursive: true })
    const began = performance.now()
    for (let since = began; ; since = performance.now()) {
      // Two that delete each other's files for ever are kept apart by chance.
      while ((await pending()).length > 0 && performance.now() - since < PATIENCE_MS)
        await new Promise((resolve) => setTimeout(resolve, Math.random() * PAUSE_MS))
      const done = await replace(change)
      if (done === 'none') return false
      if (done) break
      if (performance.now() - began > DEADLINE_MS) throw busy(path)
    }
    const parent = await open(folder, 'r')
    try {
      await parent.sync()
    } finally {
      await parent.close()
    }
    return true
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
    add: async (key) => {
      await exclusive(() => save((all) => [...all, key]))
    },
    revoke: (id) =>
      exclusive(() =>
        save((all) =>
          all.some((k) => k.id === id && k.revokedAt === undefined)
            ? all.map((k) => (k.id === id ? { ...k, revokedAt: new Date().toISOString() } : k))
            : null,
        ),
      ),
  }
}

const busy = (path: string): WeirError =>
  new WeirError({
    code: 'WEIR_HTTP_KEYS_BUSY',
    message: `Others change ${path} all the time.`,
    expected: `a change within ${DEADLINE_MS} ms`,
    next: 'look which processes do so, and try again; nothing was changed',
    retryable: true,
  })
