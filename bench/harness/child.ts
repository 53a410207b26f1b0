/**
 * What a child process of the benchmark runs: one variant of one case, or its preparation or end.
 * Invariant: the last line on stdout is one JSON value, `{ ok }` or `{ error }`, and the process ends.
 *
 * argv: case, variant (or '--prepare', '--finish'), Env as JSON.
 */
import { CASES } from '../cases/index.ts'
import type { Env, Measured } from './case.ts'

const say = (value: { ok: Measured | null } | { error: string }): void => {
  process.stdout.write(`\n${JSON.stringify(value)}\n`)
}

const [name, variant, text] = process.argv.slice(2)
const found = CASES.find((c) => c.name === name)
try {
  if (found === undefined || text === undefined) throw new Error(`no case ${name}`)
  const env = JSON.parse(text) as Env
  if (variant === '--prepare') {
    await found.prepare?.(env)
    say({ ok: null })
  } else if (variant === '--finish') {
    await found.finish?.(env)
    say({ ok: null })
  } else {
    const run = found.variants[variant ?? '']
    if (run === undefined) throw new Error(`no variant ${variant} of ${name}`)
    say({ ok: await run(env) })
  }
  process.exitCode = 0
} catch (error) {
  say({ error: error instanceof Error ? `${error.stack ?? error.message}` : String(error) })
  process.exitCode = 1
}
// Whatever a room may have left open must not keep the benchmark waiting.
process.stdout.write('', () => process.exit())
