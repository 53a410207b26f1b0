/**
 * An object store in memory, for tests that run many of them. Handles of one `MemoryObjects` share the objects, as processes share a
 * folder. Files that DuckDB writes and reads lie in a folder in memory (/dev/shm where there is one), removed by `remove`.
 * `faultyStore` wraps any store: calls that fail before they act, or act and lose the reply.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkKey, checkPrefix, compareKeys } from '../../lake/keys.ts'
import { WeirError } from '../../model/errors.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'

type Stored = { bytes: Buffer; modifiedMs: number; sha256?: string; path?: string }

export type MemoryObjects = {
  open(): ObjectStore
  /** Changes an object behind the store's back. */
  damage(key: string, change: (bytes: Buffer) => Buffer): Promise<void>
  keys(): string[]
  /** Removes the folder; open handles are of no use any more. */
  remove(): Promise<void>
}

const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const corrupt = (key: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LAKE_CORRUPT',
    message: `The stored object ${key} is not what was written.`,
    expected,
    got,
    next: 'this is a test',
  })

/** `now`: the clock of the objects' ages, ms. */
export const memoryObjects = async (options: { now?: () => number } = {}): Promise<MemoryObjects> => {
  const now = options.now ?? Date.now
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const folder = await mkdtemp(join(base, 'weir-objects-'))
  const objects = new Map<string, Stored>()
  let files = 0
  const fresh = (suffix: string): string => join(folder, `${files++}${suffix}`)

  const open = (): ObjectStore => ({
    putIfAbsent: async (key, bytes) => {
      if (objects.has(checkKey(key))) return 'exists'
      objects.set(key, { bytes: Buffer.from(bytes), modifiedMs: now() })
      return 'written'
    },
    putHint: async (key, bytes) => {
      objects.set(checkKey(key), { bytes: Buffer.from(bytes), modifiedMs: now() })
    },
    get: async (key) => objects.get(checkKey(key))?.bytes ?? null,
    list: async (prefix, after) => {
      checkPrefix(prefix)
      return [...objects]
        .filter(([key]) => key.startsWith(prefix) && (after === undefined || compareKeys(key, after) > 0))
        .map(([key, o]) => ({ key, size: o.bytes.length, modifiedMs: Math.trunc(o.modifiedMs) }))
        .sort((a, b) => compareKeys(a.key, b.key))
    },
    delete: async (key) => {
      const found = objects.get(checkKey(key))
      objects.delete(key)
      if (found?.path) await rm(found.path, { force: true })
    },
    scratch: async (suffix) => fresh(suffix),
    publishFile: async (localPath, key) => {
      checkKey(key)
      const bytes = await readFile(localPath)
      if (objects.has(key)) {
        await rm(localPath, { force: true })
        throw new WeirError({
          code: 'WEIR_LAKE_EXISTS',
          message: `An object ${key} exists already; objects are never overwritten.`,
          expected: 'a fresh name for each file',
          got: key,
          next: 'this is a test',
        })
      }
      const path = fresh('.object')
      await rename(localPath, path)
      const sha256 = sha256Of(bytes)
      objects.set(key, { bytes, modifiedMs: now(), sha256, path })
      return { size: bytes.length, sha256 }
    },
    localFile: async (key, expect) => {
      const found = objects.get(checkKey(key))
      if (found === undefined) throw corrupt(key, `${expect.size} bytes`, 'no such object')
      if (found.bytes.length !== expect.size) throw corrupt(key, `${expect.size} bytes`, `${found.bytes.length} bytes`)
      found.sha256 ??= sha256Of(found.bytes)
      if (expect.sha256 !== undefined && found.sha256 !== expect.sha256)
        throw corrupt(key, `SHA-256 ${expect.sha256}`, `SHA-256 ${found.sha256}`)
      if (found.path === undefined) {
        const path = fresh('.object')
        await writeFile(path, found.bytes)
        found.path = path
      }
      return found.path
    },
    close: () => Promise.resolve(),
  })

  return {
    open,
    damage: async (key, change) => {
      const found = objects.get(key)!
      objects.set(key, { bytes: Buffer.from(change(Buffer.from(found.bytes))), modifiedMs: found.modifiedMs })
    },
    keys: () => [...objects.keys()].sort(compareKeys),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

/** What happens to a call: 'before': it fails and did nothing; 'after': it was done, and the reply is lost. */
export type Fate = 'ok' | 'before' | 'after'
export type StoreCall = 'putIfAbsent' | 'putHint' | 'get' | 'list' | 'delete' | 'publishFile' | 'localFile'

export class InjectedFault extends Error {
  constructor(call: string, key: string, fate: Fate) {
    super(`injected: ${call} ${key} failed ${fate === 'after' ? 'after it was done' : 'before it was done'}`)
  }
}

export const faultyStore = (store: ObjectStore, decide: (call: StoreCall, key: string) => Fate): ObjectStore => {
  const around = async <T>(call: StoreCall, key: string, run: () => Promise<T>): Promise<T> => {
    const fate = decide(call, key)
    if (fate === 'before') throw new InjectedFault(call, key, fate)
    const value = await run()
    if (fate === 'after') throw new InjectedFault(call, key, fate)
    return value
  }
  return {
    putIfAbsent: (key, bytes) => around('putIfAbsent', key, () => store.putIfAbsent(key, bytes)),
    putHint: (key, bytes) => around('putHint', key, () => store.putHint(key, bytes)),
    get: (key) => around('get', key, () => store.get(key)),
    list: (prefix, after) => around('list', prefix, () => store.list(prefix, after)),
    delete: (key) => around('delete', key, () => store.delete(key)),
    scratch: (suffix) => store.scratch(suffix),
    publishFile: (path, key) => around('publishFile', key, () => store.publishFile(path, key)),
    localFile: (key, expect) => around('localFile', key, () => store.localFile(key, expect)),
    close: () => store.close(),
  }
}

/** One store of its own; closing it removes it. */
export const openMemoryObjectStore = async (options: { now?: () => number } = {}): Promise<ObjectStore> => {
  const objects = await memoryObjects(options)
  return { ...objects.open(), close: objects.remove }
}
