/** What min(x) and max(x) share: text in binary order, NaN above all numbers; state and value are of the argument's type. */
import { valueType } from '../compile/value-type.ts'
import { filtered, type Measure, notStorable, oneBitPattern, storedType, takesOne } from './measure.ts'

export const extreme = (aggregate: 'min' | 'max'): Measure => ({
  names: [aggregate],
  usage: `${aggregate}(x)`,
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
          partial: filtered(`${aggregate}(${oneBitPattern(sql, type)})`, filter),
          merge: (c) => `${aggregate}(${c})`,
          heavy: false,
        },
      ],
      present: ([s]) => s!,
      reference: `CAST(${filtered(type.kind === 'DOUBLE' ? `${aggregate}(CASE WHEN isnan(${sql}) THEN 'NaN'::DOUBLE ELSE ${sql} + 0e0 END)` : `${aggregate}(${sql})`, filter)} AS ${stored})`,
      needsPosition: false,
    }
  },
})
