/** Runs the oracle on a copy of the tree with one planted fault. */
import { spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Canary } from './canaries.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const COPIED = [
  'model',
  'engine',
  'log',
  'speed-layer',
  'lake',
  'batch-layer',
  'serving-layer',
  'test/oracle',
  'test/support',
]
const FILES = ['cli/random.ts', 'package.json', 'tsconfig.json']

export type CanaryResult = { caught: boolean; output: string }

/** Throws when the canary's text is not in the source exactly once. */
export const plant = async (canary: Canary, root: string): Promise<void> => {
  for (const { file, find, replace } of [canary, ...(canary.also ?? [])]) {
    const path = join(root, file)
    const text = await readFile(path, 'utf8')
    const times = text.split(find).length - 1
    if (times !== 1) throw new Error(`canary "${canary.name}": its text is ${times} times in ${file}, not once`)
    const planted = text.replace(find, () => replace)
    await writeFile(path, planted)
  }
}

export const runCanary = async (
  canary: Canary,
  options: { seeds: number; from?: number; deadlineMs: number },
): Promise<CanaryResult> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-canary-'))
  try {
    for (const path of COPIED) await cp(join(ROOT, path), join(folder, path), { recursive: true })
    for (const path of FILES) await cp(join(ROOT, path), join(folder, path))
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
    await plant(canary, folder)
    const args = ['--import', 'tsx', 'test/oracle/run.ts', '--quick', '--seeds', String(options.seeds)]
    const child = spawn(process.execPath, [...args, '--from', String(options.from ?? 1)], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.deadlineMs,
      killSignal: 'SIGKILL',
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)))
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
    // Exit code 1 and the oracle's own words (or an assertion of the map's): a copy that does not even run has caught nothing.
    const found = /^seed \d+ fails.*\n(Difference:|WeirError:|Error: a change was made on another state)/m.test(output)
    return { caught: code === 1 && found, output }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
