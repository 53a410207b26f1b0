/** The LMDB log's own promises: formats, damage, size, trimming, readers, a full disk. */
import { spawn, spawnSync } from 'node:child_process'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { open } from 'lmdb'
import { afterEach, describe, expect, test } from 'vitest'
import { type LmdbLogOptions, openLmdbLog } from '../../log/lmdb-log.ts'
import { blockKey, encodeValue, type LogDatabase, stateKey } from '../../log/lmdb-log-read.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import { genesis } from '../../model/position.ts'
import { cleanUp, onCleanUp, readAll, record, tempFolder } from './support.ts'

afterEach(cleanUp)

const openLog = async (options: Partial<LmdbLogOptions> & { folder: string }): Promise<EventLog> => {
  const log = await openLmdbLog(options)
  onCleanUp(() => log.close())
  return log
}

/** A folder with a closed log of `n` records in partition 0 of dataset d, one append (so one block at least) each. */
const written = async (n: number, bytes = 100): Promise<string> => {
  const folder = await tempFolder()
  const log = await openLmdbLog({ folder })
  await log.create('d', 1)
  for (let i = 0; i < n; i++) await log.append('d', 0, [record(i, bytes)])
  await log.close()
  return folder
}

/** Changes the stored entries of a closed log. */
const tamper = async (folder: string, change: (db: LogDatabase) => Promise<unknown>): Promise<void> => {
  const db: LogDatabase = open({ path: folder, encoding: 'binary', noSubdir: false })
  await change(db)
  await db.close()
}

describe('stored formats', () => {
  test('a newer entry refuses to open, with what to do', async () => {
    const folder = await written(2)
    await tamper(folder, (db) => {
      const key = stateKey('d', 0)
      const bytes = Buffer.from(db.get(key)!)
      bytes[0] = 2
      return db.put(key, bytes)
    })
    await expect(openLmdbLog({ folder })).rejects.toMatchObject({ code: 'WEIR_LOG_FORMAT', got: '2' })
  })

  test.each<[string, (db: LogDatabase) => Promise<unknown>]>([
    ['the last block is gone', (db) => db.remove(blockKey('d', 0, 2))],
    [
      'the last block is of another place',
      (db) => db.put(blockKey('d', 0, 2), Buffer.from(db.get(blockKey('d', 0, 1))!)),
    ],
    [
      'the state is older than the blocks say',
      (db) => {
        const state = {
          formatVersion: 1,
          start: genesis('l'),
          end: { ...genesis('l'), offset: 3, fingerprint: 'f'.repeat(16) },
          bytes: 9,
        }
        return db.put(stateKey('d', 0), encodeValue(stateKey('d', 0), state))
      },
    ],
    ['the state is cut', (db) => db.put(stateKey('d', 0), Buffer.from(db.get(stateKey('d', 0))!.subarray(0, 20)))],
    [
      'the state has a flipped bit',
      (db) => {
        const bytes = Buffer.from(db.get(stateKey('d', 0))!)
        bytes[30]! ^= 4
        return db.put(stateKey('d', 0), bytes)
      },
    ],
  ])('torn: %s', async (_name, change) => {
    const folder = await written(3)
    await tamper(folder, change)
    await expect(openLmdbLog({ folder })).rejects.toMatchObject({ code: 'WEIR_LOG_CORRUPT' })
  })

  test('a block in the middle that is gone or damaged is told when it is read, and its neighbours are served', async () => {
    const folder = await written(3)
    await tamper(folder, (db) => db.remove(blockKey('d', 0, 1)))
    const log = await openLog({ folder })
    const { logId } = await log.range('d', 0)
    const first = await log.read('d', 0, genesis(logId), { maxBytes: 1, maxRecords: 1 })
    expect(first.kind === 'records' && first.records.length).toBe(1)
    await expect(readAll(log)).rejects.toMatchObject({ code: 'WEIR_LOG_CORRUPT' })
  })

  test('a flipped bit in the file, anywhere in a record, is found when it is read', async () => {
    const folder = await written(20, 300)
    const path = join(folder, 'data.mdb')
    const sound = await readFile(path)
    const places: number[] = []
    for (let at = sound.indexOf('"pad"'); at >= 0; at = sound.indexOf('"pad"', at + 1)) places.push(at)
    expect(places.length).toBeGreaterThanOrEqual(20)
    for (let i = 0; i < 25; i++) {
      const copy = await tempFolder()
      const bad = Buffer.from(sound)
      bad[places[(i * 7) % places.length]! + ((i * 31) % 300)]! ^= 1 << (i & 7)
      await writeFile(join(copy, 'data.mdb'), bad)
      // The last record's block is looked at when the log opens, the others when they are read. Pages that LMDB has
      // freed hold old copies; a flip there changes nothing.
      const outcome = await openLmdbLog({ folder: copy }).then(
        async (log) => {
          const read = await readAll(log).then(
            (records) => records.map((r) => Buffer.from(r.bytes).toString()),
            (error: { code?: string }) => error.code,
          )
          await log.close()
          return read
        },
        (error: { code?: string }) => error.code,
      )
      if (typeof outcome === 'string') expect(outcome).toBe('WEIR_LOG_CORRUPT')
      else expect(outcome).toEqual(Array.from({ length: 20 }, (_, n) => record(n, 300).bytes.toString()))
    }
  })
})

