/**
 * Shards of a recompute in child processes (`weir worker`), each under the memory limit of the settings.
 * Invariant: a child that dies or grows beyond the limit takes only its shard with it; the shard is tried again once in a fresh
 * child, then the job fails with what the child said. Children end with this process: their stdin closes.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { encodeJob, type ShardJob, type ShardResult, type WorkerRunner } from '../batch-layer/shard.ts'
import { WeirError } from '../model/errors.ts'
import { bytesOf, engineShare } from './memory.ts'
import type { StorePlace } from './servers.ts'

export type WorkerOptions = { place: StorePlace; memory: string; processes: number; threads: number }
export type WorkerReply = { result: ShardResult } | { error: { code: string; message: string; next?: string } }

const WATCH_MS = 200
const PAGE = 4096

const here = fileURLToPath(import.meta.url)
const main = join(dirname(here), `main${extname(here)}`)
// From the sources (tests) a loader is needed; the built product has none.
const loader = extname(here) === '.ts' ? ['--import', 'tsx'] : []

/** Resident bytes of a process; null where the system does not tell. */
const residentBytes = async (pid: number): Promise<number | null> => {
  try {
    return Number((await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ')[1]) * PAGE
  } catch {
    return null
  }
}

type Child = { run(job: ShardJob): Promise<ShardResult>; end(): void; isDead(): boolean }

const tooBig = (memory: string, got: number): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_WORKER_MEMORY',
    message: 'A recompute process grew beyond its memory limit and was ended.',
    expected: `at most ${memory} (batch.recomputeMemory)`,
    got: `${Math.round(got / 1e6)} MB`,
    next: 'raise batch.recomputeMemory; what is done already is kept, the next recompute goes on from it',
    retryable: true,
  })

const startChild = (options: WorkerOptions): Child => {
  const limit = bytesOf(options.memory)
  const args = ['worker', '--memory', engineShare(limit), '--threads', String(options.threads)]
  const child: ChildProcess = spawn(process.execPath, [...loader, main, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  let dead: WeirError | undefined
  let waiting: { resolve(r: ShardResult): void; reject(e: unknown): void } | undefined
  child.stderr!.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-2_000)
  })
  const fail = (error: WeirError): void => {
    dead ??= error
    waiting?.reject(dead)
    waiting = undefined
  }
  const died = (how: string): WeirError =>
    new WeirError({
      code: 'WEIR_CLI_WORKER_DIED',
      message: `A recompute process ended ${how}.`,
      got: said.trim() || 'no word from it',
      next: 'what is done already is kept: run the recompute again; if it dies again, raise batch.recomputeMemory',
      retryable: true,
    })
  child.on('error', (error) => fail(died(`before it began (${error.message})`)))
  child.on('exit', (code, signal) => {
    clearInterval(watch)
    fail(died(signal === null ? `with code ${code}` : `by ${signal}`))
  })
  // A child that is gone refuses what is written to it; its exit tells why.
  child.stdin!.on('error', () => undefined)
  // Not on the command line, which everybody on the machine can read: it may hold a secret.
  child.stdin!.write(`${JSON.stringify(options.place)}\n`)
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const reply = JSON.parse(line) as WorkerReply
    if ('result' in reply) waiting?.resolve(reply.result)
    else waiting?.reject(new WeirError(reply.error))
    waiting = undefined
  })
  const watch = setInterval(() => {
    if (child.pid === undefined) return
    void residentBytes(child.pid).then((bytes) => {
      if (bytes === null || bytes <= limit) return
      fail(tooBig(options.memory, bytes))
      child.kill('SIGKILL')
    })
  }, WATCH_MS)
  watch.unref()
  return {
    run: (job) =>
      new Promise((resolve, reject) => {
        if (dead) return reject(dead)
        waiting = { resolve, reject }
        child.stdin!.write(`${encodeJob(job)}\n`)
      }),
    end: () => {
      clearInterval(watch)
      child.stdin!.end()
      child.kill('SIGTERM')
    },
    isDead: () => dead !== undefined,
  }
}

export const childRunner =
  (options: WorkerOptions): WorkerRunner =>
  async (jobs, { signal, onProgress }) => {
    const results: ShardResult[] = new Array(jobs.length)
    let next = 0
    let done = 0
    let failed = false
    const open = new Set<Child>()
    const stop = (): void => {
      for (const child of open) child.end()
    }
    signal?.addEventListener('abort', stop, { once: true })

    const lane = async (): Promise<void> => {
      let child: Child | undefined
      const fresh = (): Child => {
        if (child && !child.isDead()) return child
        if (child) open.delete(child)
        child = startChild(options)
        open.add(child)
        return child
      }
      while (next < jobs.length && !failed) {
        const n = next++
        for (let attempt = 1; ; attempt++) {
          signal?.throwIfAborted()
          try {
            results[n] = await fresh().run(jobs[n]!)
            break
          } catch (error) {
            const again = attempt === 1 && !signal?.aborted && child?.isDead() === true
            if (again) continue
            failed = true
            throw error
          }
        }
        onProgress?.(++done, jobs.length)
      }
    }
    try {
      await Promise.all(Array.from({ length: Math.min(options.processes, jobs.length) }, lane))
      return results
    } finally {
      signal?.removeEventListener('abort', stop)
      stop()
    }
  }
