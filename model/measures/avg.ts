/**
 * avg(x) := sum(x)::DOUBLE / count(x), NULL over no values. The sum is exact; one rounding to DOUBLE and one division follow.
 * (The engine's own avg adds doubles in row order.)
 */
import { DOUBLE } from '../compile/value-type.ts'
import { filtered, type Measure } from './measure.ts'
import { notSummable, sumState } from './sum.ts'

export const avg: Measure = {
  names: ['avg', 'mean'],
  usage: 'avg(x) of an integer or a DECIMAL',
  check: notSummable,
  build: ({ args, filter }) => {
    const { sql, type } = args[0]!
    return {
      type: 'DOUBLE',
      value: DOUBLE,
      approximate: null,
      states: [
        sumState(sql, type, filter),
        {
          type: 'BIGINT',
          partial: filtered(`count(${sql})`, filter),
          merge: (c) => `coalesce(sum(${c}), 0)`,
          heavy: false,
        },
      ],
      present: ([s, n]) => `CASE WHEN ${n} > 0 THEN CAST(${s} AS DOUBLE) / CAST(${n} AS DOUBLE) END`,
      reference: `CAST(CAST(${filtered(`sum(${sql})`, filter)} AS DECIMAL(38,${type.scale})) AS DOUBLE) / nullif(CAST(${filtered(`count(${sql})`, filter)} AS DOUBLE), 0e0)`,
      needsPosition: false,
    }
  },
}
