/**
 * What a benchmark case is. Invariant: every run of a variant happens in a child process of its own with a scratch folder
 * of its own; variants of one run that name an answer must name the same one, or nothing is reported.
 */
export type Sizes = {
  /** Events of the prepared log that is drained and archived. */
  events: number
  /** Events of the lake that is recomputed. */
  history: number
  /** Events of the year that one day is added to. */
  year: number
  /** Events of 30 days, as history of merged queries. */
  month: number
  /** Ids in the de-duplication window. */
  ids: number
  /** Seconds under load in the latency and memory cases. */
  seconds: number
  /** Events a second in the latency case on real servers. */
  steady: number
  /** Events that are sent over HTTP with 1, 100 and 5,000 a request. */
  posts: Record<1 | 100 | 5000, number>
}

export const FULL: Sizes = {
  events: 5_000_000,
  history: 10_000_000,
  year: 10_000_000,
  month: 3_000_000,
  ids: 10_000_000,
  seconds: 30,
  steady: 5_000,
  posts: { 1: 40_000, 100: 1_000_000, 5000: 4_000_000 },
}

export const QUICK: Sizes = {
  events: 400_000,
  history: 400_000,
  year: 730_000,
  month: 300_000,
  ids: 500_000,
  seconds: 6,
  steady: 2_000,
  posts: { 1: 2_000, 100: 40_000, 5000: 400_000 },
}

export type Env = {
  /** Kept for the whole benchmark: prepared logs and lakes. */
  shared: string
  /** The same in memory, where the system has it: what bare DuckDB reads. */
  sharedMemory: string
  /** Of this child alone. */
  scratch: string
  sizes: Sizes
  /** Number of the run, from 0. */
  run: number
}

export type Measured = {
  figures: Record<string, number>
  /** Digest of the answers; equal in all variants of a run that have one. */
  answer?: string
}

/** Per variant, one entry for each run. */
export type Results = Record<string, Measured[]>

export type Row = {
  what: string
  best: string
  median: string
  /** What DESIGN or the plan asks for. */
  target?: string
  met?: boolean
}

export type Case = {
  name: string
  about: string
  /** Why it cannot run here (what the environment lacks); null when it can. */
  skip?: () => string | null
  /** Runs once, in a child, before all variants. */
  prepare?: (env: Env) => Promise<void>
  /** Runs once, in a child, after all variants, however they ended: removes what the case left outside its folders. */
  finish?: (env: Env) => Promise<void>
  variants: Record<string, (env: Env) => Promise<Measured>>
  /** Most runs; the others of the benchmark are of no more use. */
  maxRuns?: number
  /** Longest time of one child, ms; default 10 minutes. */
  timeoutMs?: number
  report: (results: Results, sizes: Sizes) => { rows: Row[]; notes?: string[] }
}

export const sorted = (values: number[]): number[] => [...values].sort((a, b) => a - b)

export const median = (values: number[]): number => {
  const s = sorted(values)
  const mid = s.length >> 1
  return s.length === 0 ? Number.NaN : s.length % 2 === 1 ? s[mid]! : (s[mid - 1]! + s[mid]!) / 2
}

/** Nearest rank. */
export const percentile = (values: number[], q: number): number =>
  sorted(values)[Math.max(0, Math.ceil(q * values.length) - 1)] ?? Number.NaN

export const figuresOf = (results: Results, variant: string, figure: string): number[] =>
  (results[variant] ?? []).map((m) => m.figures[figure] ?? Number.NaN)

/** Events per CPU-second of each run; `of`: figures whose sum is the CPU time. NaN where one of them was not measured. */
export const rates = (results: Results, variant: string, of = ['cpuS']): number[] =>
  (results[variant] ?? []).map(
    ({ figures }) => figures.events! / of.reduce((s, f) => s + (figures[f] ?? Number.NaN), 0),
  )

/** A figure as text. A rate over no tick of CPU time was not measured either. */
export const measuredText = (n: number, text: (n: number) => string): string =>
  Number.isFinite(n) ? text(n) : 'not measured'

/** A row of rates, in M events per CPU-second. */
export const rateRow = (what: string, results: Results, variant: string, of = ['cpuS']): Row => {
  const all = rates(results, variant, of)
  const millions = (n: number): string => `${(n / 1e6).toFixed(n < 1e5 ? 4 : 3)} M/CPU-s`
  return { what, best: measuredText(Math.max(...all), millions), median: measuredText(median(all), millions) }
}

const percent = (n: number): string => measuredText(n, (x) => `${(x * 100).toFixed(0)} %`)

/** Ratio of two lists of figures, paired by run: the best and the median of the pairs. `atLeast`: the target. */
export const ratioRow = (what: string, over: number[], under: number[], atLeast?: number): Row => {
  const ratios = over.map((n, i) => n / under[i]!)
  const row = { what, best: percent(Math.max(...ratios)), median: percent(median(ratios)) }
  return atLeast === undefined ? row : { ...row, target: `≥ ${percent(atLeast)}`, met: median(ratios) >= atLeast }
}
