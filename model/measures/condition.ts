/** What bool_and(x) and bool_or(x) share: the state is the value so far; NULL over no values. */
import { BOOLEAN } from '../compile/value-type.ts'
import { filtered, type Measure, takesOne } from './measure.ts'

export const condition = (name: 'bool_and' | 'bool_or'): Measure => ({
  names: [name],
  usage: `${name}(condition)`,
  check: (_, args) =>
    takesOne(name, args) ??
    (args[0]!.type.kind === 'BOOLEAN'
      ? null
      : {
          message: `${name} takes a condition, not a ${args[0]!.type.sql}.`,
          expected: 'a BOOLEAN',
          next: 'compare it with something',
        }),
  build: ({ args, filter }) => {
    const aggregate = filtered(`${name}(${args[0]!.sql})`, filter)
    return {
      type: 'BOOLEAN',
      value: BOOLEAN,
      approximate: null,
      states: [{ type: 'BOOLEAN', partial: aggregate, merge: (c) => `${name}(${c})`, heavy: false }],
      present: ([s]) => s!,
      reference: aggregate,
      needsPosition: false,
    }
  },
})
