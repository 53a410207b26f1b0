/** `/v1/status` as people read it. */
import type { Alarm } from './alarms.ts'
import { table } from './output.ts'

export type DatasetStatus = { name: string; appended: number; counted: number; duplicate: number; dead: number }
export type ViewStatus = {
  name: string
  dataset: string
  version: string | null
  generation: string | null
  cut: Record<string, string> | null
  upper: Record<string, string> | null
  lag: { records: number; ms: number } | null
  drift: number | null
}
export type Status = {
  datasets: DatasetStatus[]
  views: (ViewStatus & Record<string, unknown>)[]
  alarms?: Alarm[]
}

const offsets = (cut: Record<string, string> | null | undefined): string =>
  Object.entries(cut ?? {})
    .map(([p, o]) => `${p}:${o}`)
    .join(' ')

export const statusText = (status: Status): string =>
  [
    table(
      [
        { name: 'dataset' },
        { name: 'appended', numeric: true },
        { name: 'counted', numeric: true },
        { name: 'duplicate', numeric: true },
        { name: 'dead', numeric: true },
      ],
      status.datasets.map((d) => [d.name, d.appended, d.counted, d.duplicate, d.dead]),
    ),
    '',
    table(
      [
        { name: 'view' },
        { name: 'version' },
        { name: 'generation', numeric: true },
        { name: 'cut' },
        { name: 'upper' },
        { name: 'lag', numeric: true },
        { name: 'drift', numeric: true },
      ],
      status.views.map((v) => [
        v.name,
        v.version,
        v.generation,
        offsets(v.cut),
        offsets(v.upper),
        v.lag?.records,
        v.drift,
      ]),
    ),
    ...(status.alarms?.length
      ? ['', ...status.alarms.map((a) => `ALARM ${a.source}: ${a.message} [${a.code}]${a.next ? ` — ${a.next}` : ''}`)]
      : []),
  ].join('\n')
