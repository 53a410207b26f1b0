/** Resting readers: how often they look, and how rarely the broker is asked. No broker needed. */
import { expect, it } from 'vitest'
import { openWaiting } from '../../log/kafka-waiting.ts'
import type { LogRecord, ReadResult } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'

const start = genesis('log')
const next: Position = { ...start, offset: 1, fingerprint: '0'.repeat(16) }
const nothing = (to = start): ReadResult => ({ kind: 'records', records: [], to, logEndOffset: to.offset })
const something: ReadResult = { kind: 'records', records: [{} as LogRecord], to: next, logEndOffset: 1 }

const setup = () => {
  const asked: {
    waitMs: number | undefined
    from: Position
    answer(result: ReadResult): void
    fail(error: Error): void
  }[] = []
  const read = openWaiting(
    (_topic, _partition, from, limits) =>
      new Promise((answer, fail) => asked.push({ waitMs: limits.waitMs, from, answer, fail })),
    5_000,
  )
  const limits = { maxBytes: 100, waitMs: 5 }
  return { asked, look: (from = start, more = {}) => read('t', 0, from, { ...limits, ...more }) }
}

it('asks once for many looks at rest, and wakes the one that waits', async () => {
  const { asked, look } = setup()
  const first = look()
  asked[0]!.answer(nothing())
  expect(await first).toEqual(nothing())
  expect(asked[0]!.waitMs).toBe(5)
  for (let n = 0; n < 5; n++) expect(await look()).toEqual(nothing())
  expect(asked.map((a) => a.waitMs)).toEqual([5, 5_000])
  const waiting = look(start, { waitMs: 60_000 })
  asked[1]!.answer(something)
  expect(await waiting).toBe(something)
})

it('answers from no older look than the last one that ended', async () => {
  const { asked, look } = setup()
  const first = look()
  asked[0]!.answer(nothing())
  await first
  const second = look(start, { waitMs: 60_000 })
  asked[1]!.answer({ kind: 'replaced' })
  expect(await second).toEqual({ kind: 'replaced' })
  // What was true before is no longer said: the next look is one of its own.
  const third = look()
  expect(asked).toHaveLength(3)
  asked[2]!.answer({ kind: 'replaced' })
  expect(await third).toEqual({ kind: 'replaced' })
})

it('looks itself at a new position, with other limits, or without waiting', async () => {
  const { asked, look } = setup()
  const first = look()
  asked[0]!.answer(nothing())
  await first
  const others = [look(next), look(start, { maxBytes: 7 }), look(start, { waitMs: 0 })]
  expect(asked.slice(1).map((a) => a.waitMs)).toEqual([5, 5, 0])
  for (const { answer } of asked.slice(1)) answer(nothing())
  await Promise.all(others)
})

it('passes a failure on to who waits, and says nothing from before it, seen or unseen', async () => {
  const { asked, look } = setup()
  const rest = async (): Promise<void> => {
    const own = look()
    asked.at(-1)!.answer(nothing())
    await own
    expect(await look()).toEqual(nothing())
  }
  await rest()
  const waiting = look(start, { waitMs: 60_000 })
  asked.at(-1)!.fail(new Error('gone'))
  await expect(waiting).rejects.toThrow('gone')
  await rest()
  asked.at(-1)!.fail(new Error('unseen'))
  await new Promise((resolve) => setImmediate(resolve))
  const own = look()
  asked.at(-1)!.fail(new Error('still gone'))
  await expect(own).rejects.toThrow('still gone')
})
