/**
 * The run folder: what was started, as `services.json`, so that any later command finds it; data and logs lie beside it.
 * Invariant: a process is signalled only while it is the one that was started: a process id that the system gave to another since has
 * another start time.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export const RUN = process.env.WEIR_SERVICES_RUN ?? join(tmpdir(), `weir-services-${userInfo().username}`)
const STATE = join(RUN, 'services.json')

export type Service = {
  name: string
  command: string[]
  /** Added to the environment of the process. */
  env: Record<string, string>
  port: number
  pid: number
  /** When the process began, as the system tells it; '' where it does not. */
  began: string
}
export type State = { services: Service[]; env: Record<string, string> }

export const say = (text: string): void => {
  process.stderr.write(`[services] ${text}\n`)
}

export const logOf = (name: string): string => join(RUN, `${name}.log`)

export const readState = (): State | null =>
  existsSync(STATE) ? (JSON.parse(readFileSync(STATE, 'utf8')) as State) : null

/** Whole or not at all; it holds the key of the object store. */
export const writeState = (state: State): void => {
  writeFileSync(`${STATE}.new`, JSON.stringify(state, null, 2), { mode: 0o600 })
  renameSync(`${STATE}.new`, STATE)
}

/** When a process began, in the system's own unit. Null for a process that is gone, or dead and only not yet buried by its parent. */
export const beganAt = (pid: number): string | null => {
  try {
    process.kill(pid, 0)
  } catch {
    return null
  }
  try {
    // Fields 3 (state) and 22 (start) of the process's status, counted after the name, which may hold anything.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? null : (fields[19] ?? '')
  } catch {
    return ''
  }
}

export const isAlive = ({ pid, began }: Pick<Service, 'pid' | 'began'>): boolean => beganAt(pid) === began

/** Starts a process that outlives this one, in a session of its own, so that Ctrl-C here does not reach it. */
export const launch = async (service: Omit<Service, 'pid' | 'began'>): Promise<Service> => {
  const [program = '', ...args] = service.command
  const log = openSync(logOf(service.name), 'a')
  const child: ChildProcess = spawn(program, args, {
    cwd: RUN,
    env: { ...process.env, ...service.env },
    stdio: ['ignore', log, log],
    detached: true,
  })
  await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject))
  child.unref()
  return { ...service, pid: child.pid!, began: beganAt(child.pid!) ?? 'never' }
}

const DEADLINE_MS = 10_000

/** Ends a process and waits until it is gone: KILL after 10 s of another signal. */
export const end = async (service: Service, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
  const since = performance.now()
  let sent: NodeJS.Signals | undefined
  while (isAlive(service)) {
    const wanted = performance.now() - since > DEADLINE_MS ? 'SIGKILL' : signal
    if (sent !== wanted) process.kill(service.pid, wanted)
    sent = wanted
    await sleep(50)
  }
}

/** Waits until `ready` holds; fails with the end of the log when it does not in time, or when the process is gone. */
export const waitFor = async (service: Service, ready: () => Promise<boolean>, deadlineMs = 120_000): Promise<void> => {
  const since = performance.now()
  while (!(await ready().catch(() => false))) {
    const gone = !isAlive(service)
    if (gone || performance.now() - since > deadlineMs) {
      const log = readFileSync(logOf(service.name), 'utf8').split('\n').slice(-20).join('\n')
      throw new Error(`${service.name} ${gone ? 'ended' : 'does not answer'}; its log ends with:\n${log}`)
    }
    await sleep(100)
  }
}
