/**
 * Port: what is published. One chain of pointers per view version, one `active` pointer per view.
 * An implementation must promise: `publish` is a compare-and-set on the exact base (generation and hash); a version once
 * dropped stays dropped.
 */
import type { Cut } from '../position.ts'

export type PartFile = {
  key: string
  size: number
  sha256: string
  rows: number
  /** UTC day of the buckets inside ('2026-11-24'; 'none' for buckets that are NULL), or 'slot-<n>' for views without a bucket. */
  part: string
}

export type KeptGeneration = {
  generation: number
  lineage: string
  cut: Cut
  files: PartFile[]
  slots?: number
  publishedAt?: string
}

export type Pointer = {
  formatVersion: 1
  view: string
  version: string
  /** 1, 2, 3, …; generation 0 is "nothing published": no files, cut at genesis of every partition. */
  generation: number
  /** Hash of the base pointer's bytes; '' for generation 1. */
  baseHash: string
  cut: Cut
  /** The recompute generation it descends from; generation 1's own name for a chain that began with an extend. */
  lineage: string
  kind: 'extend' | 'recompute' | 'rollback' | 'catch-up'
  files: PartFile[]
  /** Number of slots that cells of a view without a bucket are spread over; absent: 1. */
  slots?: number
  /** Lineages known to be wrong: a roll back to one needs force. */
  suspectLineages: string[]
  /** Generations that are pinned for roll back, newest first. */
  kept: KeptGeneration[]
  engineVersion: string
  /** Append time independent; for people only. */
  publishedAt: string
  rowsTotal: number
}

export type Published = { pointer: Pointer; hash: string }

/** What serves and what is fed. */
export type VersionEntry = { view: string; version: string; sql: string; dropped: boolean }

export type Publications = {
  /** Latest pointer of a version; null before the first publish; 'dropped' after a tombstone. */
  current(view: string, version: string): Promise<Published | null | 'dropped'>
  /** Publishes `next` iff `next.generation` is base + 1 and the base's bytes hash to `next.baseHash`. */
  publish(next: Pointer): Promise<'published' | 'stale' | 'dropped'>
  /** Registers a version (idempotent) with its SQL, so that workers feed it. */
  register(view: string, version: string, sql: string): Promise<void>
  versions(): Promise<VersionEntry[]>
  /** The version that serves; null when the view is unknown. `token` goes into `activate`. */
  active(view: string): Promise<{ version: string; token: string } | null>
  activate(view: string, version: string, expectedToken: string | null): Promise<'activated' | 'stale'>
  drop(view: string, version: string): Promise<void>
  /** A lease that extends of a version honour; it only orders who tries. Null: somebody else holds it. */
  claim(view: string, version: string, holder: string, ttlMs: number): Promise<boolean>
  claimedBy(view: string, version: string): Promise<string | null>
  release(view: string, version: string, holder: string): Promise<void>
}
