/** Events for the interop lake: the odd values of every column type, duplicates, unknown fields, and lines that are no events. */
import type { Random } from '../../cli/random.ts'

const LONG = 'a text that is longer than the bound of a statistic can be: '
/** The greatest one ends, where a bound is cut, in a way that no bound can be above. */
const CITIES = [
  ...['Berlin', 'Zürich', '東京', "O'Hara", '', ' ', 'A\\B"C', '😀 emoji', 'zebra', 'ZEBRA', undefined],
  '\u{10FFFF}'.repeat(40),
]
/** The greatest one is cut in a bound, which must then be above it. */
const NOTES = [
  LONG,
  `${LONG.slice(0, 31)}\u{10FFFF}\u{10FFFF}`,
  `${'é'.repeat(32)}ü`,
  'tab\tand\nline',
  `${'\uFFFF'.repeat(32)}zz`,
  'NaN',
  '__HIVE_DEFAULT_PARTITION__',
]
const HOUR = 3_600_000

/** JSON text of a number with all its digits: a JavaScript number would lose some. */
const raw = (digits: string): string => `@${digits}@`
const pad = (n: number, digits: number): string => String(n).padStart(digits, '0')

const BROKEN = ['{"id": 1, "ts"', '{"id":"x","ts":"never"}', '{"ts":"2026-06-20T00:00:00Z"}', '[]', '\u0001']
export const brokenLine = (r: Random): string => r.pick(BROKEN)

/** One event. Most columns are NULL now and then, each alone. */
export const eventLine = (r: Random, now: number): string => {
  const ms = now - r.int(0, 60 * HOUR) + (r.chance(0.02) ? 400 * 24 * HOUR : 0)
  const values: Record<string, unknown> = {
    city: r.pick(CITIES),
    note: r.chance(0.2) ? `${r.pick(NOTES)}${r.chance(0.5) ? r.int(0, 9) : ''}` : `n${r.int(0, 50)}`,
    ok: r.chance(0.5),
    t8: r.pick([-128, 127, 0, r.int(-9, 9)]),
    i16: r.pick([-32_768, 32_767, r.int(-99, 99)]),
    i32: r.pick([-2_147_483_648, 2_147_483_647, r.int(-999, 999), r.int(0, 99)]),
    i64: raw(r.pick(['9223372036854775807', '-9223372036854775808', '9007199254740993', String(r.int(-9, 9))])),
    u8: r.pick([0, 255, r.int(0, 99)]),
    u16: r.pick([0, 65_535, r.int(0, 99)]),
    u32: r.pick([0, 4_294_967_295, 2_147_483_648]),
    u64: raw(r.pick(['0', '18446744073709551615', '9223372036854775808', String(r.int(0, 99))])),
    x: r.pick([raw('-0.0'), raw('1.7976931348623157e308'), raw('5e-324'), r.next(), r.int(1, 1_000) / 7]),
    d9: raw(`${r.pick(['', '-'])}${r.int(0, 9_999_999)}.${pad(r.int(0, 99), 2)}`),
    d18: raw(`${r.int(-99_999, 99_999_999)}.${pad(r.int(0, 9_999), 4)}`),
    // As text: more digits than a number in JSON may have.
    d38: `${r.pick(['', '-'])}12345678901234567890123456${r.int(0, 999)}.${pad(r.int(0, 999_999), 6)}`,
    day: new Date(ms - r.int(-90, 90) * 24 * HOUR).toISOString().slice(0, 10),
    seen: ms * 1_000 + r.int(0, 1_000),
    device: `${pad(r.int(0, 9), 8)}-1111-4222-8333-${pad(r.int(0, 99), 12)}`,
    payload: r.pick<unknown>([{ a: [1, { b: 'ß' }] }, [1, 2], 'text', 7]),
    Group: r.int(0, 100),
  }
  for (const name of Object.keys(values)) if (r.chance(0.12)) delete values[name]
  if (r.chance(0.1)) values.unknown = { colour: '東' }
  const at = `${new Date(ms).toISOString().slice(0, 23)}${pad(r.int(0, 1_000), 3)}Z`
  return JSON.stringify({ id: `e${r.int(0, 2_000)}`, ts: at, ...values }).replace(/"@([^"@]*)@"/g, '$1')
}
