/** The program as a user meets it: help, exit codes, init and check, settings, keys, doctor. Runs the built product. */
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildProgram } from '../../cli/program.ts'
import { weir, weirChild } from '../support/weir.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-cli-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('help and exit codes', () => {
  test('every command describes itself; those that people type have examples', async () => {
    const program = await buildProgram()
    const visible = program.commands
    expect(visible.map((c) => c.name())).toEqual([
      'init',
      'check',
      'start',
      'demo',
      'send',
      'import',
      'generate',
      'query',
      'batch',
      'audit',
      'versions',
      'dead-letters',
      'keys',
      'doctor',
      'config',
    ])
    for (const command of visible) {
      expect(command.description(), command.name()).not.toBe('')
      let help = ''
      command.configureOutput({ writeOut: (text) => (help += text) })
      command.outputHelp()
      expect(help, command.name()).toMatch(/Examples?:\n {2}weir /)
    }
  })

  test('wrong use is 2, a version and help are 0, a failure is 1', async () => {
    expect(await weirChild(['--version'])).toMatchObject({ code: 0, out: '0.1.0\n' })
    expect((await weir(['query', '--help'])).out).toContain(
      "weir query revenue_by_country --grain '1 day' --zone Europe/Berlin",
    )
    const unknown = await weirChild(['qurey'])
    expect(unknown).toMatchObject({ code: 2 })
    expect(unknown.err).toContain('query')
    expect(await weir(['query'])).toMatchObject({ code: 2 })
    expect(await weir(['query', 'v', '--limit', 'many', '--url', 'http://127.0.0.1:1'])).toMatchObject({ code: 2 })
    expect(await weir(['query', 'v', '--where', 'a LIKE 1', '--url', 'http://127.0.0.1:1'])).toMatchObject({ code: 2 })
    expect(await weir(['start', '--role', 'sped'])).toMatchObject({ code: 2 })
    const nobody = await weir(['query', 'v', '--url', 'http://127.0.0.1:1', '--json'])
    expect(nobody.code).toBe(1)
    expect(JSON.parse(nobody.out)).toMatchObject({ errors: [{ code: 'WEIR_CLI_UNREACHABLE' }] })
  })
})

