/**
 * A dataset's definition is fixed by its first start: what is in the log and the lake was decoded by it.
 * Invariant: a server never runs with a definition under which stored events would be read differently.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'

type Meaning = Record<string, unknown>

/** What gives events their meaning; descriptions and files do not. */
const meaningOf = (d: Dataset): Meaning => ({
  columns: d.columns.map((c) => [c.name, c.type, c.unit ?? null, c.required]),
  eventTime: d.eventTime,
  eventTimeRange: [String(d.eventTimeRangeUs.from), String(d.eventTimeRangeUs.to)],
  id: d.id ?? null,
  dedupeWindowMs: d.dedupeWindowMs ?? null,
  key: d.key ?? null,
  extra: d.extra,
  partitions: d.partitions,
})

type Stored = { formatVersion: 1; meaning: Meaning }

/** Stores the definition at the first start; later ones compare. Throws WEIR_CLI_DATASET_CHANGED. */
export const guardDataset = async (dataDir: string, dataset: Dataset): Promise<void> => {
  const folder = join(dataDir, 'datasets')
  const path = join(folder, `${dataset.name}.json`)
  const meaning = meaningOf(dataset)
  let stored: Stored | null = null
  try {
    stored = JSON.parse(await readFile(path, 'utf8')) as Stored
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  if (stored === null) {
    await mkdir(folder, { recursive: true })
    const aside = `${path}.${process.pid}.tmp`
    await writeFile(aside, `${JSON.stringify({ formatVersion: 1, meaning } satisfies Stored)}\n`, { flush: true })
    await rename(aside, path)
    return
  }
  const changed = Object.keys(meaning).filter((k) => JSON.stringify(meaning[k]) !== JSON.stringify(stored.meaning[k]))
  if (stored.formatVersion === 1 && changed.length === 0) return
  const first = changed[0]
  throw new WeirError({
    code: 'WEIR_CLI_DATASET_CHANGED',
    message: `The definition of ${dataset.name} is not the one its stored events were read with: ${changed.join(', ') || 'its format'} changed.`,
    expected: first === undefined ? 'format 1' : `${first}: ${JSON.stringify(stored.meaning[first])}`,
    got: first === undefined ? `format ${stored.formatVersion}` : `${first}: ${JSON.stringify(meaning[first])}`,
    next: 'undo the change, or make a new dataset under another name (views may change freely)',
    file: dataset.file,
    line: 1,
  })
}
