/** Locks on a data folder: one process per role, stale ones are taken over. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { holders, lockRoles } from '../../cli/lock.ts'
import { until } from '../support/server.ts'

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

  // The machine has another name now, or a container had the same one.
  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, host: 'another name', pid: child.pid }))
  await (await lockRoles(folder, ['speed'])).release()
})

/** As a holder that nobody here can see, in a container or on another machine. */
const elsewhere = async (): Promise<string> => {
  const lock = await lockRoles(folder, ['speed'])
  const mine = JSON.parse(await readFile(lockFile('speed'), 'utf8')) as Record<string, unknown>
  await lock.release()
  return JSON.stringify({ ...mine, id: 'other', machine: 'another boot', pid: process.pid, url: 'http://there' })
}

test('a lock that nobody renews is taken over where its process cannot be seen, also under this host’s name', async () => {
  await writeFile(lockFile('speed'), await elsewhere())
  expect(await holders(folder)).toHaveLength(1)
  const old = new Date(Date.now() - 3_600_000)
  await utimes(lockFile('speed'), old, old)
  expect(await holders(folder)).toEqual([])
  const lock = await lockRoles(folder, ['speed'], { staleMs: 200 })
  expect((await holders(folder))[0]).toMatchObject({ pid: process.pid, url: null })
  await lock.release()
  expect(await readdir(join(folder, 'run'))).toEqual([])
})

test('one that is renewed stays, however old its time is', async () => {
  await writeFile(lockFile('speed'), await elsewhere())
  let seconds = 1_000
  const renewing = setInterval(() => void utimes(lockFile('speed'), seconds, ++seconds), 50)
  try {
    await expect(lockRoles(folder, ['speed'], { staleMs: 5_000 })).rejects.toMatchObject({ code: 'WEIR_CLI_LOCKED' })
  } finally {
    clearInterval(renewing)
  }
  expect(await readFile(lockFile('speed'), 'utf8')).toContain('"other"')
})

test('an older version’s lock of another host, which is never renewed, is believed', async () => {
  const old = { ...(JSON.parse(await elsewhere()) as object), formatVersion: 1, machine: undefined, host: 'other' }
  await writeFile(lockFile('speed'), JSON.stringify(old))
  await expect(lockRoles(folder, ['speed'], { staleMs: 100 })).rejects.toMatchObject({ code: 'WEIR_CLI_LOCKED' })
})

test('a holder renews its lock, and is told when it lost it; it leaves what is another’s', async () => {
  const lost: unknown[] = []
  const lock = await lockRoles(folder, ['speed', 'batch'], { beatMs: 20, onLost: (error) => lost.push(error) })
  const times = new Set<number>()
  await until('renewals', 10_000, async () => times.add((await stat(lockFile('speed'))).mtimeMs).size > 3 || undefined)
  await writeFile(
    `${lockFile('speed')}.tmp`,
    await readFile(lockFile('speed'), 'utf8').then((t) => t.replace(/"id":"[^"]*"/, '"id":"other"')),
  )
  await rename(`${lockFile('speed')}.tmp`, lockFile('speed'))
  await until('the loss', 10_000, async () => lost.length > 0 || undefined)
  expect(lost).toMatchObject([{ code: 'WEIR_CLI_LOCKED', message: expect.stringContaining('speed') }])
  await lock.setUrl('http://here')
  await lock.release()
  expect(await readdir(join(folder, 'run'))).toEqual(['speed.lock'])
  expect(await readFile(lockFile('speed'), 'utf8')).toContain('"other"')
})

test('several holders of a role have locks of their own; what killed ones left is tidied away', async () => {
  const one = await lockRoles(folder, ['speed'], { several: true })
  const two = await lockRoles(folder, ['speed'], { several: true })
  expect(await holders(folder)).toHaveLength(2)
  const [name] = await readdir(join(folder, 'run'))
  const left = JSON.parse(await readFile(join(folder, 'run', name!), 'utf8')) as object
  const gone = join(folder, 'run', `speed.${crypto.randomUUID()}.lock`)
  await writeFile(gone, JSON.stringify({ ...left, processStart: '1' }))
  const three = await lockRoles(folder, ['speed'], { several: true })
  await expect(stat(gone)).rejects.toThrow('ENOENT')
  for (const lock of [one, two, three]) await lock.release()
  expect(await readdir(join(folder, 'run'))).toEqual([])
})

test('of many that race for a stale lock one gets it', async () => {
  const lock = await lockRoles(folder, ['speed'])
  const mine = JSON.parse(await readFile(lockFile('speed'), 'utf8')) as Record<string, unknown>
  await lock.release()
  await writeFile(lockFile('speed'), JSON.stringify({ ...mine, processStart: '1' }))
  const all = await Promise.allSettled(Array.from({ length: 10 }, () => lockRoles(folder, ['speed'])))
  expect(all.filter((r) => r.status === 'fulfilled')).toHaveLength(1)
})
