/**
 * Lines of a batch as files in memory, which is where the engine reads them.
 * Invariant: the k-th line of a file is the k-th event that was asked for, whatever blanks stood between them.
 */
import { closeSync, constants, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Dataset } from '../model/dataset.ts'
import type { Engine } from './engine.ts'
import { declaredNames, extraFields } from './extra-fields.ts'
import type { Lines } from './lines.ts'

const NEWLINE = 10

let files = 0
const scratchFile = (engine: Engine): string => join(engine.scratchDir, `events-${process.pid}-${files++}.ndjson`)

/** A file that is larger than this is not kept for the next batch. */
const MAX_KEPT_FILE = 40 * 1024 * 1024

/** Files that no batch uses now. Memory that a file has already is written again at a fraction of what new memory costs. */
const kept = new WeakMap<Engine, string[]>()

/** Writes lines into a file in memory for the time of `use`. */
export const withFile = async <T>(
  engine: Engine,
  lines: Lines,
  events: Int32Array,
  use: (file: string) => Promise<T>,
): Promise<T> => {
  const free = kept.get(engine) ?? []
  kept.set(engine, free)
  const file = free.pop() ?? scratchFile(engine)
  let size = Number.POSITIVE_INFINITY
  try {
    size = writeLines(file, lines, events)
    return await use(file)
  } finally {
    if (size <= MAX_KEPT_FILE && free.length === 0) free.push(file)
    else rmSync(file, { force: true })
  }
}

/** A piece of this size is written as it lies; smaller ones are copied together first. */
const PIECE = 32 * 1024
const buffer = Buffer.allocUnsafeSlow(8 * PIECE)

/** Writes the lines, each ended by a line break; returns the file's size. Synchronous: the buffer is shared. */
const writeLines = (file: string, lines: Lines, events: Int32Array): number => {
  // Written over in place, and cut at its end.
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o600)
  let size = 0
  let at = 0
  const write = (bytes: Buffer, from: number, to: number): void => {
    for (let done = from; done < to; ) {
      const written = writeSync(fd, bytes, done, to - done, size)
      done += written
      size += written
    }
  }
  try {
    for (let k = 0; k < events.length; k++) {
      // Neighbours with nothing but one line break between them go as one piece.
      const first = events[k]!
      const record = lines.record[first]!
      let last = first
      while (
        k + 1 < events.length &&
        events[k + 1] === last + 1 &&
        lines.record[last + 1] === record &&
        lines.start[last + 1] === lines.end[last]! + 1
      )
        last = events[++k]!
      const start = lines.start[first]!
      const end = lines.end[last]!
      const text = lines.texts[record]!
      if (at + end - start + 1 > buffer.length || end - start >= PIECE) {
        write(buffer, 0, at)
        at = 0
      }
      if (end - start >= PIECE) {
        if (text[end] === NEWLINE) {
          write(text, start, end + 1)
          continue
        }
        write(text, start, end)
      } else at += text.copy(buffer, at, start, end)
      buffer[at++] = NEWLINE
    }
    write(buffer, 0, at)
    ftruncateSync(fd, size)
  } finally {
    closeSync(fd)
  }
  return size
}

/** One line for each event: the object of its unknown fields. */
export const writeExtra = (engine: Engine, dataset: Dataset, lines: Lines, events: Int32Array): string => {
  const declared = declaredNames(dataset.columns.map((c) => c.name))
  const file = scratchFile(engine)
  let text = ''
  const fd = openSync(file, 'w')
  try {
    for (const n of events) {
      text += `${extraFields(lines.texts[lines.record[n]!]!, lines.start[n]!, lines.end[n]!, declared)}\n`
      if (text.length < EXTRA_CHUNK) continue
      writeText(fd, text)
      text = ''
    }
    writeText(fd, text)
  } finally {
    closeSync(fd)
  }
  return file
}

const EXTRA_CHUNK = 1 << 20
const writeText = (fd: number, text: string): void => {
  const bytes = Buffer.from(text)
  for (let from = 0; from < bytes.length; ) from += writeSync(fd, bytes, from)
}
