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

/** Whether the bytes are the name. */
const isName = (text: Uint8Array, from: number, to: number, name: Uint8Array): boolean => {
  if (to - from !== name.length) return false
  for (let i = 0; i < name.length; i++) if (text[from + i] !== name[i]) return false
  return true
}

/** A key that is written with escapes, as text; null when it has none. */
const escapedKey = (text: Buffer, from: number, to: number): string | null => {
  let at = from
  while (at < to && text[at] !== BACKSLASH) at++
  if (at === to) return null
  try {
    return JSON.parse(`"${text.toString('utf8', from, to)}"`) as string
  } catch {
    return null
  }
}

export type Declared = { names: Uint8Array[]; texts: Set<string> }

/** Names of declared columns: ASCII. */
export const declaredNames = (names: string[]): Declared => ({
  names: names.map((n) => Buffer.from(n)),
  texts: new Set(names),
})

/** Text of the undeclared members as one object, '{}' when there are none. */
export const extraFields = (text: Buffer, start: number, end: number, declared: Declared): string => {
  const { names, texts } = declared
  let out = ''
  // Members mostly come in the order of the definition: the next name is tried first.
  let guess = 0
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
    let known = false
    for (let k = 0; k < names.length && !known; k++) {
      known = isName(text, keyStart + 1, keyEnd - 1, names[guess]!)
      guess = guess + 1 === names.length ? 0 : guess + 1
    }
    if (known) continue
    const key = escapedKey(text, keyStart + 1, keyEnd - 1)
    if (key !== null && texts.has(key)) continue
    let to = i
    while (to > from && isBlank(text[to - 1])) to--
    out += `${out === '' ? '' : ','}${text.toString('utf8', keyStart, keyEnd)}:${text.toString('utf8', from, to)}`
  }
  return `{${out}}`
}
