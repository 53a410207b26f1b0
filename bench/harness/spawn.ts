/** Child processes of the benchmark. Invariant: a child that is not in time is ended, with everything below it. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Env, Measured } from './case.ts'
import { treeOf } from './cpu.ts'

export type Spawner = {
  /** Compiled harness/child.js. */
  child: string
  /** Folder for CPU profiles; undefined: none. */
  profile?: string
}

const endTree = (pid: number): void => {
  for (const { pid: one } of treeOf(pid).reverse()) {
    try {
      process.kill(one, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
  }
}

const running = new Set<number>()
/** Ends all children that run: for Ctrl-C. */
export const endAll = (): void => {
  for (const pid of running) endTree(pid)
}

const FINISH_MS = 90_000

/** `--finish` of a case for a benchmark that is on its way out and can wait for nothing else. */
export const finishNow = (spawner: Spawner, name: string, env: Env): void => {
  const args = ['--no-warnings', spawner.child, name, '--finish', JSON.stringify(env)]
  spawnSync(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: FINISH_MS })
}

/** Runs one variant (or '--prepare', '--finish') in a child. Throws what it threw, or that it was not in time. */
export const runChild = async (
  spawner: Spawner,
  name: string,
  variant: string,
  env: Omit<Env, 'scratch'>,
  timeoutMs: number,
): Promise<Measured | null> => {
  const scratch = await mkdtemp(join(env.shared, 'run-'))
  const profile =
    spawner.profile === undefined || variant.startsWith('--')
      ? []
      : ['--cpu-prof', `--cpu-prof-dir=${join(spawner.profile, `${name}-${variant}`)}`]
  if (profile.length > 0) await mkdir(join(spawner.profile!, `${name}-${variant}`), { recursive: true })
  try {
    return await new Promise<Measured | null>((resolve, reject) => {
      const child = spawn(
        process.execPath,
        ['--no-warnings', ...profile, spawner.child, name, variant, JSON.stringify({ ...env, scratch })],
        { stdio: ['ignore', 'pipe', 'pipe'] },
      )
      const pid = child.pid!
      running.add(pid)
      let out = ''
      let err = ''
      child.stdout.on('data', (b: Buffer) => {
        out = (out + b.toString('utf8')).slice(-100_000)
      })
      child.stderr.on('data', (b: Buffer) => {
        err = (err + b.toString('utf8')).slice(-10_000)
      })
      const timer = setTimeout(() => {
        endTree(pid)
        reject(new Error(`${name}/${variant} was not done within ${timeoutMs} ms`))
      }, timeoutMs)
      child.on('error', reject)
      child.on('close', () => {
        clearTimeout(timer)
        running.delete(pid)
        try {
          const last = JSON.parse(out.trimEnd().split('\n').at(-1) ?? '') as { ok: Measured | null } | { error: string }
          if ('error' in last) reject(new Error(`${name}/${variant}: ${last.error}\n${err}`))
          else resolve(last.ok)
        } catch {
          reject(new Error(`${name}/${variant} ended without a result.\n${out.slice(-2_000)}\n${err}`))
        }
      })
    })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
