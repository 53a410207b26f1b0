/**
 * A dataset's definition is fixed by its first start: what is in the log and the lake was decoded by it. So is the origin: where a
 * topic of others began at that moment. Both lie in the lake's store, where every process of a Weir sees them.
 * Invariant: a server never runs with a definition under which stored events would be read differently, nor with another origin.
 */
import type { Dataset } from '../model/dataset.ts'
import { WeirError } from '../model/errors.ts'
import type { Origin } from '../model/ports/event-log.ts'
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

type Stored = { formatVersion: 1; meaning: Meaning; origin?: Origin }

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const isOrigin = (found: unknown): boolean => {
  const { logId, offsets } = (found ?? {}) as Partial<Record<keyof Origin, unknown>>
  if (typeof logId !== 'string' || typeof offsets !== 'object' || offsets === null) return false
  return Object.values(offsets).every((n) => Number.isSafeInteger(n) && (n as number) >= 0)
}

/** Only a missing file is a first start: one that cannot be read must never be written anew from the present definition. */
const parseStored = (text: string, key: string): Stored => {
  const found = (parse(text) ?? {}) as Partial<Record<keyof Stored, unknown>>
  const { formatVersion, meaning, origin } = found
  const isWhole = typeof meaning === 'object' && meaning !== null && (origin === undefined || isOrigin(origin))
  if (formatVersion === 1 && isWhole) return found as Stored
  const newer = typeof formatVersion === 'number' && formatVersion > 1
  throw new WeirError({
    code: 'WEIR_CLI_DATASET_FILE',
    message: `The stored definition ${key} cannot be read.`,
    expected: 'an object with formatVersion 1, the meaning of the dataset and its origin, as its first start wrote it',
    got: newer ? `format ${formatVersion}` : text === '' ? 'an empty file' : text.slice(0, 100),
    next: newer
      ? 'start the version of Weir that wrote it'
      : 'restore this object of the lake from a copy; do not delete it',
  })
}

/** The log and the speed store as a first start finds them. */
export type Present = {
  /** Where the log begins now; null: at its beginning. */
  origin(): Promise<Origin | null>
  /** Whether the speed store has state of that very log: then this is no first start. */
  hasState(logId: string): Promise<boolean>
}

export type Guarded = { origin: Origin | undefined; isNew: boolean }

/**
 * Stores the definition, with the origin, at the first start; later ones compare, and take the origin that is stored.
 * Throws WEIR_CLI_DATASET_CHANGED, WEIR_CLI_DATASET_FILE, WEIR_CLI_DATASET_FORGOTTEN.
 */
export const guardDataset = async (store: ObjectStore, dataset: Dataset, present: Present): Promise<Guarded> => {
  const key = `datasets/${dataset.name}.json`
  const meaning = meaningOf(dataset)
  let bytes = await store.get(key)
  if (bytes === null) {
    const origin = (await present.origin()) ?? undefined
    if (origin !== undefined && (await present.hasState(origin.logId))) {
      // Unless another process was quicker, the lake was lost, or is another one: to begin at the present start would hide that.
      bytes = await store.get(key)
      if (bytes === null) throw forgotten(dataset, origin)
    } else {
      const stored: Stored = { formatVersion: 1, meaning, ...(origin === undefined ? {} : { origin }) }
      if ((await store.putIfAbsent(key, Buffer.from(`${JSON.stringify(stored)}\n`))) === 'written')
        return { origin, isNew: true }
      bytes = (await store.get(key)) ?? new Uint8Array()
    }
  }
  const stored = parseStored(Buffer.from(bytes).toString('utf8'), key)
  const changed = Object.keys(meaning).filter((k) => JSON.stringify(meaning[k]) !== JSON.stringify(stored.meaning[k]))
  const first = changed[0]
  if (first === undefined) return { origin: stored.origin, isNew: false }
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

const forgotten = (dataset: Dataset, origin: Origin): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_DATASET_FORGOTTEN',
    message: `The speed store has state of ${dataset.name}, and the lake does not know it, while the start of its log is gone.`,
    expected: 'the lake that the records before the start of the log were archived to',
    got: `no definition, and a log that begins at ${JSON.stringify(origin.offsets)}`,
    next: 'name the lake it had (data folder, s3.bucket, s3.prefix), or bring it back from a copy; to begin anew on purpose, empty the speed store, or take another redis.prefix',
    file: dataset.file,
    line: 1,
  })
