/**
 * A dataset's definition is fixed by its first start: what is in the log and the lake was decoded by it.
 * It lies in the lake's store, where every process of a Weir sees it.
 * Invariant: a server never runs with a definition under which stored events would be read differently.
 */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'

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

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Only a missing file is a first start: one that cannot be read must never be written anew from the present definition. */
const parseStored = (text: string, key: string): Stored => {
  const found = (parse(text) ?? {}) as Partial<Record<keyof Stored, unknown>>
  const { formatVersion, meaning } = found
  if (formatVersion === 1 && typeof meaning === 'object' && meaning !== null) return found as Stored
  const newer = typeof formatVersion === 'number' && formatVersion > 1
  throw new WeirError({
    code: 'WEIR_CLI_DATASET_FILE',
    message: `The stored definition ${key} cannot be read.`,
    expected: 'an object with formatVersion 1 and the meaning of the dataset, as its first start wrote it',
    got: newer ? `format ${formatVersion}` : text === '' ? 'an empty file' : text.slice(0, 100),
    next: newer
      ? 'start the version of Weir that wrote it'
      : 'restore this object of the lake from a copy; do not delete it',
  })
}

/** Stores the definition at the first start; later ones compare. Throws WEIR_CLI_DATASET_CHANGED, WEIR_CLI_DATASET_FILE. */
export const guardDataset = async (store: ObjectStore, dataset: Dataset): Promise<void> => {
  const key = `datasets/${dataset.name}.json`
  const meaning = meaningOf(dataset)
  let bytes = await store.get(key)
  if (bytes === null) {
    const first = Buffer.from(`${JSON.stringify({ formatVersion: 1, meaning } satisfies Stored)}\n`)
    if ((await store.putIfAbsent(key, first)) === 'written') return
    bytes = (await store.get(key)) ?? new Uint8Array()
  }
  const stored = parseStored(Buffer.from(bytes).toString('utf8'), key)
  const changed = Object.keys(meaning).filter((k) => JSON.stringify(meaning[k]) !== JSON.stringify(stored.meaning[k]))
  const first = changed[0]
  if (first === undefined) return
  throw new WeirError({
    code: 'WEIR_CLI_DATASET_CHANGED',
    message: `The definition of ${dataset.name} is not the one its stored events were read with: ${changed.join(', ')} changed.`,
    expected: `${first}: ${JSON.stringify(stored.meaning[first])}`,
    got: `${first}: ${JSON.stringify(meaning[first])}`,
    next: 'undo the change, or make a new dataset under another name (views may change freely)',
    file: dataset.file,
    line: 1,
  })
}
