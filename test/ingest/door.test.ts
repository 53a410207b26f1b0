/** The door: fates, records, tokens, idempotency, partitions, group commit, failures. */
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { decodeToken } from '../../model/token.ts'
import { cleanUp, event, eventsOf, lines, openWorld, readAll } from './support.ts'

afterEach(cleanUp)

describe('fates', () => {
  test('every event is accepted or rejected with its index, code and reason', async () => {
    const world = await openWorld()
    const body = lines(event(0), '', 'nonsense', event(2), '{"id":"3"}', event(4, { n: 'x' }), event(5), '[1]')
    const outcome = await world.door.accept('orders', body)
    expect(outcome.accepted).toBe(3)
    expect(outcome.rejectedCount).toBe(4)
    expect(outcome.rejected.map((r) => [r.index, r.code])).toEqual([
      [1, 'WEIR_DECODE_NOT_OBJECT'],
      [3, 'WEIR_DECODE_MISSING'],
      [4, 'WEIR_DECODE_TYPE'],
      [6, 'WEIR_DECODE_NOT_OBJECT'],
    ])
    expect(outcome.rejected[2]!.reason).toMatch(/^n: expected .*got "x"/)
    const records = await readAll(world.log)
    expect(eventsOf(records)).toEqual([[event(0), event(2), event(5)]])
    expect(records[0]!.events).toBe(3)
    const token = decodeToken(outcome.token!)
    expect(token.positions['0']).toEqual({ offset: 1, fingerprint: records[0]!.fingerprint })
    expect((await world.rejects.list('orders', 9)).map((r) => r.index)).toEqual([6, 4, 3, 1])
  })
})
