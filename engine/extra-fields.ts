/**
 * Unknown fields of an event, cut out of its raw text: the engine would print their numbers through a double, the archive
 * keeps them as they were sent.
 * Invariant: for a line that the engine can read, the result is the JSON object of its undeclared members, in their order.
 * What it gives for other lines does not matter (they are dead), but it ends.
 */
const QUOTE = 34
const BACKSLASH = 92
const COMMA = 44
const COLON = 58
const CLOSE = 125

const isBlank = (byte: number | undefined): boolean => byte === 32 || byte === 9 || byte === 10 || byte === 13

/** Place behind the string that begins at `at`. */
const stringEnd = (text: Uint8Array, at: number, end: number): number => {
  let i = at + 1
  while (i < end && text[i] !== QUOTE) i += text[i] === BACKSLASH ? 2 : 1
  return Math.min(i + 1, end)
}

/** Place of the comma or brace behind the value that begins at `at`. */
const valueEnd = (text: Uint8Array, at: number, end: number): number => {
  let depth = 0
  for (let i = at; i < end; ) {
    const byte = text[i]!
    if (byte === QUOTE) {
      i = stringEnd(text, i, end)
      continue
    }
    if (byte === 123 || byte === 91) depth++
    else if (byte === CLOSE || byte === 93) {
      if (depth === 0) return i
      depth--
    } else if (byte === COMMA && depth === 0) return i
    i++
  }
  return end
}

const keyOf = (raw: string): string => {
  if (!raw.includes('\\')) return raw
  try {
    return JSON.parse(`"${raw}"`) as string
  } catch {
    return raw
  }
}

/** Text of the undeclared members as one object, '{}' when there are none. `declared` are ASCII names. */
export const extraFields = (text: Buffer, start: number, end: number, declared: Set<string>): string => {
  let out = ''
  let i = start + 1
  while (i < end) {
    while (i < end && (isBlank(text[i]) || text[i] === COMMA)) i++
    if (text[i] !== QUOTE) break
    const keyStart = i
    i = stringEnd(text, i, end)
    const keyEnd = i
    while (i < end && (isBlank(text[i]) || text[i] === COLON)) i++
    const from = i
    i = valueEnd(text, i, end)
    if (declared.has(keyOf(text.toString('latin1', keyStart + 1, keyEnd - 1)))) continue
    let to = i
    while (to > from && isBlank(text[to - 1])) to--
    out += `${out === '' ? '' : ','}${text.toString('utf8', keyStart, keyEnd)}:${text.toString('utf8', from, to)}`
  }
  return `{${out}}`
}
