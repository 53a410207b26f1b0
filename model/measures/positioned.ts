/**
 * first(x) and last(x): the value of the earliest or latest event by (event time, partition, offset, index) among those
 * where x is not NULL and the FILTER holds. The state carries its key, so merging picks the smaller or greater one;
 * positions are unique, so there are no ties. (The engine's own first and last follow row order.)
 */
import { valueType } from '../compile/value-type.ts'
import { filteredNotNull, type Measure, notStorable, oneBitPattern, storedType, takesOne } from './measure.ts'

export const positioned = (name: 'first' | 'last', aggregate: 'arg_min' | 'arg_max'): Measure => ({
  names: [name],
  usage: `${name}(x)`,
  check: (written, args) =>
    takesOne(written, args) ?? (storedType(args[0]!.type) ? null : notStorable(written, args[0]!.type)),
  build: ({ args, filter, eventTime }) => {
    const { sql, type } = args[0]!
    const stored = storedType(type)!
    const key = `struct_pack(t := ${eventTime}, p := _partition, o := _offset, i := _index)`
    const value = `struct_pack(k := ${key}, v := CAST(${oneBitPattern(sql, type)} AS ${stored}))`
    return {
      type: stored,
      value: { ...valueType(stored)!, lo: type.lo, hi: type.hi },
      approximate: null,
      states: [
        {
          type: `STRUCT(k STRUCT(t TIMESTAMPTZ, p BIGINT, o BIGINT, i BIGINT), v ${stored})`,
          partial: filteredNotNull(`${aggregate}(${value}, ${key})`, sql, filter),
          merge: (c) => `${aggregate}(${c}, ${c}.k) FILTER (WHERE ${c} IS NOT NULL)`,
          heavy: false,
        },
      ],
      present: ([s]) => `${s}.v`,
      reference: reference(aggregate, sql, stored, filter, eventTime),
      needsPosition: true,
    }
  },
})

const reference = (
  aggregate: string,
  sql: string,
  stored: string,
  filter: string | null,
  eventTime: string,
): string => {
  const order = `(${eventTime}, _partition, _offset, _index)`
  const where = filter === null ? '' : ` FILTER (WHERE ${filter})`
  const picked = `CAST(${aggregate}(${sql}, ${order})${where} AS ${stored})`
  // arg_min and arg_max leave out rows whose value is NULL.
  return stored === 'DOUBLE'
    ? `list_transform([${picked}], lambda _ld: CASE WHEN isnan(_ld) THEN 'NaN'::DOUBLE ELSE _ld + 0e0 END)[1]`
    : picked
}
