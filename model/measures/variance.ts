/**
 * var_samp, var_pop, stddev_samp, stddev_pop (and variance, stddev for the sample forms).
 *
 * State: n, Σu, Σu² as exact integers, u being x in units of its last place. The value is one printed expression:
 * with q the integer nearest to the mean and R = Σu − nq, the sum Σ(u−q)² = Σu² − q(2Σu − nq) is an exact integer, and the
 * squared deviations are Σ(u−q)² − R²/n, where nothing cancels because |R| ≤ n/2. (The engine's Welford depends on row order.)
 * Limits: |u| ≤ 10^12, n ≤ 10^12, so that every product stays below 10^38.
 */
import { DOUBLE, isExact } from '../compile/value-type.ts'
import { filtered, type Measure, magnitude, takesOne } from './measure.ts'

const LIMIT = 10n ** 12n

const FORMS: Record<string, { sample: boolean; root: boolean }> = {
  var_samp: { sample: true, root: false },
  variance: { sample: true, root: false },
  var_pop: { sample: false, root: false },
  stddev_samp: { sample: true, root: true },
  stddev: { sample: true, root: true },
  stddev_pop: { sample: false, root: true },
}

/** x in units of its last place, as BIGINT. */
const unscaled = (sql: string, scale: number): string =>
  scale === 0
    ? `CAST(${sql} AS BIGINT)`
    : `CAST((${sql}) * CAST(${10n ** BigInt(scale)} AS DECIMAL(${scale + 1},0)) AS BIGINT)`

/** n, s, q: SQL of HUGEINT count, Σu, Σu². */
const finalExpression = (name: string, scale: number, n: string, s: string, q: string): string => {
  const { sample, root } = FORMS[name]!
  const mean = `((2 * ${s} + sign(${s}) * ${n}) // nullif(2 * ${n}, 0))`
  const rest = `CAST(${s} - ${n} * ${mean} AS DOUBLE)`
  const squares = `CAST(${q} - ${mean} * (2 * ${s} - ${n} * ${mean}) AS DOUBLE)`
  const deviations = `(${squares} - ${rest} * ${rest} / CAST(${n} AS DOUBLE))`
  const value = `${deviations} / CAST(${sample ? `${n} - 1` : n} AS DOUBLE) / 1e${2 * scale}`
  return `CASE WHEN ${n} > ${sample ? 1 : 0} THEN ${root ? `sqrt(${value})` : value} END`
}

export const variance: Measure = {
  names: Object.keys(FORMS),
  usage: 'var_samp(x), var_pop(x), stddev_samp(x) or stddev_pop(x)',
  check: (name, args) => {
    const wrong = takesOne(name, args)
    if (wrong) return wrong
    const { type } = args[0]!
    if (isExact(type) && magnitude(type) <= LIMIT) return null
    return {
      message: `${name} of ${type.sql} cannot be kept exactly.`,
      expected: 'INTEGER or narrower, or a DECIMAL of at most 12 digits',
      next: `write ${name}(TRY_CAST(x AS DECIMAL(12,3)))`,
    }
  },
  build: ({ name, args, filter }) => {
    const { sql, type } = args[0]!
    const u = unscaled(sql, type.scale)
    const add = (c: string): string => `coalesce(sum(${c}), 0)`
    const huge = (c: string): string => `CAST(${c} AS HUGEINT)`
    return {
      type: 'DOUBLE',
      value: DOUBLE,
      approximate: null,
      states: [
        { type: 'BIGINT', partial: filtered(`count(${sql})`, filter), merge: add, heavy: false },
        { type: 'DECIMAL(38,0)', partial: `coalesce(${filtered(`sum(${u})`, filter)}, 0)`, merge: add, heavy: false },
        {
          type: 'DECIMAL(38,0)',
          partial: `coalesce(${filtered(`sum(CAST(${u} AS HUGEINT) * CAST(${u} AS HUGEINT))`, filter)}, 0)`,
          merge: add,
          heavy: false,
        },
      ],
      present: ([n, s, q]) => finalExpression(name, type.scale, huge(n!), huge(s!), huge(q!)),
      reference: referenceVariance(name, sql, type.scale, filter),
      needsPosition: false,
    }
  },
}

/** The published definition, written out: one pass of exact sums, then the final expression in a let-list. */
const referenceVariance = (name: string, sql: string, scale: number, filter: string | null): string => {
  const { sample, root } = FORMS[name]!
  const u = `CAST((${sql}) * ${scale === 0 ? '1' : `CAST('1${'0'.repeat(scale)}' AS DECIMAL(${scale + 1},0))`} AS HUGEINT)`
  const sums = `struct_pack(n := CAST(${filtered(`count(${sql})`, filter)} AS HUGEINT), s := ${filtered(`sum(${u})`, filter)}, q := ${filtered(`sum(${u} * ${u})`, filter)})`
  const withMean = `list_transform([${sums}], lambda _lt: struct_pack(n := _lt.n, s := _lt.s, q := _lt.q, m := CASE WHEN _lt.n > 0 THEN (2 * _lt.s + CASE WHEN _lt.s < 0 THEN -_lt.n ELSE _lt.n END) // (2 * _lt.n) END))`
  const below = sample ? '_lt.n - 1' : '_lt.n'
  const value = `((_lt.q - _lt.m * (2 * _lt.s - _lt.n * _lt.m))::DOUBLE - ((_lt.s - _lt.n * _lt.m)::DOUBLE * (_lt.s - _lt.n * _lt.m)::DOUBLE) / _lt.n::DOUBLE) / (${below})::DOUBLE / 1e${2 * scale}`
  return `list_transform(${withMean}, lambda _lt: CASE WHEN ${below} > 0 THEN ${root ? `sqrt(${value})` : value} END)[1]`
}
