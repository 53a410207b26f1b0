/** The embedded log and the tests' own one keep the event log's contract. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { openMemoryLog } from '../support/memory-log.ts'
import { eventLogContract } from './event-log.ts'

eventLogContract('lmdb', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-log-'))
  const clock = { now: 0 }
  return {
    // Small blocks, so that a trim has something to remove.
    open: () => openLmdbLog({ folder, now: () => clock.now, blockBytes: 256 }),
    clock,
    replace: () => rm(folder, { recursive: true, force: true }),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
})

eventLogContract('memory', async () => {
  const log = openMemoryLog()
  return {
    open: async () => log.handle(),
    clock: log.clock,
    replace: async () => log.replace('orders'),
    remove: async () => undefined,
  }
})

describe('the memory log', () => {
  it('has another history after a truncation, also when the same records are appended again', async () => {
    const log = openMemoryLog()
    await log.create('orders', 1)
    const records = ['a', 'b', 'c'].map((text, i) => ({
      recordId: String(i).repeat(32),
      bytes: Buffer.from(`{"x":"${text}"}\n`),
      events: 1,
    }))
    const end = await log.append('orders', 0, records)
    const two = (await log.positionAt('orders', 0, 2))!
    log.truncate('orders', 0, 1)
    expect(await log.read('orders', 0, end, { maxBytes: 100 })).toEqual({ kind: 'beyond-end', endOffset: 1 })
    await log.append('orders', 0, records.slice(1))
    expect(await log.read('orders', 0, end, { maxBytes: 100 })).toEqual({ kind: 'replaced' })
    expect(await log.read('orders', 0, two, { maxBytes: 100 })).toEqual({ kind: 'replaced' })
    const one = (await log.positionAt('orders', 0, 1))!
    expect(await log.read('orders', 0, one, { maxBytes: 100 })).toMatchObject({ kind: 'records', logEndOffset: 3 })
  })
})
