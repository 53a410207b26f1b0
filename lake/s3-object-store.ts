/**
 * Port `ObjectStore` on an S3-compatible store.
 * Invariants: one key has one winner (s3-write.ts); a data file is known to be stored as it was written before its name is given out;
 * nothing but `putHint` ever replaces an object; a local path is a checked copy in the file cache (file-cache.ts).
 */
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import type { ObjectStore } from '../model/ports/object-store.ts'
import { type Fetched, type FileCache, openFileCache } from './file-cache.ts'
import { checkKey, checkPrefix } from './keys.ts'
import { connectS3, type S3Options } from './s3-client.ts'
import { corrupt } from './s3-errors.ts'
import { bytesOf, headOf, listObjects, streamObject } from './s3-read.ts'
import { abortOldUploads, probeStore } from './s3-start.ts'
import { overwrite, publish, putOnce, remove } from './s3-write.ts'

export type S3StoreOptions = S3Options & {
  /** Local folder for copies and temporary files; several processes of one machine may share it. */
  cacheFolder: string
  /** Size of the copies, in bytes, at which the least recently used ones go. */
  cacheBytes: number
  /** A local path stays readable this long after it was last handed out. Default 1 hour. */
  leaseMs?: number
  /** Files up to this size go in one request, larger ones in parts of it. At least 5 MiB (S3's bound). Default 8 MiB. */
  partBytes?: number
  /** Whether to try on opening that conditional writes are kept. Default true; a child of a process that tried may leave it out. */
  probe?: boolean
  /** Uploads in parts that were begun so long ago are aborted on opening. Default 24 hours. */
  uploadAgeMs?: number
}

/** Opens a bucket as an object store. Throws WEIR_LAKE_UNREACHABLE, WEIR_LAKE_ACCESS, or WEIR_LAKE_STORE for a store that does not do. */
export const openS3Store = async (options: S3StoreOptions): Promise<ObjectStore> => {
  const { cacheFolder, cacheBytes, leaseMs, partBytes = 8 * 1024 * 1024, uploadAgeMs = 86_400_000 } = options
  if (options.prefix !== undefined) checkPrefix(options.prefix)
  const s3 = await connectS3(options)
  const ready = async (): Promise<FileCache> => {
    if (options.probe !== false) {
      await probeStore(s3)
      // Housekeeping: the right to list uploads, or the whole function, may be missing.
      await abortOldUploads(s3, uploadAgeMs).catch(() => 0)
    }
    return openFileCache({ folder: cacheFolder, maxBytes: cacheBytes, leaseMs })
  }
  const cache = await ready().catch((error: unknown) => {
    s3.close()
    throw error
  })
  const nameOf = (key: string): string => createHash('sha256').update(`${s3.where}/${s3.prefix}${key}`).digest('hex')

  const download = async (key: string, size: number, path: string): Promise<Fetched> => {
    const file = await open(path, 'w')
    try {
      return await streamObject(s3, key, size, (chunk) => file.writeFile(chunk))
    } finally {
      await file.close()
    }
  }

  return {
    putIfAbsent: async (key, bytes) => putOnce(s3, checkKey(key), bytes),
    putHint: async (key, bytes) => overwrite(s3, checkKey(key), bytes),
    get: async (key) => bytesOf(s3, checkKey(key)),
    list: async (prefix, after) => listObjects(s3, checkPrefix(prefix), after),
    delete: async (key) => {
      await cache.forget(nameOf(checkKey(key)))
      await remove(s3, key)
    },
    scratch: async (suffix) => {
      if (!/^[\w.-]*$/.test(suffix)) checkKey(`${suffix}/..`)
      return cache.scratch(suffix)
    },
    publishFile: async (localPath, key) => {
      const done = await publish(s3, checkKey(key), localPath, partBytes)
      await cache.adopt(nameOf(key), localPath, done)
      return done
    },
    localFile: async (key, expect) => {
      const name = nameOf(checkKey(key))
      const known = await cache.held(name, expect)
      if (known !== null) return known
      // A copy must not hide that the object itself is gone or cut short. Reading it tells an absent bucket from an absent object.
      const size = (await headOf(s3, key))?.size ?? (await bytesOf(s3, key))?.length
      if (size !== expect.size)
        throw corrupt(key, `${expect.size} bytes`, size === undefined ? 'no such object' : `${size} bytes`)
      let fetched: Fetched | undefined
      const fetch = async (path: string): Promise<Fetched> => {
        fetched = await download(key, expect.size, path)
        return fetched
      }
      // Once more before it is called damage: a flipped bit of the way is none of the store.
      const path = (await cache.take(name, expect, fetch)) ?? (await cache.take(name, expect, fetch))
      if (path === null) throw corrupt(key, `SHA-256 ${expect.sha256}`, `SHA-256 ${fetched?.sha256 ?? 'unknown'}`)
      return path
    },
    close: async () => {
      s3.close()
      await cache.close()
    },
  }
}