describe('size', () => {
  test('above maxBytes appends are refused, retryable; trimming makes room', async () => {
    const folder = await tempFolder()
    const log = await openLog({ folder, maxBytes: 3_000, blockBytes: 500 })
    await log.create('d', 1)
    let n = 0
    const fill = async (): Promise<unknown> => {
      for (; n < 100; n++) {
        try {
          await log.append('d', 0, [record(n, 200)])
        } catch (error) {
          return error
        }
      }
      return null
    }
    expect(await fill()).toMatchObject({ code: 'WEIR_LOG_FULL', retryable: true })
    const full = n
    await log.trim('d', 0, full - 1)
    expect((await log.range('d', 0)).startOffset).toBe(full - 1)
    expect((await log.append('d', 0, [record(n++, 200)])).offset).toBe(full + 1)
    expect(await fill()).toMatchObject({ code: 'WEIR_LOG_FULL' })
    expect((await readAll(log)).map((r) => r.offset)).toEqual(
      Array.from({ length: n - full + 1 }, (_, i) => full - 1 + i),
    )
  })

  test('trimmed space is used again: the file does not grow', async () => {
    const folder = await tempFolder()
    const log = await openLog({ folder })
    await log.create('d', 1)
    const sizes: number[] = []
    for (let round = 0; round < 12; round++) {
      const end = await log.append(
        'd',
        0,
        Array.from({ length: 40 }, (_, i) => record(round * 40 + i, 10_000)),
      )
      await log.trim('d', 0, end.offset - 5)
      sizes.push((await readFile(join(folder, 'data.mdb'))).byteLength)
    }
    expect(sizes.at(-1)!).toBeLessThanOrEqual(sizes[5]! * 1.5)
  })
})

describe('readers', () => {
  test('a read-only log beside the writer sees what is appended, and wakes for it', async () => {
    const folder = await written(2)
    const writer = await openLog({ folder })
    const reader = await openLog({ folder, readOnly: true })
    const records = await readAll(reader)
    const { logId } = await reader.range('d', 0)
    const last = records.at(-1)!
    const from = { logId, offset: 2, fingerprint: last.fingerprint, effectiveMs: last.appendTimeMs }
    const waiting = reader.read('d', 0, from, { maxBytes: 1e6, waitMs: 20_000 })
    await writer.append('d', 0, [record(2)])
    const found = await waiting
    expect(found.kind === 'records' && found.records.map((r) => r.offset)).toEqual([2])
  })

  test('a log that was put in the place of another has another id', async () => {
    const folder = await written(1)
    const log = await openLmdbLog({ folder })
    const before = await log.range('d', 0)
    await log.close()
    const other = await tempFolder()
    await mkdir(join(other, 'x'))
    await copyFile(join(folder, 'data.mdb'), join(other, 'x', 'data.mdb'))
    const copy = await openLog({ folder: join(other, 'x') })
    expect((await copy.range('d', 0)).logId).toBe(before.logId)
    const fresh = await openLog({ folder: join(other, 'y') })
    await fresh.create('d', 1)
    expect((await fresh.range('d', 0)).logId).not.toBe(before.logId)
    expect(await fresh.read('d', 0, genesis(before.logId), { maxBytes: 1 })).toEqual({ kind: 'replaced' })
  })
})

/** Can this machine give a process a small disk of its own? (Needs root.) */
const smallDisk = process.platform === 'linux' && spawnSync('unshare', ['-m', 'true']).status === 0

test.skipIf(!smallDisk)(
  'a full disk: nothing is acknowledged that is not stored, reads go on, appends come back',
  async () => {
    const folder = await tempFolder()
    const script = `mount -t tmpfs -o size=6m none "$1" && exec "$2" --import tsx test/log/child.ts full "$1"`
    const child = spawn('unshare', ['-m', 'sh', '-c', script, 'sh', folder, process.execPath], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    child.stdout.on('data', (d) => {
      out += d
    })
    child.stderr.on('data', (d) => {
      out += d
    })
    const code = await new Promise((resolve) => child.on('close', resolve))
    expect([code, out.trim().split('\n').at(-1)], out).toEqual([0, 'ok'])
  },
)
