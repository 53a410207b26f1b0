/**
 * Several runs of the cluster oracle at once: a schedule mostly waits, for processes that start and for sessions of killed ones that end.
 * Invariant: each has servers of its own, since schedules kill and empty them; what was started here is stopped, whatever comes.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ROOT } from '../support/server.ts'

const SERVICES = 'scripts/services/main.ts'

export type Jobs = { jobs: number; schedules: number; from: number; perWorld: number; args: string[] }

/** Shares the schedules out by whole worlds; prints what each run prints. False when any of them fails. */
export const runJobs = async ({ jobs, schedules, from, perWorld, args }: Jobs): Promise<boolean> => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-jobs-'))
  const live = new Set<ChildProcess>()
  const stop = (): void => {
    for (const child of live) child.kill('SIGTERM')
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)

  /** Runs a file of ours in the name of a job; its lines, or a rejection when it does not end with 0. */
  const program = async (job: number, file: string, line: string[], env = {}): Promise<string[]> => {
    const child = spawn(process.execPath, ['--import', 'tsx', join(ROOT, file), ...line], {
      cwd: ROOT,
      env: { ...process.env, NODE_NO_WARNINGS: '1', ...env, WEIR_SERVICES_RUN: join(folder, String(job)) },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    live.add(child)
    const lines: string[] = []
    createInterface({ input: child.stdout }).on('line', (text) => {
      lines.push(text)
      // The environment of servers is no news.
      if (file !== SERVICES) console.log(`${job}: ${text}`)
    })
    createInterface({ input: child.stderr }).on('line', (text) => console.log(`${job}: ${text}`))
    const [code] = (await once(child, 'close')) as [number | null]
    live.delete(child)
    if (code !== 0) throw new Error(`job ${job}: ${file} ${line[0] ?? ''} ended with ${code}`)
    return lines
  }

  const worlds = Math.ceil(schedules / perWorld)
  const count = Math.min(jobs, worlds)
  /** World at which a job begins, from 0. */
  const begins = (job: number): number => Math.floor((worlds * (job - 1)) / count)
  let started: Promise<unknown> = Promise.resolve()
  const run = async (job: number): Promise<void> => {
    // One start after the other: each looks for free ports.
    const servers = started.then(() => program(job, SERVICES, ['start']))
    started = servers.catch(() => undefined)
    try {
      const env = Object.fromEntries((await servers).map((text) => text.split(/=(.*)/, 2)))
      const mine = Math.min(begins(job + 1) * perWorld, schedules) - begins(job) * perWorld
      const line = ['--schedules', `${mine}`, '--from', `${from + begins(job)}`, '--per-world', `${perWorld}`, ...args]
      await program(job, 'test/cluster/run.ts', line, env)
    } finally {
      await program(job, SERVICES, ['stop'])
    }
  }
  const ends = await Promise.allSettled(Array.from({ length: count }, (_, i) => run(i + 1)))
  await rm(folder, { recursive: true, force: true })
  for (const end of ends) if (end.status === 'rejected') console.log(String(end.reason))
  return ends.every((end) => end.status === 'fulfilled')
}
