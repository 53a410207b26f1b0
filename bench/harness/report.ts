/** Figures as Markdown. Invariant: nothing here names a machine, a user or a path. */
import { readFileSync } from 'node:fs'
import { arch, cpus, totalmem } from 'node:os'
import type { Row } from './case.ts'

export type Reported = { name: string; about: string; rows: Row[]; notes: string[]; runs: number; events: number }

const version = (name: string): string => {
  try {
    const text = readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url), 'utf8')
    return (JSON.parse(text) as { version: string }).version
  } catch {
    return '?'
  }
}

const today = (): string => new Date().toISOString().slice(0, 10)

/** Class of the machine and versions: what a reader needs to judge the figures. */
export const conditions = (engineVersion: string): string[] => [
  `${today()}, ${cpus().length}-core ${arch() === 'x64' ? 'x86_64' : arch()} machine, ${Math.round(totalmem() / 1e9)} GB, ${process.platform}`,
  `Node ${process.versions.node}, DuckDB ${engineVersion}, lmdb ${version('lmdb')}, fastify ${version('fastify')}`,
]

/** `events` is what `--events` sets: all sizes of a case follow it. */
const table = ({ name, about, rows, notes, runs, events }: Reported): string => {
  const lines = rows.map(
    ({ what, best, median, target, met }) =>
      `| ${what} | ${best} | ${median} | ${target === undefined ? '' : `${target} ${met ? '✓' : '✗'}`} |`,
  )
  return [
    `## ${name}: ${about}`,
    '',
    `| (${runs} ${runs === 1 ? 'run' : 'runs'}, ${today()}, --events ${events}) | best | median | target |`,
    '| --- | --- | --- | --- |',
    ...lines,
    ...notes.flatMap((note) => ['', note]),
  ].join('\n')
}

/** Sections by case of a report that was written before; empty for none. */
const sectionsOf = (report: string): Map<string, string> =>
  new Map(
    report
      .split(/^(?=## )/m)
      .slice(1)
      .map((text) => [/^## (\w+)/.exec(text)?.[1] ?? '', text.trim()]),
  )

/** The report; cases of `before` that were not measured now stay as they are, in the order of `names`. */
export const markdown = (reported: Reported[], heads: string[], names: string[], before = ''): string => {
  const sections = sectionsOf(before)
  for (const one of reported) sections.set(one.name, table(one))
  return [
    '# Results of `npm run bench`',
    'Rates are events per CPU-second of the whole process tree, best and median of interleaved runs; answers are checked in each run. How it is done: [docs/decisions/benchmarks.md](../docs/decisions/benchmarks.md).',
    heads.map((line) => `* ${line}`).join('\n'),
    ...names.flatMap((name) => sections.get(name) ?? []),
    '',
  ].join('\n\n')
}
