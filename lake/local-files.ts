/** Local paths of many files. Invariant: each is checked as `localFile` checks it; the order is that of the files. */
import type { ObjectStore } from '../model/ports/object-store.ts'

/** Asked at a time: on a far store each file costs a round trip or two, and views have hundreds of them. */
const AT_ONCE = 8

type File = { key: string; size: number; sha256?: string | undefined }
type Local<F> = F & { path: string; sha256: string | undefined }

/** Throws what `localFile` throws, when none of the others is under way any more. */
export const localFiles = async <F extends File>(store: ObjectStore, files: readonly F[]): Promise<Local<F>[]> => {
  const found: Local<F>[] = new Array(files.length)
  let next = 0
  let failed: { error: unknown } | undefined
  const lane = async (): Promise<void> => {
    while (next < files.length && failed === undefined) {
      const n = next++
      const file = files[n]!
      const { key, size, sha256 } = file
      try {
        const path = await store.localFile(key, { size, ...(sha256 === undefined ? {} : { sha256 }) })
        found[n] = { ...file, path, sha256 }
      } catch (error) {
        failed ??= { error }
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, files.length) }, lane))
  if (failed !== undefined) throw failed.error
  return found
}
