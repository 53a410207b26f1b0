/** The committer: acknowledged only when flushed, groups, and what happens when a write fails. */
import { join } from 'node:path'
import { open } from 'lmdb'
import { afterEach, describe, expect, test } from 'vitest'
import { type Appender, type AppenderOptions, openAppender } from '../../log/lmdb-log-append.ts'
import { encodeValue, type LogDatabase, stateKey } from '../../log/lmdb-log-read.ts'
import { genesis } from '../../model/position.ts'
import { cleanUp, onCleanUp, record, tempFolder } from './support.ts'

afterEach(cleanUp)

/** An appender on a real database whose transactions are counted and whose flushes the test decides. */
const make = async (options: Partial<AppenderOptions> = {}) => {
  const db: LogDatabase = open({ path: join(await tempFolder(), 'log'), encoding: 'binary', overlappingSync: false })
  const key = stateKey('d', 0)
  await db.put(key, encodeValue(key, { formatVersion: 1, start: genesis('l'), end: genesis('l'), bytes: 0 }))
  const seen = { transactions: 0, flush: async (): Promise<unknown> => db.flushed, fail: undefined as unknown }
  const watched = new Proxy(db, {
    get: (target, name) => {
      if (name === 'flushed') return seen.flush()
      if (name === 'childTransaction')
        return async (work: () => unknown) => {
          seen.transactions++
          if (seen.fail !== undefined) throw seen.fail
          return target.childTransaction(work)
        }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  const appender: Appender = openAppender(watched, {
    blockBytes: 1_000,
    maxPendingBytes: 1 << 20,
    maxBytes: 0,
    now: () => 1_000_000,
    committed: () => undefined,
    freeBytes: async () => 1e9,
    ...options,
  })
  onCleanUp(async () => {
    await appender.close()
    await db.close()
  })
  return { appender, seen, db }
}

describe('group commit', () => {
  test('appends that wait share one transaction, keep their order, and resolve to their own ends', async () => {
    const { appender, seen } = await make()
    const ends = await Promise.all(Array.from({ length: 300 }, (_, n) => appender.append('d', 0, [record(n)])))
    expect(ends.map((end) => end.offset)).toEqual(Array.from({ length: 300 }, (_, n) => n + 1))
    expect(new Set(ends.map((end) => end.fingerprint)).size).toBe(300)
    expect(seen.transactions).toBeLessThanOrEqual(2)
  })

  test('nothing resolves before the flush', async () => {
    const { appender, seen } = await make()
    let flushed: () => void = () => undefined
    const gate = new Promise<void>((resolve) => {
      flushed = resolve
    })
    seen.flush = () => gate
    let done = false
    const append = appender.append('d', 0, [record(1)]).then(() => {
      done = true
    })
    await expect.poll(() => seen.transactions, { timeout: 10_000, interval: 5 }).toBe(1)
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    expect(done).toBe(false)
    flushed()
    await append
  })

  test('a refused append does not hold up its neighbours', async () => {
    const { appender } = await make()
    const results = await Promise.allSettled([
      appender.append('d', 0, [record(1)]),
      appender.append('d', 5, [record(2)]),
      appender.append('d', 0, [record(3)]),
    ])
    expect(results.map((r) => r.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })

  test('bad records never reach the database', async () => {
    const { appender, seen } = await make()
    for (const bad of [
      { ...record(1), recordId: 'x' },
      { ...record(1), recordId: record(1).recordId.toUpperCase().replace(/\d/g, 'A') },
      { ...record(1), events: 0 },
      { ...record(1), events: 1.5 },
      { ...record(1), bytes: new Uint8Array(0) },
    ]) {
      await expect(appender.append('d', 0, [bad])).rejects.toMatchObject({ code: 'WEIR_LOG_BAD_RECORD' })
    }
    expect(seen.transactions).toBe(0)
  })
})

describe('failed writes', () => {
  test('a failed flush is final: its group and all that follow are refused', async () => {
    const { appender, seen } = await make()
    seen.flush = async () => {
      throw new Error('Input/output error')
    }
    const group = await Promise.allSettled([appender.append('d', 0, [record(1)]), appender.append('d', 0, [record(2)])])
    for (const r of group) expect(r).toMatchObject({ reason: { code: 'WEIR_LOG_WRITE_FAILED', retryable: false } })
    seen.flush = async () => undefined
    await expect(appender.append('d', 0, [record(3)])).rejects.toMatchObject({ code: 'WEIR_LOG_WRITE_FAILED' })
  })

  test('P8: what waits behind a failed flush is not written, let alone acknowledged', async () => {
    const { appender, seen } = await make()
    let fail: (error: Error) => void = () => undefined
    const gate = new Promise<void>((_, reject) => {
      fail = reject
    })
    let flushing = false
    seen.flush = () => {
      flushing = true
      return gate
    }
    const first = appender.append('d', 0, [record(1)])
    first.catch(() => undefined)
    await expect.poll(() => flushing, { timeout: 10_000, interval: 5 }).toBe(true)
    const second = appender.append('d', 0, [record(2)])
    seen.flush = async () => undefined
    fail(new Error('Input/output error'))
    await expect(first).rejects.toMatchObject({ code: 'WEIR_LOG_WRITE_FAILED' })
    await expect(second).rejects.toMatchObject({ code: 'WEIR_LOG_WRITE_FAILED' })
    expect(seen.transactions).toBe(1)
  })

  test.each(['No space left on device', 'MDB_MAP_FULL: Environment mapsize limit reached', 'ENOSPC'])(
    '%s is retryable, and appends go on when there is room',
    async (text) => {
      const { appender, seen } = await make()
      seen.fail = new Error(text)
      await expect(appender.append('d', 0, [record(1)])).rejects.toMatchObject({
        code: 'WEIR_LOG_DISK_FULL',
        retryable: true,
      })
      seen.fail = undefined
      expect((await appender.append('d', 0, [record(1)])).offset).toBe(1)
    },
  )

  test('an input/output error is a full disk only when the disk is full', async () => {
    const { appender, seen } = await make({ freeBytes: async () => 1_000 })
    seen.fail = new Error('Input/output error')
    await expect(appender.append('d', 0, [record(1)])).rejects.toMatchObject({ code: 'WEIR_LOG_DISK_FULL' })
    const other = await make()
    other.seen.fail = new Error('Input/output error')
    await expect(other.appender.append('d', 0, [record(1)])).rejects.toMatchObject({ code: 'WEIR_LOG_WRITE_FAILED' })
  })

  test('too many waiting bytes are refused at once, and taken later', async () => {
    const { appender } = await make({ maxPendingBytes: 500 })
    const first = appender.append('d', 0, [record(1, 400)])
    await expect(appender.append('d', 0, [record(2, 400)])).rejects.toMatchObject({
      code: 'WEIR_LOG_BUSY',
      retryable: true,
    })
    await first
    expect((await appender.append('d', 0, [record(2, 400)])).offset).toBe(2)
  })

  test('after close: refused, what was under way is done', async () => {
    const { appender } = await make()
    const running = appender.append('d', 0, [record(1)])
    await appender.close()
    expect((await running).offset).toBe(1)
    await expect(appender.append('d', 0, [record(2)])).rejects.toMatchObject({ code: 'WEIR_LOG_CLOSED' })
  })
})
