/** The definitions of the lake that foreign engines read: a column of every type, views with every kind of state. */
import type { ProjectFile } from '../../model/project.ts'

const dataset = `
dataset: readings
eventTime: ts
id: id
dedupe: { window: 1 hour }
partitions: 2
extra: keep
columns:
  id: VARCHAR
  ts: TIMESTAMPTZ
  city: VARCHAR
  note: VARCHAR
  ok: BOOLEAN
  t8: TINYINT
  i16: SMALLINT
  i32: INTEGER
  i64: BIGINT
  u8: UTINYINT
  u16: USMALLINT
  u32: UINTEGER
  u64: UBIGINT
  x: DOUBLE
  d9: "DECIMAL(9,2)"
  d18: "DECIMAL(18,4)"
  d38: "DECIMAL(38,6)"
  day: DATE
  seen: { type: TIMESTAMPTZ, unit: us }
  device: UUID
  payload: JSON
  Group: INTEGER
  nothing: BIGINT
`

const hourly = `
SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, city, ok,
       count(*) AS events, count(x) AS measured, sum(d18) AS total, sum(i64) AS big, sum(TRY_CAST(x AS DECIMAL(18,6))) AS weight,
       min(d9) AS lowest, max(seen) AS last_seen, min(note) AS first_note, avg(i32) AS mean,
       approx_count_distinct(id) AS ids, approx_quantile(x, 0.95) AS p95, bool_or(ok) AS any_ok,
       first(city) AS first_city, last(d38) AS last_d38, stddev_samp(i16) AS spread
FROM readings GROUP BY ALL`

const byDay = `
SELECT day, t8, count(*) AS events, sum(d9) AS total, min(i64) AS low, max(i64) AS high,
       approx_count_distinct(device) AS devices, approx_quantile(i32, 0.5) AS middle
FROM readings WHERE city IS NOT NULL GROUP BY ALL`

export const files: ProjectFile[] = [
  { path: 'weir.yaml', text: 'schedules: { extend: off, recompute: off, compact: off }\n' },
  { path: 'datasets/readings.yaml', text: dataset },
  { path: 'views/hourly.sql', text: hourly },
  { path: 'views/by_day.sql', text: byDay },
]
