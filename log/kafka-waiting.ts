/**
 * Readers at the end of a partition. One that looks often and finds nothing shares one long fetch from look to look, so that
 * rest costs a request every `pollMs`, however often it looks.
 * Invariant: an empty answer stands for a look at that very position, at most `pollMs` and a time-out ago.
 */
import type { ReadLimits, ReadResult } from '../model/ports/event-log.ts'
import type { Position } from '../model/position.ts'
import type { Reader } from './kafka-read.ts'

const keyOf = (topic: string, partition: number, from: Position, limits: ReadLimits): string =>
  [topic, partition, from.logId, from.offset, from.fingerprint, limits.maxBytes, limits.maxRecords ?? ''].join(' ')

const isEmpty = (result: ReadResult): boolean => result.kind === 'records' && result.records.length === 0

/** Readers of one partition that rest at a time (speed, archiver, …); more of them only cost more fetches. */
const RESTING = 16

export const openWaiting = (read: Reader, pollMs: number): Reader => {
  const running = new Map<string, Promise<ReadResult>>()
  /** The last empty answers of each partition, by what was asked. */
  const resting = new Map<string, Map<string, ReadResult>>()

  const longRead = (topic: string, partition: number, from: Position, limits: ReadLimits, key: string) => {
    const known = running.get(key)
    if (known !== undefined) return known
    const { maxBytes, maxRecords } = limits
    const work = read(topic, partition, from, { maxBytes, ...(maxRecords && { maxRecords }), waitMs: pollMs })
    running.set(key, work)
    // What nobody waits for any more is fetched again when somebody comes.
    work.then(
      () => running.delete(key),
      () => {
        running.delete(key)
        // An empty answer from before the failure says nothing any more.
        resting.get(`${topic}/${partition}`)?.delete(key)
      },
    )
    return work
  }

  const rest = (place: string, key: string, result: ReadResult): ReadResult => {
    const answers = resting.get(place) ?? new Map<string, ReadResult>()
    resting.set(place, answers)
    answers.delete(key)
    if (isEmpty(result)) answers.set(key, result)
    if (answers.size > RESTING) answers.delete(answers.keys().next().value!)
    return result
  }

  return async (topic, partition, from, limits) => {
    const waitMs = limits.waitMs ?? 0
    const deadline = performance.now() + waitMs
    const place = `${topic}/${partition}`
    const key = keyOf(topic, partition, from, limits)
    for (;;) {
      const last = resting.get(place)?.get(key)
      if (waitMs <= 0 || last === undefined) {
        return rest(place, key, await read(topic, partition, from, limits))
      }
      const left = deadline - performance.now()
      const result = await firstOf(longRead(topic, partition, from, limits, key), left)
      if (result === 'late') return last
      if (!isEmpty(rest(place, key, result)) || limits.signal?.aborted) return result
    }
  }
}

/** `work`, or 'late' when it is not done within `ms`. */
const firstOf = async <T>(work: Promise<T>, ms: number): Promise<T | 'late'> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, ms), 'late')
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
