/** max(x): the greatest value; text in binary order, NaN above all numbers. State and value are of the argument's type. */
import { valueType } from '../compile/value-type.ts'
import { filtered, type Measure, notStorable, oneBitPattern, storedType, takesOne } from './measure.ts'

export const max: Measure = {
  names: ['max'],
  usage: 'max(x)',
  check: (name, args) => takesOne(name, args) ?? (storedType(args[0]!.type) ? null : notStorable(name, args[0]!.type)),
  build: ({ args, filter }) => {
    const { sql, type } = args[0]!
    const stored = storedType(type)!
    return {
      type: stored,
      value: { ...valueType(stored)!, lo: type.lo, hi: type.hi },
      approximate: null,
      states: [
        {
          type: stored,
          partial: filtered(`max(${oneBitPattern(sql, type)})`, filter),
          merge: (c) => `max(${c})`,
          heavy: false,
        },
      ],
      present: ([s]) => s!,
      reference: `CAST(${filtered(type.kind === 'DOUBLE' ? `max(CASE WHEN isnan(${sql}) THEN 'NaN'::DOUBLE ELSE ${sql} + 0e0 END)` : `max(${sql})`, filter)} AS ${stored})`,
      needsPosition: false,
    }
  },
}
