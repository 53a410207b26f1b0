/** Runs the oracle over the source with one planted fault, bundled: loading a copy of the tree would cost more than the schedules. */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import type { Canary } from './canaries.ts'

const ROOT = join(import.meta.dirname, '..', '..')

export type CanaryResult = { caught: boolean; output: string }

/** The source with the fault in it. Throws when a text of the canary is not in its file exactly once. */
const planted = (canary: Canary): Plugin => {
  const edits = [canary, ...(canary.also ?? [])]
  return {
    name: 'canary',
    setup: ({ onLoad }) => {
      onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const own = edits.filter(({ file }) => join(ROOT, file) === path)
        if (own.length === 0) return null
        let contents = await readFile(path, 'utf8')
        for (const { file, find, replace } of own) {
          const times = contents.split(find).length - 1
          if (times !== 1) throw new Error(`canary "${canary.name}": its text is ${times} times in ${file}, not once`)
          contents = contents.replace(find, () => replace)
        }
        return { contents, loader: 'ts' }
      })
    },
  }
}

export const runCanary = async (
  canary: Canary,
  options: { seeds: number; from?: number; deadlineMs: number },
): Promise<CanaryResult> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-canary-'))
  try {
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
    const outfile = join(folder, 'oracle.mjs')
    await build({
      entryPoints: [join(ROOT, 'test/oracle/run.ts')],
      outfile,
      bundle: true,
      packages: 'external',
      platform: 'node',
      format: 'esm',
      logLevel: 'silent',
      plugins: [planted(canary)],
    })
    const args = [outfile, '--quick', '--seeds', String(options.seeds), '--from', String(options.from ?? 1)]
    const child = spawn(process.execPath, args, {
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
