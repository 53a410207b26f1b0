/** P16: only who holds the take-over removes a stale lock, so nobody's new lock is taken away; a take-over that died holds nobody up. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Holder, lockRoles } from '../../cli/lock.ts'

let data: string
let path: string
const stale: Holder = {
  formatVersion: 1,
  role: 'speed',
  pid: 2 ** 30,
  host: hostname(),
  processStart: '1',
  startedAt: '2026-11-25T00:00:00Z',
  url: null,
}
beforeEach(async () => {
  data = await mkdtemp(join(tmpdir(), 'weir-stale-'))
  path = join(data, 'run', 'speed.lock')
  await mkdir(join(data, 'run'))
  await writeFile(path, JSON.stringify(stale))
})
afterEach(() => rm(data, { recursive: true, force: true }))

test('while another process takes over, the lock is left as it is', async () => {
  await writeFile(`${path}.takeover`, JSON.stringify({ ...stale, pid: process.pid, processStart: '' }))
  await expect(lockRoles(data, ['speed'])).rejects.toMatchObject({ code: 'WEIR_CLI_LOCKED' })
  expect(JSON.parse(await readFile(path, 'utf8'))).toEqual(stale)
})

test('a take-over whose process is gone is removed', async () => {
  await writeFile(`${path}.takeover`, JSON.stringify(stale))
  const lock = await lockRoles(data, ['speed'])
  expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ pid: process.pid })
  await expect(readFile(`${path}.takeover`)).rejects.toThrow(/ENOENT/)
  await lock.release()
})
