/** The page at `/` until the dashboard comes: status in plain HTML, no scripts. Invariant: every text in it is escaped. */
import type { ServingStatus } from './status.ts'

const escaped = (value: unknown): string => String(value ?? '–').replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)

const table = (heads: string[], rows: unknown[][]): string =>
  `<table><thead><tr>${heads.map((h) => `<th>${escaped(h)}</th>`).join('')}</tr></thead><tbody>${rows
    .map((row) => `<tr>${row.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`)
    .join('')}</tbody></table>`

const offsets = (cut: Record<string, string> | null): string =>
  Object.entries(cut ?? {})
    .map(([p, o]) => `${p}:${o}`)
    .join(' ')

const STYLE =
  'body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b2733;background:#fff}table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}th,td{text-align:left;padding:.35rem .75rem;border-bottom:1px solid #d9e1e8;font-variant-numeric:tabular-nums}th{font-weight:600;color:#52606d}@media(prefers-color-scheme:dark){body{background:#12181f;color:#dbe4ec}th{color:#9fb0bf}th,td{border-color:#2a3642}a{color:#7db8ff}}'

/** Null: the visitor has no key and learns nothing. */
export const statusPage = (status: ServingStatus | null): string => {
  const body =
    status === null
      ? '<p>Weir is running. Ask it with an API key: see <a href="/docs">/docs</a>.</p>'
      : `<h2>Views</h2>${table(
          ['view', 'version', 'generation', 'cut', 'upper', 'lag', 'drift', 'state'],
          status.views.map((v) => [
            v.name,
            v.version,
            v.generation,
            offsets(v.cut),
            offsets(v.upper),
            v.lag === null ? null : `${v.lag.records} records, ${v.lag.ms} ms`,
            v.drift,
            v.problem ?? 'serving',
          ]),
        )}<h2>Datasets</h2>${table(
          ['dataset', 'appended', 'counted', 'duplicate', 'dead'],
          status.datasets.map((d) => [d.name, d.appended, d.counted, d.duplicate, d.dead]),
        )}<p><a href="/docs">HTTP API</a> · <a href="/v1/status">status as JSON</a> · <a href="/metrics">metrics</a></p>`
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Weir</title><style>${STYLE}</style></head><body><h1>Weir</h1>${body}</body></html>`
}
