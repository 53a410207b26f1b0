/**
 * Answers given, under the key that says everything they depend on (forced filters, query, version, generation, upper with
 * fingerprints). Invariant: an answer found here is the answer that would be computed; the least recently used go first when
 * the bytes are used up.
 */
import type { Answer } from '../model/query/query.ts'

/** An answer without its timing. */
export type Kept = Omit<Answer, 'timing'>

export type AnswerCache = {
  get(key: string): Kept | undefined
  set(key: string, answer: Kept): void
  bytes(): number
}

/** A generous guess of an answer's size in memory. */
const sizeOf = (answer: Kept): number => {
  let bytes = 1_000 + answer.columns.length * 100
  for (const row of answer.rows)
    for (const name in row) {
      const value = row[name]
      bytes += 24 + (typeof value === 'string' ? 2 * value.length : 0)
    }
  return bytes
}

export const openAnswerCache = (maxBytes: number): AnswerCache => {
  const kept = new Map<string, { answer: Kept; bytes: number }>()
  let total = 0
  const drop = (key: string): void => {
    const entry = kept.get(key)
    if (!entry) return
    kept.delete(key)
    total -= entry.bytes
  }
  return {
    get: (key) => {
      const entry = kept.get(key)
      if (!entry) return undefined
      kept.delete(key)
      kept.set(key, entry)
      return entry.answer
    },
    set: (key, answer) => {
      const bytes = sizeOf(answer)
      // One answer may not push out all others.
      if (bytes > maxBytes / 4) return
      drop(key)
      kept.set(key, { answer, bytes })
      total += bytes
      for (const oldest of kept.keys()) {
        if (total <= maxBytes) break
        drop(oldest)
      }
    },
    bytes: () => total,
  }
}
