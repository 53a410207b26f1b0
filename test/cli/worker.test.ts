/** Recompute shards in child processes: a child that is too big or dies fails its shard only, with a word of what happened. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { ShardJob } from '../../batch-layer/shard.ts'
import { bytesOf, engineShare } from '../../cli/memory.ts'
import { examplesFolder } from '../../cli/package.ts'
import { loadProject } from '../../cli/project-files.ts'
import { childRunner } from '../../cli/worker-runner.ts'

test('sizes', () => {
  expect(bytesOf('1GB')).toBe(1e9)
  expect(bytesOf('1.5 GiB')).toBe(1.5 * 1024 ** 3)
  expect(engineShare(1e9)).toBe('550MB')
})

test('a shard without files, one whose input is missing, a child beyond its memory, a cancelled run', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-worker-'))
  try {
    const { views, datasets } = await loadProject(join(examplesFolder, 'starter'))
    const job = (key: string, files: { key: string; size: number; rows: number }[]): ShardJob => ({
      formatVersion: 1,
      kind: 'partials',
      recordKey: key,
      view: views[0]!,
      dataset: datasets[0]!,
      slots: 1,
      files,
      ranges: [{ partition: 0, from: 0, to: 10 }],
    })
    const runner = (memory: string) => childRunner({ place: { folder, s3: null }, memory, processes: 2, threads: 1 })
    const missing = job('jobs/b.json', [{ key: 'events/visits/none.parquet', size: 3, rows: 1 }])
    await expect(runner('1GB')([missing], {})).rejects.toMatchObject({ code: 'WEIR_LAKE_CORRUPT' })
    // Node alone is bigger than this.
    await expect(runner('20MB')([missing], {})).rejects.toMatchObject({
      code: 'WEIR_CLI_WORKER_MEMORY',
      retryable: true,
    })
    await expect(runner('1GB')([missing], { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
