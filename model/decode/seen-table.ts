/**
 * A table from 128-bit hashes to times: open addressing with linear probing in typed arrays, 24 bytes a slot.
 * Invariant: a hash is in the table iff it was put and not purged since; of a hash the last time put is kept.
 *
 * Hashes must be uniform (MD5, SHA-256): the first word alone chooses the slot, by multiplication rather than by mask, so
 * that a table can have just the size that its cap needs. Four zeros mark a free slot; a hash of zeros is kept as 0 0 0 1.
 */
export type HashTable = {
  /** Six words a slot: the hash, then the time; so that a probe that hits touches one place in memory. */
  keys: Uint32Array
  /** The same memory as doubles: the time of a slot is at slot × 3 + 2. */
  times: Float64Array
  slots: number
  size: number
}

const STRIDE = 6

const FIRST_SLOTS = 64
const MAX_LOAD = 0.8

/** Slots that hold `entries` within the load that probing bears. */
export const slotsFor = (entries: number): number => Math.max(FIRST_SLOTS, Math.ceil(entries / MAX_LOAD) + 1)

export const createTable = (slots = FIRST_SLOTS): HashTable => {
  const memory = new ArrayBuffer(slots * STRIDE * 4)
  return { keys: new Uint32Array(memory), times: new Float64Array(memory), slots, size: 0 }
}

export const timeAt = (table: HashTable, slot: number): number => table.times[slot * 3 + 2]!

/** Entries that the table takes before it has to grow. */
export const roomOf = (table: HashTable): number => Math.floor(table.slots * MAX_LOAD)

const home = (word: number, slots: number): number => Math.floor(word * 2 ** -32 * slots)

const fourth = (words: Uint32Array, at: number): number =>
  words[at + 3]! || (words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 ? 1 : 0)

/** Slot of a hash (four words of `words` from `at`), or −1 − (the free slot where it would go). */
export const find = (table: HashTable, words: Uint32Array, at: number): number => {
  const { keys, slots } = table
  const a = words[at]!
  const b = words[at + 1]!
  const c = words[at + 2]!
  const d = fourth(words, at)
  let slot = home(a, slots)
  for (;;) {
    const k = slot * STRIDE
    const ka = keys[k]!
    const kb = keys[k + 1]!
    if (ka === a && kb === b && keys[k + 2] === c && keys[k + 3] === d) return slot
    if (ka === 0 && kb === 0 && keys[k + 2] === 0 && keys[k + 3] === 0) return -1 - slot
    if (++slot === slots) slot = 0
  }
}

/** Time of a hash, or −Infinity. */
export const timeOf = (table: HashTable, words: Uint32Array, at: number): number => {
  const slot = find(table, words, at)
  return slot < 0 ? Number.NEGATIVE_INFINITY : timeAt(table, slot)
}

/** Puts a hash at what `find` answered for it. The caller has made room before that. */
export const putAt = (table: HashTable, found: number, words: Uint32Array, at: number, time: number): void => {
  if (found >= 0) {
    table.times[found * 3 + 2] = time
    return
  }
  const slot = -1 - found
  const k = slot * STRIDE
  table.keys[k] = words[at]!
  table.keys[k + 1] = words[at + 1]!
  table.keys[k + 2] = words[at + 2]!
  table.keys[k + 3] = fourth(words, at)
  table.times[slot * 3 + 2] = time
  table.size++
}

/** Sets a hash's time. The caller has made room. */
export const put = (table: HashTable, words: Uint32Array, at: number, time: number): void =>
  putAt(table, find(table, words, at), words, at, time)

const isFree = (keys: Uint32Array, slot: number): boolean => {
  const k = slot * STRIDE
  return keys[k] === 0 && keys[k + 1] === 0 && keys[k + 2] === 0 && keys[k + 3] === 0
}

/** Calls `visit` for each entry with its place in `keys` and its time. */
export const forEach = (table: HashTable, visit: (at: number, time: number) => void): void => {
  for (let slot = 0; slot < table.slots; slot++)
    if (!isFree(table.keys, slot)) visit(slot * STRIDE, timeAt(table, slot))
}

/** The same entries in another number of slots. */
export const resize = (table: HashTable, slots: number): void => {
  const wider = createTable(slots)
  forEach(table, (at, time) => put(wider, table.keys, at, time))
  table.keys = wider.keys
  table.times = wider.times
  table.slots = slots
}

export const countAfter = (table: HashTable, time: number): number => {
  let count = 0
  forEach(table, (_, t) => {
    if (t > time) count++
  })
  return count
}

/** Removes entries whose time is not after `time`. In place: a purge needs no second table. */
export const purge = (table: HashTable, time: number): void => {
  const { keys, slots } = table
  // Begins behind a free slot, so that no run of neighbours is entered in its middle.
  let start = 0
  while (start < slots && !isFree(keys, start)) start++
  for (let step = 1; step <= slots; step++) {
    const slot = (start + step) % slots
    while (!isFree(keys, slot) && timeAt(table, slot) <= time) remove(table, slot)
  }
}

/** Backward shift: entries behind the gap move up unless that would put them before their home. */
const remove = (table: HashTable, slot: number): void => {
  const { keys, slots } = table
  let gap = slot
  let next = slot
  for (;;) {
    if (++next === slots) next = 0
    if (isFree(keys, next)) break
    const at = home(keys[next * STRIDE]!, slots)
    const fromHome = next >= at ? next - at : next - at + slots
    const fromGap = next >= gap ? next - gap : next - gap + slots
    if (fromHome < fromGap) continue
    keys.copyWithin(gap * STRIDE, next * STRIDE, (next + 1) * STRIDE)
    gap = next
  }
  keys.fill(0, gap * STRIDE, (gap + 1) * STRIDE)
  table.size--
}
