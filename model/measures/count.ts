/** count(*) and count(x): a BIGINT that adds up. Limit: 2^63 rows. */
import { valueType } from '../compile/value-type.ts'
import { filtered, type Measure } from './measure.ts'

export const count: Measure = {
  names: ['count', 'count_star'],
  usage: 'count(*) or count(x)',
  check: (_name, args) =>
    args.length <= 1
      ? null
      : {
          message: `count takes one argument, not ${args.length}.`,
          expected: 'count(*) or count(x)',
          next: 'correct the call',
        },
  build: ({ args, filter }) => {
    const aggregate = filtered(args[0] ? `count(${args[0].sql})` : 'count(*)', filter)
    return {
      type: 'COUNT',
      value: { ...valueType('BIGINT')!, lo: 0n },
      approximate: null,
      states: [{ type: 'BIGINT', partial: aggregate, merge: (c) => `coalesce(sum(${c}), 0)`, heavy: false }],
      present: ([n]) => n!,
      reference: aggregate,
      needsPosition: false,
    }
  },
}
