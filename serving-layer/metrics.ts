/** What Prometheus scrapes of the serving layer. Invariant: scraping changes nothing and never fails a scrape of the others. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Serving } from './serving.ts'

export type QueryMetrics = { observe(view: string, outcome: string, seconds: number): void }

export const observeServing = (registry: Registry, serving: Serving): QueryMetrics => {
  const registers = [registry]
  const seconds = new Histogram({
    name: 'weir_query_seconds',
    help: 'Time to answer queries, in seconds, by view and outcome (answered, unchanged, refused, failed)',
    labelNames: ['view', 'outcome'],
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
    registers,
  })
  const gauge = (name: string, help: string, value: () => number): void => {
    const own: Gauge = new Gauge({ name, help, registers, collect: () => own.set(value()) })
  }
  gauge('weir_query_running', 'Queries being answered', () => serving.gauges().running)
  gauge('weir_query_waiting', 'Queries waiting for a place', () => serving.gauges().waiting)
  gauge('weir_query_cache_bytes', 'Bytes of kept answers', () => serving.gauges().cacheBytes)
  let counted = 0
  const replans: Counter = new Counter({
    name: 'weir_query_replans_total',
    help: 'Plans whose parts did not fit together and that were made again',
    registers,
    collect: () => {
      const now = serving.gauges().replans
      replans.inc(now - counted)
      counted = now
    },
  })
  const lagRecords: Gauge<string> = new Gauge({
    name: 'weir_view_lag_records',
    help: 'Records in the log that the view has not seen',
    labelNames: ['view'],
    registers,
    collect: async () => {
      const status = await serving.status().catch(() => null)
      lagRecords.reset()
      lagMs.reset()
      drift.reset()
      for (const v of status?.views ?? []) {
        if (v.lag !== null) lagRecords.set({ view: v.name }, v.lag.records)
        if (v.lag !== null) lagMs.set({ view: v.name }, v.lag.ms)
        if (v.drift !== null) drift.set({ view: v.name }, v.drift)
      }
    },
  })
  const lagMs: Gauge<string> = new Gauge({
    name: 'weir_view_lag_ms',
    help: 'Age of the oldest record that the view has not seen, in ms',
    labelNames: ['view'],
    registers,
  })
  const drift: Gauge<string> = new Gauge({
    name: 'weir_view_drift_cells',
    help: 'Cells that differed at the last comparison of the view; must be 0',
    labelNames: ['view'],
    registers,
  })
  return { observe: (view, outcome, value) => seconds.observe({ view, outcome }, value) }
}
