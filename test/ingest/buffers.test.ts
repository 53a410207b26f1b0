/** Memory of bodies, used again: what is in the log is what was sent, whatever body lay in the same memory before and after. */
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { openBuffers } from '../../ingest/buffers.ts'
import { cleanUp, event, eventsOf, openWorld, readAll } from './support.ts'

afterEach(cleanUp)

describe('buffers', () => {
  test('have one user at a time, and are used again', () => {
    const buffers = openBuffers(1024, 256)
    const [a, b] = [buffers.take(10), buffers.take(256)]
    expect(a.byteLength).toBe(256)
    expect(b).not.toBe(a)
    buffers.give(a)
    expect(buffers.take(200)).toBe(a)
    expect(buffers.take(200)).not.toBe(a)
    expect(buffers.take(257).byteLength).toBe(512)
  })

  test('are kept up to the bound', () => {
    const buffers = openBuffers(600, 256)
    const all = [buffers.take(1), buffers.take(1), buffers.take(1)]
    for (const buffer of all) buffers.give(buffer)
    const again = [buffers.take(1), buffers.take(1), buffers.take(1)]
    expect(again.filter((buffer) => all.includes(buffer))).toHaveLength(2)
    const large = buffers.take(10_000)
    buffers.give(large)
    expect(buffers.take(10_000)).not.toBe(large)
  })
})

test('bodies of several chunks, at the same time and one after the other, good and bad, come into the log as they were sent', async () => {
  const world = await openWorld()
  let n = 0
  const request = fc.record({
    events: fc.integer({ min: 1, max: 40 }),
    bad: fc.nat(3),
    parts: fc.integer({ min: 1, max: 6 }),
    aborted: fc.constantFrom(false, false, false, true),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(request, { minLength: 1, maxLength: 6 }), { maxLength: 4 }), async (waves) => {
      const before = eventsOf(await readAll(world.log)).flat().length
      const sent: string[] = []
      for (const wave of waves) {
        await Promise.all(
          wave.map(async ({ events, bad, parts, aborted }) => {
            const good = Array.from({ length: events }, () => event(n++, { note: 'x'.repeat(n % 50) }))
            const refused = Array.from({ length: bad }, () => `{"id":"bad${n++}","ts":"never"}`)
            const body = Buffer.from([...good, ...refused].map((line) => `${line}\n`).join(''))
            const chunks = async function* () {
              const size = Math.ceil(body.byteLength / parts)
              for (let from = 0; from < body.byteLength; from += size) {
                await new Promise(setImmediate)
                if (aborted && from > 0) throw new Error('gone')
                yield body.subarray(from, from + size)
              }
            }
            const outcome = await world.door.accept('orders', chunks(), { ndjson: true }).catch(() => null)
            if (outcome === null) return
            sent.push(...good)
            expect(outcome).toMatchObject({ accepted: events, rejectedCount: bad })
          }),
        )
      }
      const kept = eventsOf(await readAll(world.log))
        .flat()
        .slice(before)
      expect(kept.sort()).toEqual(sent.sort())
    }),
    { numRuns: 30 },
  )
})
