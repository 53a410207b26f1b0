/** The LMDB speed store on a full disk: what is refused is not stored, nothing rejects unheard, applies come back. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

/** Can this machine give a process a small disk of its own? (Needs root.) */
const smallDisk = process.platform === 'linux' && spawnSync('unshare', ['-m', 'true']).status === 0

test.skipIf(!smallDisk)('a full disk takes no apply halfway, and ends no process', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-full-'))
  try {
    const script =
      'mount -t tmpfs -o size=4m none "$1" && exec "$2" --import tsx test/speed-layer/full-disk.ts "$1" 2>&1'
    const child = spawn('unshare', ['-m', 'sh', '-c', script, 'sh', folder, process.execPath], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let out = ''
    child.stdout.on('data', (data) => {
      out += data
    })
    const code = await new Promise((resolve) => child.on('close', resolve))
    expect([code, out.trim().split('\n').at(-1)], out).toEqual([0, 'ok'])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
