/**
 * Lines of a batch as files in memory, which is where the engine reads them.
 * Invariant: the k-th line of a file is the k-th event that was asked for, whatever blanks stood between them.
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Dataset } from '../model/dataset.ts'
import type { Engine } from './engine.ts'
import { declaredNames, extraFields } from './extra-fields.ts'
import type { Lines } from './lines.ts'

const NEWLINE = 10
/** A buffer for writing that is larger than this is not kept. */
const MAX_KEPT_BUFFER = 64 * 1024 * 1024

let files = 0
const scratchFile = (engine: Engine): string => join(engine.scratchDir, `events-${process.pid}-${files++}.ndjson`)

/** Writes lines into a file in memory for the time of `use`. */
export const withFile = async <T>(
  engine: Engine,
  lines: Lines,
  events: Int32Array,
  use: (file: string) => Promise<T>,
): Promise<T> => {
  const file = scratchFile(engine)
  writeLines(file, lines, events)
  try {
    return await use(file)
  } finally {
    unlinkSync(file)
  }
}

let buffer = Buffer.allocUnsafeSlow(1 << 16)

/** Copies the lines into one buffer, each ended by a line break, and writes that. Synchronous: the buffer is shared. */
const writeLines = (file: string, lines: Lines, events: Int32Array): void => {
  let size = 0
  for (let k = 0; k < events.length; k++) size += lines.end[events[k]!]! - lines.start[events[k]!]! + 1
  if (buffer.length < size)
    buffer = Buffer.allocUnsafeSlow(Math.max(size, Math.min(buffer.length * 2, MAX_KEPT_BUFFER)))
  const out = buffer
  let at = 0
  for (let k = 0; k < events.length; k++) {
    // Neighbours with nothing but one line break between them go as one piece.
    const first = events[k]!
    let last = first
    while (
      k + 1 < events.length &&
      events[k + 1] === last + 1 &&
      lines.record[last + 1] === lines.record[first] &&
      lines.start[last + 1] === lines.end[last]! + 1
    )
      last = events[++k]!
    const end = lines.end[last]!
    const text = lines.texts[lines.record[first]!]!
    at += text.copy(out, at, lines.start[first]!, end)
    out[at++] = NEWLINE
  }
  const fd = openSync(file, 'w')
  try {
    for (let from = 0; from < at; ) from += writeSync(fd, out, from, at - from)
  } finally {
    closeSync(fd)
  }
  if (buffer.length > MAX_KEPT_BUFFER) buffer = Buffer.allocUnsafeSlow(1 << 16)
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
