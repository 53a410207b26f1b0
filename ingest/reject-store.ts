/**
 * The bounded store of rejected events: NDJSON segments in a folder, the oldest dropped first.
 * Invariant: kept + overflowed = all that were ever added (also across restarts and a kill at any moment between two
 * writes), and the segments never take more than `maxBytes` by more than one addition.
 *
 * Files: `rejects-<n>.ndjson`, n ascending; `overflow.json` = { formatVersion, droppedUpTo, overflowed: { dataset: n } }.
 * Not fsynced: a reject was answered to its client; a power failure may lose the youngest.
 */
import { appendFile, mkdir, open, readdir, readFile, rename, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { WeirError } from '../model/errors.ts'
import type { Reject, RejectStore } from '../model/ports/rejects.ts'

export type RejectStoreOptions = { folder: string; maxBytes: number }

type Segment = { n: number; bytes: number; kept: Record<string, number> }
type Overflow = { formatVersion: 1; droppedUpTo: number; overflowed: Record<string, number> }

/** The bound is kept by dropping whole segments: a sixteenth of it at a time. */
const SEGMENTS = 16
const LINE_FEED = 10

const fileOf = (folder: string, n: number): string => join(folder, `rejects-${String(n).padStart(10, '0')}.ndjson`)

const counted = (into: Record<string, number>, dataset: string, n: number): void => {
  into[dataset] = (Object.hasOwn(into, dataset) ? into[dataset]! : 0) + n
}

/** Opens (or creates) the store. Throws WEIR_INGEST_REJECTS_FORMAT for data of a newer version. */
export const openRejectStore = async ({ folder, maxBytes }: RejectStoreOptions): Promise<RejectStore> => {
  await mkdir(folder, { recursive: true })
  const overflow = await readOverflow(folder)
  const segments = await readSegments(folder, overflow.droppedUpTo)
  const segmentBytes = Math.max(1, Math.floor(maxBytes / SEGMENTS))
  let work: Promise<unknown> = Promise.resolve()
  const inTurn = <T>(job: () => Promise<T>): Promise<T> => {
    const result = work.then(job)
    work = result.then(
      () => undefined,
      () => undefined,
    )
    return result
  }
  const saveOverflow = async (): Promise<void> => {
    const path = join(folder, 'overflow.json')
    // On the disk before it takes the old one's place: an empty file would be all that a power failure leaves.
    await writeFile(`${path}.new`, JSON.stringify(overflow), { flush: true })
    await rename(`${path}.new`, path)
  }
  /** Drops oldest segments until what is kept fits: first the count, then the file, so that a kill between loses nothing. */
  const dropOldest = async (): Promise<void> => {
    let total = segments.reduce((sum, s) => sum + s.bytes, 0)
    while (total > maxBytes && segments.length > 1) {
      const [oldest] = segments as [Segment]
      for (const [dataset, n] of Object.entries(oldest.kept)) counted(overflow.overflowed, dataset, n)
      overflow.droppedUpTo = oldest.n
      await saveOverflow()
      segments.shift()
      total -= oldest.bytes
      await unlink(fileOf(folder, oldest.n))
    }
  }
  const write = async (rejects: Reject[]): Promise<void> => {
    let lines: string[] = []
    let bytes = 0
    const tooBig: Reject[] = []
    const flush = async (): Promise<void> => {
      if (lines.length === 0) return
      const segment = segments.at(-1)!
      await appendFile(fileOf(folder, segment.n), lines.join(''))
      segment.bytes += bytes
      lines = []
      bytes = 0
    }
    for (const reject of rejects) {
      const line = `${JSON.stringify(reject)}\n`
      const size = Buffer.byteLength(line)
      if (size > segmentBytes) {
        tooBig.push(reject)
        continue
      }
      const last = segments.at(-1)
      if (last === undefined || last.bytes + bytes + size > segmentBytes) {
        await flush()
        segments.push({ n: (last?.n ?? overflow.droppedUpTo) + 1, bytes: 0, kept: Object.create(null) })
        await dropOldest()
      }
      lines.push(line)
      bytes += size
      counted(segments.at(-1)!.kept, reject.dataset, 1)
    }
    await flush()
    await dropOldest()
    if (tooBig.length > 0) {
      for (const { dataset } of tooBig) counted(overflow.overflowed, dataset, 1)
      await saveOverflow()
    }
  }
  return {
    add: (rejects) => (rejects.length === 0 ? Promise.resolve() : inTurn(() => write(rejects))),
    list: (dataset, limit) =>
      inTurn(async () => {
        const found: Reject[] = []
        for (let i = segments.length - 1; i >= 0 && found.length < limit; i--) {
          const lines = (await readFile(fileOf(folder, segments[i]!.n), 'utf8')).split('\n')
          for (let j = lines.length - 1; j >= 0 && found.length < limit; j--) {
            const reject = parseLine(lines[j]!)
            if (reject?.dataset === dataset) found.push(reject)
          }
        }
        return found
      }),
    counts: (dataset) =>
      inTurn(async () => ({
        kept: segments.reduce((sum, s) => sum + (Object.hasOwn(s.kept, dataset) ? s.kept[dataset]! : 0), 0),
        overflowed: Object.hasOwn(overflow.overflowed, dataset) ? overflow.overflowed[dataset]! : 0,
      })),
    close: () => inTurn(async () => undefined),
  }
}

const readOverflow = async (folder: string): Promise<Overflow> => {
  const path = join(folder, 'overflow.json')
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return { formatVersion: 1, droppedUpTo: 0, overflowed: Object.create(null) }
  }
  let stored: Overflow
  try {
    stored = JSON.parse(text) as Overflow
  } catch (cause) {
    throw new WeirError({
      code: 'WEIR_INGEST_REJECTS_FORMAT',
      message: 'The counts of the store of rejected events are damaged.',
      expected: 'JSON',
      got: text.slice(0, 80) || 'an empty file',
      next: 'remove the folder of rejected events: they were answered to their clients; its counts begin anew',
      file: path,
      cause,
    })
  }
  if (stored.formatVersion !== 1)
    throw new WeirError({
      code: 'WEIR_INGEST_REJECTS_FORMAT',
      message: `The store of rejected events has format ${stored.formatVersion}, which this version of Weir does not know.`,
      expected: 'format 1',
      got: String(stored.formatVersion),
      next: 'start the newer version of Weir that wrote it',
      file: path,
    })
  return { ...stored, overflowed: Object.assign(Object.create(null), stored.overflowed) }
}

/** Segments with their counts; those already counted as dropped are removed, a torn last line is cut off. */
const readSegments = async (folder: string, droppedUpTo: number): Promise<Segment[]> => {
  const segments: Segment[] = []
  for (const name of (await readdir(folder)).sort()) {
    const n = Number(/^rejects-(\d{10})\.ndjson$/.exec(name)?.[1] ?? Number.NaN)
    if (Number.isNaN(n)) continue
    const path = fileOf(folder, n)
    if (n <= droppedUpTo) {
      await unlink(path)
      continue
    }
    const handle = await open(path, 'r')
    const bytes = await handle.readFile().finally(() => handle.close())
    const whole = bytes.lastIndexOf(LINE_FEED) + 1
    if (whole < bytes.byteLength) await truncate(path, whole)
    const kept: Record<string, number> = Object.create(null)
    for (const line of bytes.toString('utf8', 0, whole).split('\n')) {
      const reject = parseLine(line)
      if (reject !== null) counted(kept, reject.dataset, 1)
    }
    segments.push({ n, bytes: whole, kept })
  }
  return segments
}

const parseLine = (line: string): Reject | null => {
  if (line === '') return null
  try {
    return JSON.parse(line) as Reject
  } catch {
    return null
  }
}
