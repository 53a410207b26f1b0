/** A dataset and events that the door's tests share. */
import type { Dataset } from '../../model/dataset.ts'

export const column = (name: string, type: string, more: { required?: boolean; unit?: 's' | 'ms' | 'us' } = {}) => ({
  name,
  type,
  required: more.required ?? false,
  ...(more.unit ? { unit: more.unit } : {}),
})

const RANGE = { from: 0n, to: 7_258_118_400_000_000n }

export const orders = (more: Partial<Dataset> = {}): Dataset => ({
  name: 'orders',
  columns: [
    column('id', 'VARCHAR'),
    column('ts', 'TIMESTAMPTZ'),
    column('user', 'VARCHAR'),
    column('amount', 'DECIMAL(18,2)'),
    column('n', 'INTEGER'),
    column('note', 'VARCHAR'),
  ],
  eventTime: 'ts',
  eventTimeRangeUs: RANGE,
  id: 'id',
  dedupeWindowMs: 3_600_000,
  extra: 'keep',
  partitions: 1,
  ...more,
})

export const event = (id: string | number, more: Record<string, unknown> = {}): string =>
  JSON.stringify({ id: String(id), ts: '2026-11-25T10:00:00Z', user: `u${id}`, amount: '1.50', ...more })

export const lines = (...events: string[]): Buffer => Buffer.from(events.map((e) => `${e}\n`).join(''))
