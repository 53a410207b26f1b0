/**
 * approx_quantile(x, q): DDSketch, within 1 % of the value of nearest rank ⌈q·n⌉ (as quantile_disc).
 *
 * A positive x falls into bucket i = ⌈ln x / ln γ − 1e-9⌉ with γ = 1.01/0.99 (Masson, Rim, Lee: "DDSketch", 2019); the tiny
 * shift makes i the same whatever the last bit of ln. One key orders everything: −100000 for −∞, −40000 − i for negatives,
 * 0 for zero, 40000 + i for positives, 100000 for ∞, 100001 for NaN (last). State: keys ascending and their counts, a
 * function of the multiset of values; merging adds counts per key.
 * A bucket's value is 0.99·γ^i, multiplied out of pinned powers, so that it has the same bits on every machine.
 */
import { DOUBLE, isNumber } from '../compile/value-type.ts'
import { filteredNotNull, type Measure } from './measure.ts'

const LN_GAMMA = '0.02000066670666947e0'
const TYPE = 'STRUCT(k INTEGER[], c BIGINT[])'
const EMPTY = `struct_pack(k := CAST([] AS INTEGER[]), c := CAST([] AS BIGINT[]))`

const keyOf = (sql: string): string => {
  const size = `abs(${sql})`
  const i = `CAST(ceil(ln(CASE WHEN isfinite(${sql}) AND (${sql}) <> 0e0 THEN ${size} ELSE 1e0 END) / ${LN_GAMMA} - 1e-9) AS INTEGER)`
  return `CASE WHEN isnan(${sql}) THEN 100001 WHEN isinf(${sql}) THEN CASE WHEN (${sql}) > 0e0 THEN 100000 ELSE -100000 END WHEN (${sql}) = 0e0 THEN 0 WHEN (${sql}) > 0e0 THEN 40000 + ${i} ELSE -40000 - ${i} END`
}

/** γ^(2^j), j = 0…15, as the nearest doubles of the exact powers. */
export const POWERS = powers(1010n, 990n)
/** γ^−(2^j). */
const INVERSE = powers(990n, 1010n)

/** Nearest doubles of (a/b)^(2^j), computed with 400 digits by integers. */
function powers(a: bigint, b: bigint): string[] {
  const one = 10n ** 400n
  let value = (a * one) / b
  const out: string[] = []
  for (let j = 0; j < 16; j++) {
    const text = value.toString().padStart(401, '0')
    const number = Number(`${text.slice(0, -400)}.${text.slice(-400)}`)
    out.push(number.toExponential())
    value = (value * value) / one
  }
  return out
}

const quantileOf = (args: { number?: string }[]): string | null => {
  const text = args[1]?.number
  return text !== undefined && /^(0(\.\d{1,6})?|1(\.0{1,6})?)$/.test(text) ? text : null
}

/** Value of a key. */
const bucketValue = (k: string): string => {
  const size = `(abs(${k}) - 40000)`
  const product = (list: string[]): string =>
    list.map((c, j) => `CASE WHEN (abs(${size}) & ${1 << j}) <> 0 THEN ${c} ELSE 1e0 END`).join(' * ')
  const power = `(CASE WHEN ${size} >= 0 THEN 0.99e0 * ${product(POWERS)} ELSE 0.99e0 * ${product(INVERSE)} END)`
  return `CASE WHEN ${k} = 100001 THEN CAST('NaN' AS DOUBLE) WHEN ${k} = 100000 THEN CAST('Infinity' AS DOUBLE) WHEN ${k} = -100000 THEN CAST('-Infinity' AS DOUBLE) WHEN ${k} = 0 THEN 0e0 WHEN ${k} > 0 THEN ${power} ELSE -${power} END`
}

