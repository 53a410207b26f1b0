/**
 * Compiles the working copy, benchmark and all, so that what is measured is what the product runs: plain JavaScript, no
 * loader in the process. Types are checked elsewhere. The folder has what the package needs to find itself.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const ROOMS = 'model engine log http ingest speed-layer lake batch-layer serving-layer cli bench'.split(' ')

/** Returns the folder with the compiled rooms, which goes when this process ends. Throws when nothing comes out. */
export const build = (): string => {
  // Of this process alone: two benchmarks at a time disturb each other's figures, not their code.
  const out = join(ROOT, 'node_modules', '.cache', `weir-bench-${process.pid}`)
  process.once('exit', () => rmSync(out, { recursive: true, force: true }))
  mkdirSync(join(out, 'examples'), { recursive: true })
  copyFileSync(join(ROOT, 'package.json'), join(out, 'package.json'))
  const config = join(out, 'tsconfig.json')
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: {
        noEmit: false,
        noCheck: true,
        outDir: out,
        rootDir: ROOT,
        sourceMap: false,
        declaration: false,
      },
      include: ROOMS.map((room) => join(ROOT, room)),
    }),
  )
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
  const done = spawnSync(process.execPath, [tsc, '-p', config], { encoding: 'utf8', cwd: ROOT })
  if (done.status !== 0) throw new Error(`the build failed:\n${done.stdout}${done.stderr}`)
  return out
}
