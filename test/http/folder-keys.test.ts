/** Several processes change the key file at once: no change is lost. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { newKey } from '../../http/auth.ts'
import { openFolderKeys } from '../../http/folder-keys.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-keys-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('handles that write at once lose nothing', async () => {
  const handles = await Promise.all(Array.from({ length: 8 }, () => openFolderKeys(folder)))
  const old = newKey('old', ['admin']).key
  await handles[0]!.add(old)
  const names = handles.flatMap((_, h) => [0, 1, 2].map((i) => `${h}.${i}`))
  const adding = names.map((name) => handles[Number(name[0])]!.add(newKey(name, ['admin']).key))
  const revoked = await Promise.all(handles.map((keys) => keys.revoke(old.id)))
  await Promise.all(adding)
  expect(revoked.filter(Boolean)).toHaveLength(1)
  const kept = await handles[3]!.list()
  expect(kept.map((k) => k.name).sort()).toEqual([...names, 'old'].sort())
  expect(kept.find((k) => k.name === 'old')!.revokedAt).toBeDefined()
  expect(await readdir(folder)).toEqual(['keys.json'])
})

test('processes that write at once lose nothing', async () => {
  const child = fileURLToPath(new URL('./keys-child.ts', import.meta.url))
  const names = ['a', 'b', 'c', 'd']
  const codes = await Promise.all(
    names.map(async (name) => {
      const args = ['--import', 'tsx', child, folder, name, '8']
      const [code] = await once(spawn(process.execPath, args, { stdio: 'inherit' }), 'exit')
      return code
    }),
  )
  expect(codes).toEqual([0, 0, 0, 0])
  const expected = names.flatMap((name) => Array.from({ length: 8 }, (_, i) => `${name}.${i}`))
  expect((await (await openFolderKeys(folder)).list()).map((k) => k.name).sort()).toEqual(expected.sort())
}, 60_000)

test('what a killed process left stands in nobody’s way, and goes', async () => {
  await writeFile(join(folder, `keys.json.${crypto.randomUUID()}`), '{ "formatVersion": 1, "ke')
  await writeFile(join(folder, 'keys.json.backup'), 'a person’s')
  const keys = await openFolderKeys(folder)
  await keys.add(newKey('first', ['admin']).key)
  expect((await keys.list()).map((k) => k.name)).toEqual(['first'])
  expect((await readdir(folder)).sort()).toEqual(['keys.json', 'keys.json.backup'])
})
