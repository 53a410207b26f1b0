/**
 * Memory for bodies, used again. Invariant: a buffer has one user at a time, from `take` until `give`; who cannot vouch that
 * nobody reads it any more does not give it back, and the garbage collector has it then.
 *
 * Bodies are large and short-lived. As fresh memory each of them counts against the collector's limit for memory outside its
 * heap, and makes it mark the whole heap every few dozen requests: an eighth of ingest's CPU.
 */

export type Buffers = {
  /** A buffer of at least so many bytes, with whatever it held before. */
  take(bytes: number): Buffer
  give(buffer: Buffer): void
}

/** Keeps at most `keptBytes` for later. Sizes are `smallest` and its doubles. */
export const openBuffers = (keptBytes: number, smallest = 256 * 1024): Buffers => {
  const free = new Map<number, Buffer[]>()
  let kept = 0
  return {
    take: (bytes) => {
      let size = smallest
      while (size < bytes) size *= 2
      const found = free.get(size)?.pop()
      if (found === undefined) return Buffer.allocUnsafeSlow(size)
      kept -= size
      return found
    },
    give: (buffer) => {
      const size = buffer.byteLength
      if (kept + size > keptBytes) return
      kept += size
      const same = free.get(size)
      if (same === undefined) free.set(size, [buffer])
      else same.push(buffer)
    },
  }
}
