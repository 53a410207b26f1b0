/** What Prometheus scrapes of the layers: drift, alarms, speed positions, archive positions. Invariant: scraping changes nothing. */
import { Gauge, type Registry } from 'prom-client'
import type { ServeOptions } from './serve-options.ts'

const replace = (gauge: Gauge<string>, values: { labels: Record<string, string>; value: number }[]): void => {
  gauge.reset()
  for (const { labels, value } of values) gauge.set(labels, value)
}

export const observe = (registry: Registry, { ports, alarms, drift, speed, options }: ServeOptions): void => {
  const registers = [registry]
  const drifting: Gauge<string> = new Gauge({
    name: 'weir_drift_cells',
    help: 'Cells that the last comparison of each kind found to differ; must be 0',
    labelNames: ['view', 'kind'],
    registers,
    collect: () =>
      replace(
        drifting,
        drift.all().map(({ view, kind, differing }) => ({ labels: { view, kind }, value: differing })),
      ),
  })
  const alarmed: Gauge<string> = new Gauge({
    name: 'weir_alarms',
    help: 'Alarms that stand',
    labelNames: ['source', 'code'],
    registers,
    collect: () =>
      replace(
        alarmed,
        alarms.list().map(({ source, code }) => ({ labels: { source, code }, value: 1 })),
      ),
  })
  const log: Gauge<string> = new Gauge({
    name: 'weir_log_end_offset',
    help: 'Next offset to be appended, in records',
    labelNames: ['dataset', 'partition'],
    registers,
    collect: async () => {
      const values: { labels: Record<string, string>; value: number }[] = []
      for (const { name } of options.project.datasets)
        for (const p of await ports.log.partitions(name))
          values.push({
            labels: { dataset: name, partition: String(p) },
            value: (await ports.log.range(name, p)).endOffset,
          })
      replace(log, values)
    },
  })
  if (speed !== null) {
    const events: Gauge<string> = new Gauge({
      name: 'weir_speed_events',
      help: 'Events that the speed layer has taken, by their fate',
      labelNames: ['dataset', 'partition', 'fate'],
      registers,
      collect: () =>
        replace(
          events,
          speed.workers().flatMap(({ dataset, partition, worker }) => {
            const { counted, duplicate, dead } = worker.state()
            return Object.entries({ counted, duplicate, dead }).map(([fate, value]) => ({
              labels: { dataset, partition: String(partition), fate },
              value,
            }))
          }),
        ),
    })
    const applied: Gauge<string> = new Gauge({
      name: 'weir_speed_offset',
      help: 'Next offset that the speed layer will read, in records',
      labelNames: ['dataset', 'partition'],
      registers,
      collect: () =>
        replace(
          applied,
          speed.workers().flatMap(({ dataset, partition, worker }) => {
            const { position } = worker.state()
            return position === null
              ? []
              : [{ labels: { dataset, partition: String(partition) }, value: position.offset }]
          }),
        ),
    })
  }
}