describe('init and check', () => {
  test.each(['starter', 'shop', 'flights'])('%s is sound, and is not overwritten', async (example) => {
    const dir = join(folder, example)
    const made = await weir(['init', dir, '--example', example, '--json'])
    expect(made.code).toBe(0)
    expect((await readdir(dir)).sort()).toEqual(
      expect.arrayContaining(['.gitignore', 'datasets', 'views', 'weir.yaml']),
    )
    expect((await readdir(dir)).filter((f) => f.endsWith('.ts'))).toEqual([])
    const checked = await weir(['check', dir, '--reference', '--json'])
    expect(checked.code).toBe(0)
    const { views } = JSON.parse(checked.out) as { views: Record<string, string>[] }
    expect(views.length).toBeGreaterThan(0)
    for (const view of views)
      for (const key of ['partial', 'merge', 'reference', 'version']) expect(view[key], key).toMatch(/\S/)
    expect(await weir(['init', dir, '--example', example])).toMatchObject({
      code: 1,
      err: expect.stringContaining('WEIR_CLI_EXISTS'),
    })
  })

  test('every mistake at once, each with its place and what to do', async () => {
    const dir = join(folder, 'broken')
    await weir(['init', dir])
    await appendFile(join(dir, 'weir.yaml'), 'sever: { port: 1 }\n')
    await writeFile(
      join(dir, 'datasets', 'visits.yaml'),
      'eventTime: tss\ncolumns:\n  ts: TIMESTAMPTZ\n  site: VARCHR\n',
    )
    const text = await weir(['check', dir])
    expect(text).toMatchObject({ code: 1, out: '' })
    expect(text.err).toMatch(/weir\.yaml:\d+:/)
    expect(text.err).toMatch(
      /datasets\/visits\.yaml:4: .*\n {2}expected: .*\n {2}got: {6}VARCHR\n {2}next: {5}did you mean VARCHAR/,
    )
    const json = JSON.parse((await weir(['check', dir, '--json'])).out) as {
      errors: { code: string; file: string; line: number }[]
    }
    expect(json.errors.length).toBeGreaterThan(1)
    for (const error of json.errors)
      expect(error).toMatchObject({ code: expect.stringMatching(/^WEIR_/), line: expect.any(Number) })
  })

  test('a view that cannot be exact is refused with what to write instead', async () => {
    const dir = join(folder, 'inexact')
    await weir(['init', dir])
    await writeFile(
      join(dir, 'views', 'bad.sql'),
      'SELECT site, count(DISTINCT user_id) AS users FROM visits GROUP BY ALL',
    )
    const { code, err } = await weir(['check', dir])
    expect(code).toBe(1)
    expect(err).toContain('approx_count_distinct')
    expect(err).toContain('views/bad.sql:1')
  })

  test('no project here', async () => {
    expect(await weir(['check', join(folder, 'nowhere')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('WEIR_CLI_NO_PROJECT'),
    })
  })
})

describe('beside a server', () => {
  test('config: file and environment', async () => {
    const dir = join(folder, 'configured')
    await weir(['init', dir])
    const { out } = await weir(['config', '--project', dir, '--json'], { WEIR_SERVER_PORT: '9001' })
    const rows = JSON.parse(out) as { path: string; value: unknown; default: unknown }[]
    expect(rows.find((r) => r.path === 'server.port')).toMatchObject({ value: 9001, default: 8080 })
    expect(rows.find((r) => r.path === 'name')).toMatchObject({ value: 'starter' })
  })

  test('keys: the secret is shown once and stored nowhere', async () => {
    const data = join(folder, 'keys')
    const made = await weir(['keys', 'create', '--scope', 'ingest:orders', '--name', 'shop', '--data', data])
    expect(made.code).toBe(0)
    const token = made.out.trim()
    expect(token).toMatch(/^wk_[0-9a-f]+_[0-9a-f]+$/)
    const stored = await readFile(join(data, 'keys.json'), 'utf8')
    expect(stored).not.toContain(token.split('_')[2])
    expect((await stat(join(data, 'keys.json'))).mode & 0o077).toBe(0)
    const listed = await weir(['keys', 'list', '--data', data, '--json'])
    expect(listed.out).not.toContain('hash')
    const id = token.split('_')[1]!
    expect(await weir(['keys', 'revoke', id, '--data', data])).toMatchObject({ code: 0 })
    expect(await weir(['keys', 'revoke', id, '--data', data])).toMatchObject({ code: 1 })
    expect(await weir(['keys', 'create', '--scope', 'everything', '--data', data])).toMatchObject({ code: 1 })
  })

  test('start refuses an open address without keys', async () => {
    const dir = join(folder, 'open')
    await weir(['init', dir])
    const { code, err } = await weir([
      'start',
      '--project',
      dir,
      '--data',
      join(dir, 'data'),
      '--host',
      '0.0.0.0',
      '--port',
      '0',
    ])
    expect(code).toBe(1)
    expect(err).toContain('WEIR_HTTP_OPEN_BINDING')
    const sick = await weir(['doctor', '--project', dir, '--data', join(dir, 'data')], { WEIR_SERVER_HOST: '0.0.0.0' })
    expect(sick.code).toBe(1)
    expect(sick.out).toContain('PROBLEM  keys')
    expect((await weir(['doctor', '--project', dir, '--data', join(dir, 'data')])).out).toContain(
      'ok       data folder',
    )
  })

  test('generate --print is a function of the seed', async () => {
    const dir = join(folder, 'made')
    await weir(['init', dir])
    const make = async (seed: string) =>
      (
        await weir(['generate', 'visits', '--project', dir, '--events', '200', '--seed', seed, '--print'])
      ).out.replaceAll(/"ts":"[^"]*"/g, '')
    const first = await make('3')
    expect(first.trim().split('\n')).toHaveLength(200)
    expect(await make('3')).toBe(first)
    expect(await make('4')).not.toBe(first)
    expect(await weir(['generate', 'nothing', '--project', dir, '--print'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('WEIR_CLI_NO_DATASET'),
    })
  })
})
