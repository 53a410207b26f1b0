/**
 * approx_count_distinct(x): HyperLogLog with 4,096 registers, exact up to 256 distinct values, then 1.6 % standard error.
 *
 * A value's hash is md5_number_lower of its written text (an integer's digits, a UUID in lower case, an ISO date, true or
 * false), so the same value hashes the same whatever its type. The low 12 bits name the register; rho is 1 + the number of
 * trailing zeros of the other 52 (53 when they are all zero).
 * State `{ h, r }`, exactly one non-NULL: `h` the sorted distinct hashes while there are at most 256; else `r` the registers
 * that are not zero, ascending, as register × 64 + rho. Both are functions of the set of values, so merging is a union (h)
 * or a maximum per register (r).
 * Estimate: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), improved raw estimator, with
 * the sum of 2^−rho as an exact integer. Its tau term (registers of rho 53) is below 1e-12 here and left out.
 */
import { valueType } from '../compile/value-type.ts'
import { filteredNotNull, type Measure, takesOne } from './measure.ts'

export const EXACT_LIMIT = 256
const TYPE = 'STRUCT(h UBIGINT[], r UINTEGER[])'
const RELATIVE_ERROR = '1.6 % standard error, exact up to 256'
/** 2^52: with this bit set above the 52 hash bits, trailing zeros end at 53 by themselves. */
const TOP = '4503599627370496'

const hashOf = (sql: string): string => `md5_number_lower(CAST(${sql} AS VARCHAR))`

/** register × 64 + rho of a hash. */
const code = (h: string): string => {
  const w = `CAST((${h} >> 12) | ${TOP} AS BIGINT)`
  return `(CAST(${h} & 4095 AS INTEGER) * 64 + bit_count(xor(${w}, ${w} - 1)))`
}

/** Greatest code per register of a list of codes, ascending; NULL list: NULL. */
const registers = (codes: string): string =>
  `(SELECT list(CAST(_g * 64 + _m AS UINTEGER) ORDER BY _g) FROM (SELECT _c >> 6 AS _g, max(_c & 63) AS _m FROM (SELECT unnest(${codes}) AS _c) GROUP BY 1))`

const EMPTY = `CAST([] AS UBIGINT[])`

export const approxCountDistinct: Measure = {
  names: ['approx_count_distinct'],
  usage: 'approx_count_distinct(x)',
  check: (name, args) => {
    const wrong = takesOne(name, args)
    if (wrong) return wrong
    const { type } = args[0]!
    if (['VARCHAR', 'INTEGER', 'UUID', 'DATE', 'BOOLEAN'].includes(type.kind)) return null
    return {
      message: `${name} takes no ${type.sql}.`,
      expected: 'VARCHAR, an integer, UUID, DATE or BOOLEAN',
      next:
        type.kind === 'TIMESTAMPTZ'
          ? `write ${name}(epoch_us(x))`
          : type.kind === 'DOUBLE'
            ? `round it: ${name}(TRY_CAST(x AS BIGINT))`
            : `write ${name}(CAST(x AS VARCHAR))`,
    }
  },
  build: ({ args, filter }) => {
    const { sql } = args[0]!
    const distinct = filteredNotNull(`list(DISTINCT ${hashOf(sql)})`, sql, filter)
    const ofHashes = (hashes: string): string => `list_transform(${hashes}, lambda _lh: ${code('_lh')})`
    const pack = (hashes: string, rows: string): string =>
      `CASE WHEN ${rows} THEN struct_pack(h := CAST(NULL AS UBIGINT[]), r := ${registers(ofHashes(hashes))}) ELSE struct_pack(h := coalesce(list_sort(${hashes}), ${EMPTY}), r := CAST(NULL AS UINTEGER[])) END`
    return {
      type: 'COUNT',
      value: { ...valueType('BIGINT')!, lo: 0n },
      approximate: RELATIVE_ERROR,
      states: [
        { type: TYPE, partial: pack(distinct, `len(${distinct}) > ${EXACT_LIMIT}`), merge: merged, heavy: true },
      ],
      present: ([s]) => present(s!),
      reference: reference(sql, filter),
      needsPosition: false,
    }
  },
}

const merged = (c: string): string => {
  const hashes = `list_distinct(flatten(list(${c}.h) FILTER (WHERE ${c}.h IS NOT NULL)))`
  const dense = `flatten(list(${c}.r) FILTER (WHERE ${c}.r IS NOT NULL))`
  const codes = `list_concat(list_transform(${hashes}, lambda _lh: CAST(${code('_lh')} AS UINTEGER)), ${dense})`
  return `CASE WHEN count(${c}.r) > 0 OR len(${hashes}) > ${EXACT_LIMIT} THEN struct_pack(h := CAST(NULL AS UBIGINT[]), r := ${registers(codes)}) ELSE struct_pack(h := coalesce(list_sort(${hashes}), ${EMPTY}), r := CAST(NULL AS UINTEGER[])) END`
}

/** sigma(x) of the paper by its own iteration; 22 steps reach the last bit for x ≤ 4095/4096. */
const sigma = (x: string): string =>
  `list_reduce(list_transform(range(22), lambda _lk: struct_pack(x := 0e0, y := 0e0, z := 0e0)), lambda _la, _lb: struct_pack(x := _la.x * _la.x, y := _la.y + _la.y, z := _la.z + _la.x * _la.x * _la.y), struct_pack(x := ${x}, y := 1e0, z := ${x})).z`

const present = (s: string): string => {
  const zeros = `CAST(4096 - len(${s}.r) AS DOUBLE) / 4096e0`
  const sum = `CAST(list_sum(list_transform(${s}.r, lambda _lc: CAST(1 AS HUGEINT) << CAST(greatest(52 - CAST(_lc & 63 AS INTEGER), 0) AS HUGEINT))) AS DOUBLE) / 4503599627370496e0`
  const estimate = `0.7213475204444817e0 * 16777216e0 / (${sum} + 4096e0 * ${sigma(zeros)})`
  return `CASE WHEN ${s}.r IS NULL THEN CAST(coalesce(len(${s}.h), 0) AS BIGINT) ELSE CAST(round(${estimate}) AS BIGINT) END`
}

/** Published definition: the count of distinct values up to 256, else the estimator over the greatest rho per register. */
const reference = (sql: string, filter: string | null): string => {
  const distinct = `list(DISTINCT md5_number_lower(CAST(${sql} AS VARCHAR))) FILTER (WHERE ${filter === null ? '' : `(${filter}) AND `}(${sql}) IS NOT NULL)`
  const count = `coalesce(len(${distinct}), 0)`
  // Trailing zeros by the length of what is left after the last 1 of the binary text: slow, and nothing like the bit tricks.
  const rho = `CASE WHEN _v >> 12 = 0 THEN 53 ELSE instr(reverse(bin(_v >> 12)), '1') END`
  const fold = `SELECT sum(pow(2e0, -_m)) AS _s, 4096 - count(*) AS _z FROM (SELECT _v % 4096 AS _g, max(${rho}) AS _m FROM (SELECT unnest(${distinct}) AS _v) GROUP BY 1)`
  const powers = `list_sum(list_transform(range(1, 23), lambda _lk: pow(_z / 4096e0, pow(2e0, _lk)) * pow(2e0, _lk - 1)))`
  return `CASE WHEN ${count} <= 256 THEN CAST(${count} AS BIGINT) ELSE (SELECT CAST(round(0.7213475204444817e0 * 4096e0 * 4096e0 / (_s + 4096e0 * (_z / 4096e0 + ${powers}))) AS BIGINT) FROM (${fold})) END`
}
