/** The engine: limits, time zone, deadline, jail, a fatal error, what a dead process left. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Engine, openEngine } from '../../engine/engine.ts'

let folder: string
const engines: Engine[] = []
const open = async (options: Parameters<typeof openEngine>[0] = {}): Promise<Engine> => {
  const engine = await openEngine({ tempDir: join(folder, 'temp'), ...options })
  engines.push(engine)
  return engine
}
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-test-engine-'))
})
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close()
  await rm(folder, { recursive: true, force: true })
})

const LONG = 'SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE a.range + b.range = -1'
/** DuckDB 1.5.6 fails inside on TRY under GROUP BY ALL. */
const INTERNAL = "SELECT TRY(x::INT) AS a, count(*) FROM (VALUES ('a'), ('1')) t(x) GROUP BY ALL"

test('sessions are UTC and have the limits that were asked for', async () => {
  const engine = await open({ memoryLimit: '300MB', threads: 1, spillLimit: '1GB' })
  const rows = await engine.withSession((s) =>
    s.rows(
      `SELECT current_setting('TimeZone') AS zone, current_setting('threads')::INT AS threads, current_setting('memory_limit') AS memory,
         current_setting('max_temp_directory_size') AS spill, current_setting('autoload_known_extensions') AS autoload`,
    ),
  )
  expect(rows).toEqual([{ zone: 'UTC', threads: 1, memory: '286.1 MiB', spill: '953.6 MiB', autoload: false }])
  expect(engine.version).toMatch(/^v\d/)
})

