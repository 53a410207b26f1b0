/**
 * What a recompute leaves in the lake's store while it runs: the plan, and the result of each finished shard.
 * Invariants: a job that was killed is found again and continued from its records; until it ends, the records pin its unpublished files
 * and the lake files that it reads; a record of another definition or engine is superseded, never continued.
 *
 * Keys: `jobs/recompute/<view>/<version>/<id>/job.json`, `…/shard-<n>.json`, `…/merge-<n>.json`, or `…/whole-0.json` for a single shard.
 */
import { createHash } from 'node:crypto'
import type { OffsetRange } from '../lake/scan.ts'
import { seal, unseal } from '../lake/sealed.ts'
import { WeirError } from '../model/errors.ts'
import type { ObjectStore } from '../model/ports/object-store.ts'
import type { PartFile } from '../model/ports/publications.ts'
import type { Cut } from '../model/position.ts'
import type { View } from '../model/view.ts'
import type { InputFile, ShardResult } from './shard.ts'

export type JobRecord = {
  formatVersion: 1
  id: string
  view: string
  version: string
  /** Hash of the compiled view and the engine's version: results of another one are of no use. */
  meaning: string
  cut: Cut
  ranges: OffsetRange[]
  /** Lake files of each shard. */
  shards: InputFile[][]
  slots: number
  startedAt: string
}

const ROOT = 'jobs/recompute/'
const folderOf = (view: { name: string; version: string }): string => `${ROOT}${view.name}/${view.version}/`

export const meaningOf = (view: View, engineVersion: string): string =>
  createHash('sha256')
    .update(JSON.stringify([view, engineVersion], (_k, v: unknown) => (typeof v === 'bigint' ? `${v}n` : v)))
    .digest('hex')

export const recordKey = (job: JobRecord, kind: 'shard' | 'merge' | 'whole', n: number): string =>
  `${ROOT}${job.view}/${job.version}/${job.id}/${kind}-${n}.json`

const planKey = (view: string, version: string, id: string): string => `${ROOT}${view}/${version}/${id}/job.json`

export const writeJob = async (store: ObjectStore, job: JobRecord): Promise<void> => {
  await store.putIfAbsent(planKey(job.view, job.version, job.id), seal(job))
}

/** Unfinished jobs of a version, newest first. */
export const findJobs = async (store: ObjectStore, view: { name: string; version: string }): Promise<JobRecord[]> => {
  const jobs: JobRecord[] = []
  for (const { key } of await store.list(folderOf(view))) {
    if (!key.endsWith('/job.json')) continue
    const bytes = await store.get(key)
    if (bytes === null) continue
    const job = whole<JobRecord>(bytes, key)
    // A damaged plan cannot be continued, and must not keep others from running: its files are unpinned.
    if (job === null) await store.delete(key)
    else jobs.push(job)
  }
  return jobs.sort((a, b) => (a.startedAt < b.startedAt ? 1 : -1))
}

const whole = <T extends { formatVersion: number }>(bytes: Uint8Array, key: string): T | null => {
  try {
    return unseal<T>(bytes, key)
  } catch (error) {
    if (error instanceof WeirError && error.code === 'WEIR_LAKE_CORRUPT') return null
    throw error
  }
}

/** Whether every record of a job, and every file that one names, is as it was written. */
export const recordsAreWhole = async (store: ObjectStore, job: JobRecord): Promise<boolean> => {
  for (const { key } of await store.list(`${ROOT}${job.view}/${job.version}/${job.id}/`)) {
    const bytes = await store.get(key)
    if (bytes === null || key.endsWith('/job.json')) continue
    const record = whole<ShardResult>(bytes, key)
    if (record === null) return false
    for (const file of record.files) if (!(await isWhole(store, file))) return false
  }
  return true
}

const isWhole = async (store: ObjectStore, file: PartFile): Promise<boolean> => {
  try {
    await store.localFile(file.key, file)
    return true
  } catch (error) {
    if (error instanceof WeirError && error.code === 'WEIR_LAKE_CORRUPT') return false
    throw error
  }
}

/** Ends a job: its plan goes first, so that half a record is never continued. Its files are unpinned, not deleted. */
export const endJob = async (store: ObjectStore, job: JobRecord): Promise<void> => {
  await store.delete(planKey(job.view, job.version, job.id))
  for (const { key } of await store.list(`${ROOT}${job.view}/${job.version}/${job.id}/`)) await store.delete(key)
}

/** Every key that an unfinished job needs: its inputs and the files of its finished shards. Records without a plan are removed. */
export const pinnedByJobs = async (store: ObjectStore): Promise<Set<string>> => {
  const pinned = new Set<string>()
  const listed = await store.list(ROOT)
  const planned = new Set(listed.map((o) => o.key).filter((key) => key.endsWith('/job.json')))
  for (const { key } of listed) {
    const bytes = await store.get(key)
    if (bytes === null) continue
    if (planned.has(key)) {
      for (const file of unseal<JobRecord>(bytes, key).shards.flat()) pinned.add(file.key)
    } else if (planned.has(`${key.slice(0, key.lastIndexOf('/'))}/job.json`)) {
      for (const file of unseal<ShardResult>(bytes, key).files) pinned.add(file.key)
    } else await store.delete(key)
  }
  return pinned
}
