/**
 * sum(x): a DECIMAL(38,s) that adds up exactly. Limit: |x| below 10^26 units of the last place, so that 10^12 rows fit.
 * Sums of doubles are refused: their last digits depend on the order of the rows.
 */
import { isExact, type ValueType, valueType } from '../compile/value-type.ts'
import {
  filtered,
  type Measure,
  type MeasureArgument,
  magnitude,
  type Problem,
  type StateSpec,
  takesOne,
} from './measure.ts'

export const LIMIT = 10n ** 26n

/** Why x cannot be summed exactly; null: it can. Shared with avg. */
export const notSummable = (name: string, args: MeasureArgument[]): Problem | null => {
  const wrong = takesOne(name, args)
  if (wrong) return wrong
  const { type } = args[0]!
  const expected = 'an integer or a DECIMAL of at most 26 digits'
  if (type.kind === 'DOUBLE')
    return {
      message: `${name} of a DOUBLE depends on the order of the rows, so it cannot be repeated or merged exactly.`,
      expected,
      next: `write the scale you need: ${name}(TRY_CAST(x AS DECIMAL(18,6)))`,
    }
  if (type.kind === 'BOOLEAN')
    return { message: `${name} takes numbers, not a BOOLEAN.`, expected, next: 'write count(*) FILTER (WHERE x)' }
  if (!isExact(type))
    return {
      message: `${name} takes numbers, not a ${type.sql}.`,
      expected,
      next: `write ${name}(TRY_CAST(x AS DECIMAL(18,2)))`,
    }
  if (magnitude(type) >= LIMIT)
    return {
      message: `${name} of ${type.sql} could overflow its 38 digits.`,
      expected,
      next: `write ${name}(TRY_CAST(x AS DECIMAL(26,${Math.min(type.scale, 26)})))`,
    }
  return null
}

export const sumType = (type: ValueType): string => `DECIMAL(38,${type.scale})`

/** State of a sum; NULL over no values, as SQL has it. Shared with avg. */
export const sumState = (sql: string, type: ValueType, filter: string | null): StateSpec => ({
  type: sumType(type),
  partial: filtered(`sum(${sql})`, filter),
  merge: (c) => `sum(${c})`,
  heavy: false,
})

export const sum: Measure = {
  names: ['sum'],
  usage: 'sum(x) of an integer or a DECIMAL',
  check: notSummable,
  build: ({ args, filter }) => {
    const { sql, type } = args[0]!
    return {
      type: sumType(type),
      value: valueType(sumType(type))!,
      approximate: null,
      states: [sumState(sql, type, filter)],
      present: ([s]) => s!,
      reference: `CAST(${filtered(`sum(${sql})`, filter)} AS DECIMAL(38,${type.scale}))`,
      needsPosition: false,
    }
  },
}
