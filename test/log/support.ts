/** What the LMDB log's tests share. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventLog, LogRecord, NewRecord } from '../../model/ports/event-log.ts'
import { genesis, type Position } from '../../model/position.ts'

const closers: (() => Promise<unknown>)[] = []
export const onCleanUp = (close: () => Promise<unknown>): void => void closers.push(close)
export const cleanUp = async (): Promise<void> => {
  for (const close of closers.splice(0).reverse()) await close()
}

export const tempFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-log-'))
  onCleanUp(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** The n-th record of a test: its id and bytes are functions of n (and of a size in bytes). */
export const record = (n: number, bytes = 0): NewRecord => ({
  recordId: createHash('sha256').update(`record ${n}`).digest('hex').slice(0, 32),
  bytes: Buffer.from(`{"n":${n},"pad":"${'x'.repeat(bytes)}"}\n`),
  events: 1,
})

export const readAll = async (log: EventLog, from?: Position, dataset = 'd', partition = 0): Promise<LogRecord[]> => {
  const { logId, startOffset } = await log.range(dataset, partition)
  let at = from ?? (await log.positionAt(dataset, partition, startOffset)) ?? genesis(logId)
  const found: LogRecord[] = []
  for (;;) {
    const result = await log.read(dataset, partition, at, { maxBytes: 1 << 20 })
    if (result.kind !== 'records') throw new Error(`the log answered ${result.kind}`)
    if (result.records.length === 0) return found
    found.push(...result.records)
    at = result.to
  }
}
