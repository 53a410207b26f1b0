/** bool_and(x): whether every value is true; NULL over no values. */
import { BOOLEAN } from '../compile/value-type.ts'
import { filtered, type Measure, takesOne } from './measure.ts'

export const boolAnd: Measure = {
  names: ['bool_and'],
  usage: 'bool_and(condition)',
  check: (name, args) =>
    takesOne(name, args) ??
    (args[0]!.type.kind === 'BOOLEAN'
      ? null
      : {
          message: `${name} takes a condition, not a ${args[0]!.type.sql}.`,
          expected: 'a BOOLEAN',
          next: 'compare it with something',
        }),
  build: ({ args, filter }) => {
    const aggregate = filtered(`bool_and(${args[0]!.sql})`, filter)
    return {
      type: 'BOOLEAN',
      value: BOOLEAN,
      approximate: null,
      states: [{ type: 'BOOLEAN', partial: aggregate, merge: (c) => `bool_and(${c})`, heavy: false }],
      present: ([s]) => s!,
      reference: aggregate,
      needsPosition: false,
    }
  },
}
