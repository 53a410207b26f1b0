/** Every measure that a view can have. Adding one is adding a file, a line here and a row to the law table. */
import { approxCountDistinct } from './approx-count-distinct.ts'
import { approxQuantile } from './approx-quantile.ts'
import { avg } from './avg.ts'
import { boolAnd } from './bool-and.ts'
import { boolOr } from './bool-or.ts'
import { count } from './count.ts'
import { first } from './first.ts'
import { last } from './last.ts'
import { max } from './max.ts'
import type { Measure } from './measure.ts'
import { min } from './min.ts'
import { sum } from './sum.ts'
import { variance } from './variance.ts'

export const MEASURES: readonly Measure[] = [
  count,
  sum,
  avg,
  min,
  max,
  boolAnd,
  boolOr,
  variance,
  first,
  last,
  approxCountDistinct,
  approxQuantile,
]

const BY_NAME = new Map(MEASURES.flatMap((m) => m.names.map((name) => [name, m] as const)))

export const measureNamed = (name: string): Measure | null => BY_NAME.get(name) ?? null

/** Aggregates that people try, and what to write instead. */
export const REFUSED_AGGREGATES: Readonly<Record<string, string>> = {
  median: 'use approx_quantile(x, 0.5): within 1 %, and it merges',
  quantile: 'use approx_quantile(x, q): within 1 %, and it merges',
  quantile_cont: 'use approx_quantile(x, q): within 1 %, and it merges',
  quantile_disc: 'use approx_quantile(x, q): within 1 %, and it merges',
  reservoir_quantile: 'use approx_quantile(x, q): within 1 %, and it merges',
  mode: 'make x a dimension and order the query by count, with a limit',
  approx_top_k: 'make x a dimension and ask with orderBy and limit: that is exact',
  approx_top: 'make x a dimension and ask with orderBy and limit: that is exact',
  histogram: 'make the class of x a dimension and count(*)',
  list: 'make x a dimension',
  array_agg: 'make x a dimension',
  string_agg: 'make x a dimension',
  group_concat: 'make x a dimension',
  listagg: 'make x a dimension',
  arg_min: 'use first(x): the value of the earliest event',
  arg_max: 'use last(x): the value of the latest event',
  min_by: 'use first(x): the value of the earliest event',
  max_by: 'use last(x): the value of the latest event',
  argmin: 'use first(x): the value of the earliest event',
  argmax: 'use last(x): the value of the latest event',
  any_value: 'use first(x): the value of the earliest event',
  arbitrary: 'use first(x): the value of the earliest event',
  fsum: 'use sum(TRY_CAST(x AS DECIMAL(18,6))): exact in any order',
  kahan_sum: 'use sum(TRY_CAST(x AS DECIMAL(18,6))): exact in any order',
  sumkahan: 'use sum(TRY_CAST(x AS DECIMAL(18,6))): exact in any order',
  favg: 'use avg(TRY_CAST(x AS DECIMAL(18,6)))',
  product: 'use sum(TRY_CAST(TRY(ln(x)) AS DECIMAL(18,9))): the logarithm of the product',
  geomean: 'use avg(TRY_CAST(TRY(ln(x)) AS DECIMAL(18,9))): its logarithm',
  count_if: 'use count(*) FILTER (WHERE …)',
  countif: 'use count(*) FILTER (WHERE …)',
  corr: 'compute it in the query from sums of x, y, x*x, y*y and x*y',
  covar_samp: 'compute it in the query from sums of x, y and x*y',
  covar_pop: 'compute it in the query from sums of x, y and x*y',
  regr_slope: 'compute it in the query from sums of x, y, x*x and x*y',
  skewness: 'use stddev_samp, or approx_quantile at several points',
  kurtosis: 'use stddev_samp, or approx_quantile at several points',
  entropy: 'make x a dimension and count(*)',
  mad: 'use approx_quantile at several points',
  bit_and: 'use bool_and of a condition',
  bit_or: 'use bool_or of a condition',
  bit_xor: 'use count(*) FILTER (WHERE …)',
  bitstring_agg: 'use approx_count_distinct(x)',
  grouping: 'leave it out: a view has one grouping',
  grouping_id: 'leave it out: a view has one grouping',
}
