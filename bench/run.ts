/**
 * `npm run bench`: all cases, or some, each variant in a child process of its own, variants of a case interleaved.
 * Invariant: a wrong answer ends the benchmark with exit code 1; whatever happens, no process and no temporary folder stays,
 * and nothing on the servers that a case stands on.
 *
 *   --only a,b     these cases        --runs n      runs of each variant (5)
 *   --events n     size of the drained log; other sizes follow it
 *   --quick        small sizes, 2 runs: to see that it works    --write    also into bench/RESULTS.md,
 *                                                               where other cases stay
 *   --json file    raw figures        --profile dir CPU profiles of the children (.cpuprofile)
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { openEngine } from '../engine/engine.ts'
import { CASES } from './cases/index.ts'
import { build } from './harness/build.ts'
import { type Case, FULL, QUICK, type Results, type Sizes } from './harness/case.ts'
import { conditions, markdown, type Reported } from './harness/report.ts'
import { endAll, finishNow, runChild, type Spawner } from './harness/spawn.ts'

const TIMEOUT_MS = 600_000
const PREPARE_MS = 1_200_000

const { values: asked } = parseArgs({
  options: {
    only: { type: 'string' },
    events: { type: 'string' },
    runs: { type: 'string' },
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    json: { type: 'string' },
    profile: { type: 'string' },
  },
})

const whole = (name: string, text: string | undefined, from: number, to: number, otherwise: number): number => {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!Number.isInteger(value) || value < from || value > to)
    throw new Error(`--${name}: a whole number from ${from} to ${to}, not ${text}`)
  return value
}

const sizesOf = (): Sizes => {
  const base = asked.quick ? QUICK : FULL
  const events = whole('events', asked.events, 20_000, 50_000_000, base.events)
  const scaled = (n: number): number => Math.max(2, Math.round((n * events) / base.events / 2) * 2)
  return {
    ...base,
    events,
    history: scaled(base.history),
    year: scaled(base.year),
    month: scaled(base.month),
    posts: { 1: scaled(base.posts[1]), 100: scaled(base.posts[100]), 5000: scaled(base.posts[5000]) },
  }
}

const namedCases = (): Case[] => {
  if (asked.only === undefined) return CASES
  return asked.only.split(',').map((name) => {
    const found = CASES.find((c) => c.name === name.trim())
    if (found === undefined) throw new Error(`no case ${name}; there are ${CASES.map((c) => c.name).join(', ')}`)
    return found
  })
}

const note = (text: string): void => void process.stderr.write(`${text}\n`)

/** Those that can run here; the others say why not. */
const casesOf = (): Case[] =>
  namedCases().filter(({ name, skip }) => {
    const reason = skip?.() ?? null
    if (reason !== null) note(`${name}: skipped: ${reason}`)
    return reason === null
  })

/** All variants of one run; throws when they do not have one answer. */
const checkAnswers = (name: string, results: Results, run: number): void => {
  const answers = new Map<string, string[]>()
  for (const [variant, list] of Object.entries(results)) {
    const answer = list[run]?.answer
    if (answer !== undefined) answers.set(answer, [...(answers.get(answer) ?? []), variant])
  }
  if (answers.size > 1)
    throw new Error(`${name}: wrong answers: ${[...answers.values()].map((v) => v.join(' = ')).join(' differs from ')}`)
}

type Base = { shared: string; sharedMemory: string; sizes: Sizes }

/** What is left to do for a case that has begun, when the benchmark is told to end. */
let unfinished: (() => void) | null = null

/** A case from its preparation to its end. */
const measure = async (spawner: Spawner, found: Case, base: Base, runs: number): Promise<Results> => {
  if (!found.finish) return measureAll(spawner, found, base, runs)
  unfinished = () => finishNow(spawner, found.name, { ...base, scratch: base.shared, run: 0 })
  try {
    return await measureAll(spawner, found, base, runs)
  } finally {
    await runChild(spawner, found.name, '--finish', { ...base, run: 0 }, TIMEOUT_MS)
    unfinished = null
  }
}

const measureAll = async (spawner: Spawner, found: Case, base: Base, runs: number): Promise<Results> => {
  const results: Results = Object.fromEntries(Object.keys(found.variants).map((v) => [v, []]))
  if (found.prepare) {
    note(`${found.name}: preparing`)
    await runChild(spawner, found.name, '--prepare', { ...base, run: 0 }, PREPARE_MS)
  }
  const variants = Object.keys(found.variants)
  for (let run = 0; run < runs; run++) {
    // Each run begins with another variant: what the one before leaves in caches helps nobody more often.
    for (const variant of [...variants.slice(run % variants.length), ...variants.slice(0, run % variants.length)]) {
      const measured = await runChild(spawner, found.name, variant, { ...base, run }, found.timeoutMs ?? TIMEOUT_MS)
      results[variant]!.push(measured!)
      const { events, cpuS } = measured!.figures
      const rate = events !== undefined && cpuS !== undefined ? `${(events / cpuS / 1e6).toFixed(3)} M/CPU-s ` : ''
      const figures = Object.entries(measured!.figures).map(([k, v]) => `${k} ${Number(v.toPrecision(5))}`)
      note(`${found.name}: run ${run + 1} ${variant}: ${rate}(${figures.join(', ')})`)
    }
    checkAnswers(found.name, results, run)
  }
  return results
}

const main = async (): Promise<void> => {
  const cases = casesOf()
  const sizes = sizesOf()
  const runs = whole('runs', asked.runs, 1, 100, asked.quick ? 2 : 5)
  note('building')
  const spawner: Spawner = {
    child: join(build(), 'bench', 'harness', 'child.js'),
    ...(asked.profile === undefined ? {} : { profile: resolve(asked.profile) }),
  }
  const shared = await mkdtemp(join(tmpdir(), 'weir-bench-'))
  const sharedMemory = existsSync('/dev/shm') ? await mkdtemp('/dev/shm/weir-bench-') : join(shared, 'memory')
  const clean = (): void => {
    endAll()
    unfinished?.()
    for (const folder of [shared, sharedMemory]) rmSync(folder, { recursive: true, force: true })
  }
  // Before the compiled children go.
  process.prependOnceListener('exit', clean)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

  const engine = await openEngine()
  const heads = conditions(engine.version)
  await engine.close()
  const reported: Reported[] = []
  const raw: Record<string, Results> = {}
  for (const found of cases) {
    const own = Math.min(runs, found.maxRuns ?? runs)
    const results = await measure(spawner, found, { shared, sharedMemory, sizes }, own)
    raw[found.name] = results
    const { rows, notes = [] } = found.report(results, sizes)
    reported.push({ name: found.name, about: found.about, rows, notes, runs: own, events: sizes.events })
  }
  const names = CASES.map((c) => c.name)
  process.stdout.write(`${markdown(reported, heads, names)}\n`)
  if (asked.write) {
    const path = fileURLToPath(new URL('RESULTS.md', import.meta.url))
    writeFileSync(path, markdown(reported, heads, names, existsSync(path) ? readFileSync(path, 'utf8') : ''))
  }
  if (asked.json !== undefined)
    writeFileSync(resolve(asked.json), `${JSON.stringify({ heads, sizes, raw }, null, 1)}\n`)
}

try {
  await main()
  process.exit(0)
} catch (error) {
  note(error instanceof Error ? (error.stack ?? error.message) : String(error))
  process.exit(1)
}
