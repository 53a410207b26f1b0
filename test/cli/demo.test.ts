/** `npm start -- --once`, the smoke test, and the demo's line: as child processes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { MAIN, until } from '../support/server.ts'
import { weirChild } from '../support/weir.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-demo-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('--once: every number compared, nothing left behind', { timeout: 180_000 }, async () => {
  const { code, out, err } = await weirChild(['demo', '--once', '--json', '--data', folder])
  expect(err).toBe('')
  expect(JSON.parse(out)).toMatchObject({ ok: true, differences: [] })
  expect(code).toBe(0)
  expect(await readdir(folder)).toEqual([])
})

test('forever: a line a second, merged from both layers; Ctrl-C stops it; the next start goes on', {
  timeout: 180_000,
}, async () => {
  const demo = async (goal: RegExp): Promise<{ printed: string; code: number | null }> => {
    const child = spawn(process.execPath, [MAIN, 'demo', '--port', '0', '--rate', '100', '--data', folder])
    let printed = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (c: Buffer) => (printed += c.toString()))
    const exit = once(child, 'exit')
    try {
      await until(`a line like ${goal}`, 90_000, async () => {
        if (child.exitCode !== null) throw new Error('it ended')
        return goal.test(printed) || undefined
      })
      child.kill('SIGINT')
      const [code] = await exit
      return { printed, code: code as number | null }
    } catch (error) {
      child.kill('SIGKILL')
      throw new Error(`${String(error)}\n${printed}`)
    }
  }
  // In the middle of starting: not served yet, and it ends in time all the same (code 1 tells of a deadline that was missed).
  const early = await demo(/starting the shop example/)
  expect([early.code, early.printed.includes('stopped before it had started')]).toEqual([0, true])
  const LINE =
    /\d+ events in · revenue this hour \d+\.\d\d = [1-9]\d*\.\d\d batch \+ -?\d+\.\d\d speed · lag \d+ ms · drift 0 · http:\/\/127\.0\.0\.1:\d+/
  const first = await demo(LINE)
  expect(first.code).toBe(0)
  expect(first.printed).toContain('stopped; the next start goes on from here')
  // What the first run published is there when the second one begins.
  const second = await demo(LINE)
  expect(second.code).toBe(0)
  expect(second.printed.match(/ = ([\d.]+) batch/)?.[1]).not.toBe('0.00')
})
