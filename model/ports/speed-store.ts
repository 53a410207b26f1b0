/**
 * Port: the speed store. Per (dataset, partition) one header and, per view version and epoch, blocks of cells.
 *
 * An implementation must promise, for every call below: all or nothing, decided by compare-and-set on the stored
 * position (log id, offset, fingerprint). Values are absolute, so a re-send is harmless. An epoch is named by the
 * position it starts from, never by a counter (rule 2). Unknown outcome (a thrown error) = re-read, never re-send blindly.
 */
import type { Position } from '../position.ts'

export type StoreKey = { dataset: string; partition: number }

/** One piece of an epoch's cells. `hash`: first 32 hex digits of SHA-256 over id, a zero byte and the bytes. */
export type Block = { id: string; bytes: Uint8Array; hash: string }

export type Epoch = {
  from: Position
  to: Position
  /** Number of blocks, and the XOR (32 hex digits) of their hashes: what a reader must have seen to trust the epoch. */
  blocks: number
  digest: string
}

export type ViewHeader = {
  /** Ascending and contiguous; the last one is open: its `to` is the header's position. */
  epochs: Epoch[]
  /** Epochs whose blocks are to be deleted by whoever sees them. */
  retiring: Position[]
  /** A cut asked beyond the position: apply may not cross it. */
  requestedCut?: number
}

export type Header = {
  formatVersion: 1
  position: Position
  /** Cumulative over the partition, for all records below the position. */
  counted: number
  duplicate: number
  dead: number
  /** Greatest event time (µs) not after its append time, as text; null when none. A claim about event time only. */
  watermarkUs: string | null
  views: Record<string, ViewHeader>
}

export type EpochWrite = {
  /** Name of the open epoch. */ epoch: Position
  blocks: Block[]
  blockCount: number
  digest: string
}

export type Apply = {
  from: Position
  to: Position
  counted: number
  duplicate: number
  dead: number
  watermarkUs: string | null
  /** Must name every version of the header; a version without changed cells has an empty `blocks`. */
  views: Record<string, EpochWrite>
}

/** 'duplicate': stored position is already `to` or after it in offset; 'gap': it is before `from`; 'boundary': `to` crosses a
 *  requested cut; 'stale': anything else: it lies between `from` and `to`, has another fingerprint or log id, another epoch is
 *  open, the header is missing, or has another set of versions. An apply that reaches a requested cut exactly makes the cut in
 *  the same commit. */
export type ApplyOutcome = 'applied' | 'duplicate' | 'gap' | 'boundary' | 'stale'

export type ChangelogEntry = {
  /** For each version the epoch (its starting position) that the blocks belong to (rule 18). */
  from: Position
  to: Position
  views: Record<string, { epoch: Position; blocks: string[] }>
}

export type SpeedStore = {
  /** Null when there is none, or it is damaged: lost either way, never offset 0. */
  header(key: StoreKey): Promise<Header | null>
  /** Writes a fresh header (its epochs are empty) and deletes all blocks of the key, iff the stored header's position is `expected` (null: no header). */
  rebuild(key: StoreKey, expected: Position | null, header: Header): Promise<'applied' | 'stale'>
  apply(key: StoreKey, apply: Apply): Promise<ApplyOutcome>
  /** Adds (or replaces) all epochs of one version, with their blocks, iff the stored position is `at`; the last epoch's `to` must be `at`. */
  install(
    key: StoreKey,
    at: Position,
    version: string,
    epochs: { epoch: Epoch; blocks: Block[] }[],
  ): Promise<'applied' | 'stale'>
  /**
   * Closes the version's open epoch at max(desired, position) and opens the next one there.
   * desired ≤ position: returns the new cut. An epoch that starts at the position is returned as it is, and so is one, other than
   * the first, that starts at `desired`: this cut was made before (a lost reply, or a request that has been reached).
   * desired > position: stores the request (the nearest of several), so that no apply crosses it, and returns 'pending': ask again.
   * No header or version: 'missing'. 'Cut where you are' is desired 0.
   */
  cut(key: StoreKey, version: string, desired: number): Promise<Position | 'pending' | 'missing'>
  /** Moves epochs with `to.offset ≤ upTo.offset` (never the open one) to `retiring`. */
  retire(key: StoreKey, version: string, upTo: Position): Promise<void>
  /** Deletes a bounded number of blocks of retiring epochs and clears those that are empty; true when nothing is left. */
  sweep(key: StoreKey, limit: number): Promise<boolean>
  /** Removes a dropped version's header entry and blocks. */
  dropVersion(key: StoreKey, version: string): Promise<void>
  /** All blocks of one epoch, or only the named ones. The reader checks them against the header's digest. */
  blocks(key: StoreKey, version: string, epoch: Position, ids?: string[]): Promise<Block[]>
  /** Entries with `from.offset ≥ offset`, in order; the log is short, so the first one may start later. */
  changelog(key: StoreKey, offset: number): Promise<ChangelogEntry[]>
  close(): Promise<void>
}
