/** `kill -9` under load: what was acknowledged is there, once, in place; the chain of fingerprints is whole. WEIR_TEST_LOG_KILLS rounds (default 3). */
import { spawn } from 'node:child_process'
import { afterEach, expect, test } from 'vitest'
import { fingerprintOf } from '../../log/block.ts'
import { openLmdbLog } from '../../log/lmdb-log.ts'
import { genesis, type Position } from '../../model/position.ts'
import { cleanUp, onCleanUp, readAll, record, tempFolder } from './support.ts'

afterEach(cleanUp)

const ROUNDS = Number(process.env.WEIR_TEST_LOG_KILLS ?? 3)

/** Runs the appending child until it has acknowledged `until` records, kills it, and gives back all its whole lines. */
const appendAndKill = async (folder: string, until: number): Promise<string[]> => {
  const child = spawn(process.execPath, ['--import', 'tsx', 'test/log/child.ts', 'append', folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onCleanUp(async () => void child.kill('SIGKILL'))
  let out = ''
  let lines = 0
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (d: string) => {
    out += d
    lines += d.split('\n').length - 1
    if (lines >= until) child.kill('SIGKILL')
  })
  await new Promise((resolve) => child.on('close', resolve))
  return out.split('\n').slice(0, -1)
}

test(`${ROUNDS} kills under load`, async () => {
  const folder = await tempFolder()
  const acknowledged = new Map<number, { n: number; fingerprint: string }>()
  for (let round = 0; round < ROUNDS; round++) {
    const lines = await appendAndKill(folder, 60 + round * 37)
    expect(lines.length).toBeGreaterThanOrEqual(60)
    for (const line of lines) {
      const [n, offset, fingerprint] = line.split(' ') as [string, string, string]
      expect(acknowledged.has(Number(offset))).toBe(false)
      acknowledged.set(Number(offset), { n: Number(n), fingerprint })
    }
    const log = await openLmdbLog({ folder })
    const records = await readAll(log)
    const { logId } = await log.range('d', 0)
    await log.close()
    let at: Position = genesis(logId)
    for (const r of records) {
      expect(r.offset).toBe(at.offset)
      const fingerprint = fingerprintOf(at, r, r.appendTimeMs)
      expect(r.fingerprint).toBe(fingerprint)
      at = { ...at, offset: at.offset + 1, fingerprint }
    }
    for (const [offset, { n, fingerprint }] of acknowledged) {
      const found = records[offset - 1]
      expect(found?.recordId, `record ${n} at ${offset - 1}`).toBe(record(n).recordId)
      expect(found!.fingerprint).toBe(fingerprint)
      expect(Buffer.from(found!.bytes)).toEqual(record(n, n % 3_000).bytes)
    }
  }
})