test('a deadline and a signal stop a statement, and the session goes on', async () => {
  const engine = await open()
  await engine.withSession(async (s) => {
    await expect(s.run(LONG, { deadlineMs: 50 })).rejects.toMatchObject({
      code: 'WEIR_ENGINE_DEADLINE',
      retryable: true,
    })
    const controller = new AbortController()
    const running = s.rows(LONG, { signal: controller.signal })
    // Statements of one session wait for each other: the second one starts when the first is stopped.
    const next = s.rows('SELECT 1 AS one')
    setTimeout(() => controller.abort(), 20)
    await expect(running).rejects.toMatchObject({ code: 'WEIR_ENGINE_DEADLINE' })
    expect(await next).toEqual([{ one: 1 }])
    // Asked to stop before the engine has begun with the statement: not forgotten.
    const early = new AbortController()
    const soon = s.rows(LONG, { signal: early.signal })
    queueMicrotask(() => queueMicrotask(() => early.abort()))
    await expect(soon).rejects.toMatchObject({ code: 'WEIR_ENGINE_DEADLINE' })
    await expect(s.rows(LONG, { deadlineMs: 0 })).rejects.toMatchObject({ code: 'WEIR_ENGINE_DEADLINE' })
    await expect(s.run('SELECT 1', { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'WEIR_ENGINE_DEADLINE',
    })
  })
})

test('more memory than the limit is an error of the statement', async () => {
  const engine = await open({ memoryLimit: '64MB', spillLimit: '1MB' })
  await engine.withSession(async (s) => {
    await expect(s.run('SELECT list(range), list(range::VARCHAR) FROM range(20000000)')).rejects.toThrow(
      /Memory|offload/i,
    )
    expect(await s.rows('SELECT 1 AS one')).toEqual([{ one: 1 }])
  })
})

test('a fatal error ends with its code; the next session has a new instance; open sessions can still be closed', async () => {
  const engine = await open()
  const [other, failing] = [await engine.session(), await engine.session()]
  await other.run('CREATE TABLE kept AS SELECT 1 AS a')
  await expect(failing.rows(INTERNAL)).rejects.toMatchObject({ code: 'WEIR_ENGINE_FATAL', retryable: true })
  const fresh = await engine.session()
  await expect(fresh.rows('SELECT * FROM kept')).rejects.toThrow(/does not exist/)
  expect(await fresh.rows("SELECT current_setting('TimeZone') AS zone")).toEqual([{ zone: 'UTC' }])
  for (const s of [failing, other, fresh]) s.close()
  expect(await engine.withSession((s) => s.rows('SELECT 1 AS one'))).toEqual([{ one: 1 }])
})

test('given folders, SQL reaches nothing else and changes no setting', async () => {
  const inside = join(folder, 'lake')
  const { mkdir } = await import('node:fs/promises')
  await mkdir(inside)
  await writeFile(join(inside, 'a.txt'), 'in')
  await writeFile(join(folder, 'b.txt'), 'out')
  const engine = await open({ folders: [inside], memoryLimit: '64MB' })
  await engine.withSession(async (s) => {
    expect(await s.rows(`SELECT content AS c FROM read_text('${inside}/a.txt')`)).toEqual([{ c: 'in' }])
    await s.run(`COPY (SELECT 1) TO '${inside}/a.parquet' (FORMAT parquet)`)
    await s.run(`COPY (SELECT 1) TO '${engine.scratchDir}/a.parquet' (FORMAT parquet)`)
    // Spilling still works.
    await s.run('CREATE TEMP TABLE big AS SELECT range AS a, md5(range::VARCHAR) AS b FROM range(1500000)')
    for (const sql of [
      `SELECT * FROM read_text('${folder}/b.txt')`,
      `SELECT * FROM read_text('${inside}/../b.txt')`,
      `SELECT * FROM glob('/etc/*')`,
      `COPY (SELECT 1) TO '${folder}/c.parquet' (FORMAT parquet)`,
      `ATTACH '${folder}/c.db'`,
      'SET threads = 2',
      "SET TimeZone = 'Europe/Berlin'",
      'SET enable_external_access = true',
      'RESET lock_configuration',
      'INSTALL httpfs',
      'LOAD httpfs',
    ])
      await expect(s.run(sql), sql).rejects.toThrow()
  })
  expect(existsSync(join(folder, 'c.parquet'))).toBe(false)
})

test('what a killed process left in scratch is cleared', async () => {
  const temp = join(folder, 'temp')
  const program = `import { openEngine } from ${JSON.stringify(new URL('../../engine/engine.ts', import.meta.url).pathname)}
    await openEngine({ tempDir: ${JSON.stringify(temp)} })
    process.kill(process.pid, 'SIGKILL')`
  await writeFile(join(folder, 'die.mts'), program)
  const died = spawnSync(process.execPath, ['--import', 'tsx', join(folder, 'die.mts')], {
    cwd: new URL('../..', import.meta.url).pathname,
  })
  expect(died.signal).toBe('SIGKILL')
  expect(await readdir(temp)).toHaveLength(2)
  const engine = await open()
  expect((await readdir(temp)).every((name) => name.includes(`-${process.pid}-`))).toBe(true)
  await engine.close()
  expect(await readdir(temp)).toEqual([])
})

test('text comes out exactly, a byte order mark too', async () => {
  const engine = await open()
  await engine.withSession(async (s) => {
    const text = '\ufeffé\u0000😀'
    const [row] = await s.rows<{ a: string; n: number }>('SELECT $text AS a, strlen($text)::INT AS n', {
      params: { text },
    })
    expect(row).toEqual({ a: text, n: Buffer.byteLength(text) })
    expect(await s.columns("SELECT chr(65279) || 'x' AS a")).toEqual([['\ufeffx']])
  })
})

test('numbers come out as typed arrays, and never from a NULL', async () => {
  const engine = await open()
  await engine.withSession(async (s) => {
    const [a, b, c, d] = await s.numbers(
      'SELECT range::INTEGER AS a, range::BIGINT AS b, range::DOUBLE / 2 AS c, range::UHUGEINT AS d FROM range(5000)',
    )
    expect([a![4_999], b![4_999], c![4_999]]).toEqual([4_999, 4_999n, 2_499.5])
    expect([...(d as Uint32Array).subarray(19_996)]).toEqual([4_999, 0, 0, 0])
    expect(await s.numbers('SELECT 1::INTEGER AS a WHERE false')).toEqual([new Int32Array(0)])
    await expect(s.numbers('SELECT nullif(range, 3) AS a FROM range(5)')).rejects.toThrow(/has a NULL/)
    await expect(s.numbers("SELECT 'a' AS a")).rejects.toThrow(/not a number column/)
    await s.fill('t', { x: Float64Array.from({ length: 5_000 }, (_, i) => i / 4), y: new Float64Array(5_000).fill(2) })
    expect(await s.rows('SELECT sum(x * y)::DOUBLE AS s, count(*)::INT AS n FROM t')).toEqual([
      { s: 6_248_750, n: 5_000 },
    ])
  })
})

test('a closed engine and a closed session say so', async () => {
  const engine = await open()
  const session = await engine.session()
  session.close()
  session.close()
  await expect(session.run('SELECT 1')).rejects.toThrow(/closed/)
  await engine.close()
  await engine.close()
  await expect(engine.session()).rejects.toThrow(/closed/)
})
