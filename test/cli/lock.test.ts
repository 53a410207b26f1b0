/** Locks on a data folder: one process per role, stale ones are taken over. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { holders, lockRoles } from '../../cli/lock.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-lock-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const lockFile = (role: string) => join(folder, 'run', `${role}.lock`)

test('a role is held once; other roles are free; a release frees it', async () => {
  const lock = await lockRoles(folder, ['speed', 'batch'])
  await expect(lockRoles(folder, ['serving', 'batch'])).rejects.toMatchObject({ code: 'WEIR_CLI_LOCKED' })
  const other = await lockRoles(folder, ['serving'])
  expect((await holders(folder)).map((h) => h.role).sort()).toEqual(['batch', 'serving', 'speed'])
  await lock.release()
  await (await lockRoles(folder, ['speed', 'batch'])).release()
  await other.release()
  expect(await holders(folder)).toEqual([])
})

test('the address is found by whoever looks for the server', async () => {
  const lock = await lockRoles(folder, ['serving'])
  expect((await holders(folder))[0]?.url).toBe(null)
  await lock.setUrl('http://127.0.0.1:1234')
  expect((await holders(folder))[0]).toMatchObject({ role: 'serving', pid: process.pid, url: 'http://127.0.0.1:1234' })
  await expect(lockRoles(folder, ['serving'])).rejects.toThrow(/serving/)
  await lock.release()
})

test('a lock of a process that is gone, or whose number went to another one, is taken over', async () => {
  await (await lockRoles(folder, ['speed'])).release()
  const child = spawn(process.execPath, ['-e', ''])
  await once(child, 'exit')
  const lock = await lockRoles(folder, ['speed'])
  const mine = JSON.parse(await readFile(lockFile('speed'), 'utf8')) as Record<string, unknown>
  await lock.release()

  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, pid: child.pid }))
  expect(await holders(folder)).toEqual([])
  await (await lockRoles(folder, ['speed'])).release()

  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, processStart: '1' }))
  await (await lockRoles(folder, ['speed'])).release()

  await writeFile(lockFile('speed'), '{"torn')
  await (await lockRoles(folder, ['speed'])).release()

  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, host: 'another machine', pid: child.pid }))
  await expect(lockRoles(folder, ['speed'])).rejects.toMatchObject({ code: 'WEIR_CLI_LOCKED' })
})

test('of many that race for a stale lock one gets it', async () => {
  const lock = await lockRoles(folder, ['speed'])
  const mine = JSON.parse(await readFile(lockFile('speed'), 'utf8')) as Record<string, unknown>
  await lock.release()
  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, processStart: '1' }))
  const all = await Promise.allSettled(Array.from({ length: 10 }, () => lockRoles(folder, ['speed'])))
  expect(all.filter((r) => r.status === 'fulfilled')).toHaveLength(1)
})