export const approxQuantile: Measure = {
  names: ['approx_quantile'],
  usage: 'approx_quantile(x, q) with a constant q from 0 to 1',
  check: (name, args) => {
    const expected = 'approx_quantile(x, q) with a number x and a constant q from 0 to 1, at most 6 decimals'
    if (args.length !== 2)
      return {
        message: `${name} takes two arguments, not ${args.length}.`,
        expected,
        next: 'for example approx_quantile(latency_ms, 0.95)',
      }
    if (!isNumber(args[0]!.type))
      return {
        message: `${name} takes numbers, not a ${args[0]!.type.sql}.`,
        expected,
        next: 'write approx_quantile(TRY_CAST(x AS DOUBLE), 0.95)',
      }
    return quantileOf(args) === null
      ? {
          message: 'The quantile is not a constant from 0 to 1.',
          expected,
          next: 'for example 0.95; several quantiles are several measures, which share their state',
        }
      : null
  },
  build: ({ args, filter }) => {
    const { sql, type } = args[0]!
    const x = type.kind === 'DOUBLE' ? sql : `CAST(${sql} AS DOUBLE)`
    const q = quantileOf(args)!
    const map = filteredNotNull(`histogram(${keyOf(x)})`, x, filter)
    return {
      type: 'DOUBLE',
      value: DOUBLE,
      approximate: '1 % relative error',
      states: [
        {
          type: TYPE,
          partial: `coalesce(list_transform([${map}], lambda _lm: CASE WHEN _lm IS NULL THEN NULL ELSE struct_pack(k := CAST(map_keys(_lm) AS INTEGER[]), c := CAST(map_values(_lm) AS BIGINT[])) END)[1], ${EMPTY})`,
          merge: merged,
          heavy: true,
        },
      ],
      present: ([s]) => present(s!, q),
      reference: reference(x, q, filter),
      needsPosition: false,
    }
  },
}

const merged = (c: string): string => {
  const sums = `SELECT _k, sum(_n) AS _n FROM (SELECT unnest(flatten(list(${c}.k))) AS _k, unnest(flatten(list(${c}.c))) AS _n) GROUP BY _k`
  return `coalesce((SELECT CASE WHEN count(*) > 0 THEN struct_pack(k := list(CAST(_k AS INTEGER) ORDER BY _k), c := list(CAST(_n AS BIGINT) ORDER BY _k)) END FROM (${sums})), ${EMPTY})`
}

const present = (s: string, q: string): string => {
  const rank = `greatest(CAST(ceil(CAST(${q} AS DECIMAL(7,6)) * CAST(list_sum(${s}.c) AS DECIMAL(19,0))) AS BIGINT), 1)`
  const entries = `list_transform(${s}.k, lambda _lk, _li: struct_pack(k := _lk, n := ${s}.c[_li]))`
  const found = `list_reduce(${entries}, lambda _la, _le: CASE WHEN _la.n <= 0 THEN _la ELSE struct_pack(k := _le.k, n := _la.n - _le.n) END, struct_pack(k := CAST(0 AS INTEGER), n := ${rank})).k`
  return `CASE WHEN len(${s}.k) > 0 THEN list_transform([${found}], lambda _lk: ${bucketValue('_lk')})[1] END`
}

/** Published definition: the value of the bucket that the nearest-rank value falls into. */
const reference = (x: string, q: string, filter: string | null): string => {
  const where = `FILTER (WHERE ${filter === null ? '' : `(${filter}) AND `}(${x}) IS NOT NULL)`
  const sorted = `list_sort(list(${x}) ${where})`
  const rank = `greatest(1, CAST(ceil(CAST(${q} AS DECIMAL(7,6)) * CAST(count(${x}) ${where} AS DECIMAL(19,0))) AS BIGINT))`
  return `list_transform([${sorted}[${rank}]], lambda _lv: CASE WHEN _lv IS NULL THEN NULL WHEN isnan(_lv) THEN 'NaN'::DOUBLE WHEN isinf(_lv) OR _lv = 0 THEN _lv + 0e0 ELSE sign(_lv) * list_transform([CAST(ceil(ln(abs(CASE WHEN _lv = 0 OR isnan(_lv) OR isinf(_lv) THEN 1 ELSE _lv END)) / ln(1.01e0 / 0.99e0) - 1e-9) AS INTEGER)], lambda _li: ${referencePower('_li')})[1] END)[1]`
}

/** 0.99 times the pinned powers of the bits that are set, least first: the order is part of the definition. */
const referencePower = (i: string): string => {
  const factors = (list: string[]): string =>
    `list_reduce(list_transform(list_filter([${list.map((p, j) => `{'p': ${p}, 'b': ${1 << j}}`).join(', ')}], lambda _lf: (abs(${i}) // _lf.b) % 2 = 1), lambda _lf: _lf.p), lambda _la, _lb: _la * _lb, 0.99e0)`
  return `(CASE WHEN ${i} >= 0 THEN ${factors(POWERS)} ELSE ${factors(INVERSE)} END)`
}
