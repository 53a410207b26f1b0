/**
 * Port: the object store under the lake. Keys are `/`-separated, relative, without `.` segments.
 * An implementation must promise: `putIfAbsent` has one winner among any number of racing writers and is durable
 * (file and folder fsynced) when it resolves; readers never see half an object.
 */
export type ObjectInfo = { key: string; size: number; modifiedMs: number }

export type ObjectStore = {
  putIfAbsent(key: string, bytes: Uint8Array): Promise<'written' | 'exists'>
  /** Overwrites; only for hints (`_last_checkpoint`) that may be lost or stale without harm. */
  putHint(key: string, bytes: Uint8Array): Promise<void>
  get(key: string): Promise<Uint8Array | null>
  /** Objects under a prefix (a folder ending in '/'), ordered by key (UTF-8 bytes), optionally after a key. */
  list(prefix: string, after?: string): Promise<ObjectInfo[]>
  delete(key: string): Promise<void>
  /** A local path where DuckDB may write a file that `publishFile` then puts under a key. Unique for each call. */
  scratch(suffix: string): Promise<string>
  /** Moves a finished scratch file under `key` durably (fsync file, place, fsync folder); never overwrites. Returns size and SHA-256 (hex). */
  publishFile(localPath: string, key: string): Promise<{ size: number; sha256: string }>
  /** A local, readable path of the object whose size and SHA-256 were checked (once per process and key). Throws WEIR_LAKE_CORRUPT. */
  localFile(key: string, expect: { size: number; sha256?: string }): Promise<string>
  close(): Promise<void>
}
