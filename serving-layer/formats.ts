/**
 * Answers as JSON, NDJSON and CSV. Invariant: all three carry the same values; CSV tells NULL (nothing) from empty text ("").
 */
import type { Answer, Scalar } from '../model/query/query.ts'

export type Format = 'json' | 'ndjson' | 'csv'

export const MEDIA: Record<Format, string> = {
  json: 'application/json; charset=utf-8',
  ndjson: 'application/x-ndjson; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
}

const KNOWN: Record<string, Format> = {
  'application/json': 'json',
  'application/*': 'json',
  '*/*': 'json',
  'application/x-ndjson': 'ndjson',
  'application/ndjson': 'ndjson',
  'application/jsonl': 'ndjson',
  'text/csv': 'csv',
  'text/*': 'csv',
}

/** The format that an Accept header likes best; null when it takes none of ours. */
export const formatOf = (accept: string | undefined): Format | null => {
  if (accept === undefined || accept.trim() === '') return 'json'
  let best: { format: Format; q: number } | null = null
  for (const part of accept.slice(0, 1_000).split(',')) {
    const [type = '', ...params] = part.split(';').map((p) => p.trim().toLowerCase())
    const format = Object.hasOwn(KNOWN, type) ? KNOWN[type]! : undefined
    const q = Number(params.find((p) => p.startsWith('q='))?.slice(2) ?? '1')
    if (format !== undefined && q > 0 && (best === null || q > best.q)) best = { format, q }
  }
  return best?.format ?? null
}

const field = (value: Scalar): string => {
  if (value === null) return ''
  const text = String(value)
  return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

const csv = (answer: Answer): string => {
  const names = answer.columns.map((c) => c.name)
  const lines = [names.map(field).join(',')]
  for (const row of answer.rows) lines.push(names.map((n) => field(row[n] ?? null)).join(','))
  return `${lines.join('\r\n')}\r\n`
}

export const writeAnswer = (answer: Answer, format: Format): string => {
  if (format === 'csv') return csv(answer)
  if (format === 'ndjson') return answer.rows.map((row) => `${JSON.stringify(row)}\n`).join('')
  return JSON.stringify(answer)
}

/** What CSV and NDJSON cannot carry in their bodies. */
export const answerHeaders = (answer: Answer): Record<string, string> => ({
  'weir-as-of': JSON.stringify(answer.asOf),
  ...(answer.truncated ? { 'weir-truncated': 'true' } : {}),
  ...(answer.timeRange ? { 'weir-time-range': `${answer.timeRange.from}/${answer.timeRange.to}` } : {}),
})
