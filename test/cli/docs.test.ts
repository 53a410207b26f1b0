/** The pages tell the truth: every error code, setting and command is there, and what they name exists. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { buildProgram } from '../../cli/program.ts'
import { settingNames } from '../../model/settings.ts'
import { ROOT } from '../support/server.ts'

const ROOMS = ['model', 'engine', 'log', 'http', 'ingest', 'speed-layer', 'lake', 'batch-layer', 'serving-layer', 'cli']
const read = (path: string): Promise<string> => readFile(join(ROOT, path), 'utf8')

const sources = async (): Promise<string> => {
  const texts: string[] = []
  for (const room of ROOMS)
    for (const name of await readdir(join(ROOT, room), { recursive: true }))
      if (name.endsWith('.ts')) texts.push(await read(join(room, name)))
  return texts.join('\n')
}

/** Environment variables have the same look. */
const variables = new Set([
  ...settingNames().map((s) => s.env),
  'WEIR_URL',
  'WEIR_API_KEY',
  'WEIR_LOG_LEVEL',
  'WEIR_DEBUG',
])

const codesIn = (text: string): Set<string> =>
  new Set((text.match(/WEIR_[A-Z0-9]+(?:_[A-Z0-9]+)+(?![A-Z0-9_*])/g) ?? []).filter((c) => !variables.has(c)))

test('docs/errors.md lists every code, and no other', async () => {
  const text = await sources()
  const known = codesIn(text)
  for (const [, what] of text.matchAll(/badQuery\(\s*'([A-Z_]+)'/g)) known.add(`WEIR_MODEL_QUERY_${what}`)
  const misfits = /export type Misfit =([^\n]*(?:\n {2}\| '[A-Z_]+')+)/.exec(text)?.[1] ?? ''
  for (const [, why] of misfits.matchAll(/'([A-Z_]+)'/g)) known.add(`WEIR_SERVING_${why}`)
  expect(known.size).toBeGreaterThan(150)
  const listed = codesIn(await read('docs/errors.md'))
  expect([...known].filter((c) => !listed.has(c)).sort()).toEqual([])
  const kinds = /export type QueryProblem =((?:\s*\| '[A-Z_]+')+)/.exec(text)?.[1] ?? ''
  for (const [, what] of kinds.matchAll(/'([A-Z_]+)'/g)) known.add(`WEIR_MODEL_QUERY_${what}`)
  expect([...listed].filter((c) => !known.has(c)).sort()).toEqual([])
})

test('docs/operations.md lists every setting with its default and its variable', async () => {
  const text = await read('docs/operations.md')
  for (const { path, env, default: value } of settingNames())
    expect(text, path).toContain(`| \`${path}\` | \`${String(value)}\` | \`${env}\` |`)
})

test('docs/cli.md has every command; commands in the pages exist', async () => {
  const program = await buildProgram()
  const names = program.commands.map((c) => c.name())
  const page = await read('docs/cli.md')
  for (const name of names) expect(page, name).toContain(`\`weir ${name}`)
  const pages = [
    'README.md',
    'docs/cli.md',
    'docs/definitions.md',
    'docs/operations.md',
    'docs/cluster.md',
    'docs/exactness.md',
    'examples/flights/README.md',
  ]
  for (const path of pages)
    for (const [, name, sub] of (await read(path)).matchAll(/(?:^|`|\n|& )weir ([a-z][a-z-]*)(?: ([a-z][a-z-]+))?/g)) {
      expect(names, `${path}: weir ${name}`).toContain(name)
      const command = program.commands.find((c) => c.name() === name)!
      const subs = command.commands.map((c) => c.name())
      if (subs.length > 0 && sub !== undefined) expect(subs, `${path}: weir ${name} ${sub}`).toContain(sub)
    }
})

test('links between the pages lead somewhere', async () => {
  for (const path of [
    'README.md',
    'docs/cli.md',
    'docs/definitions.md',
    'docs/operations.md',
    'docs/cluster.md',
    'docs/exactness.md',
    'docs/http-api.md',
  ])
    for (const [, target] of (await read(path)).matchAll(/\]\(([^)#]+)[^)]*\)/g)) {
      if (/^https?:/.test(target!)) continue
      const at = join(ROOT, path, '..', target!)
      await expect(
        readFile(at).catch(() => readdir(at)),
        `${path} → ${target}`,
      ).resolves.toBeDefined()
    }
})

test('metrics that the pages name exist', async () => {
  const known = new Set([...(await sources()).matchAll(/'(weir_[a-z_]+)'/g)].map(([, name]) => name!))
  for (const path of ['docs/operations.md', 'docs/cluster.md'])
    for (const [name] of (await read(path)).matchAll(/\bweir_[a-z_]+/g))
      expect(known, `${path}: ${name}`).toContain(name.replace(/_(bucket|count|sum)$/, ''))
})
