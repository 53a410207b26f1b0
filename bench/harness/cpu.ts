/**
 * CPU seconds and resident memory of a process and everything below it. Invariant: time of children that have ended is
 * counted once, through the parent that waited for them. Without /proc: this process alone.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'

const TICKS_PER_S = 100

type Stat = { pid: number; parent: number; ownS: number; waitedS: number }

const HAS_PROC = existsSync('/proc/self/stat')

const statOf = (pid: number | 'self'): Stat | null => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name, in parentheses, may hold anything.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const at = (n: number): number => Number(fields[n - 3])
    return {
      pid: Number(text.slice(0, text.indexOf(' '))),
      parent: at(4),
      ownS: (at(14) + at(15)) / TICKS_PER_S,
      waitedS: (at(16) + at(17)) / TICKS_PER_S,
    }
  } catch {
    return null
  }
}

/** The process and its descendants that are alive. */
export const treeOf = (root: number): Stat[] => {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => statOf(Number(name)))
    .filter((s): s is Stat => s !== null)
  const found = all.filter((s) => s.pid === root)
  for (let i = 0; i < found.length; i++) found.push(...all.filter((s) => s.parent === found[i]!.pid))
  return found
}

/** CPU seconds, user and system, of a process tree so far. Own process: to the microsecond, others to 10 ms. */
export const treeCpuS = (root: number = process.pid): number => {
  const { user, system } = process.cpuUsage()
  const own = (user + system) / 1e6
  if (!HAS_PROC) return own
  return treeOf(root).reduce((sum, s) => sum + (s.pid === process.pid ? own : s.ownS) + s.waitedS, 0)
}

export type Usage = { cpuS: number; wallS: number }

/** CPU (of this process's tree) and wall time of a piece of work. */
export const measured = async <T>(work: () => Promise<T>): Promise<{ value: T } & Usage> => {
  const cpu = treeCpuS()
  const began = performance.now()
  const value = await work()
  return { value, cpuS: treeCpuS() - cpu, wallS: (performance.now() - began) / 1_000 }
}

/** Resident bytes of each process of a tree. */
export const residentBytes = (root: number): Map<number, number> => {
  const sizes = new Map<number, number>()
  for (const { pid } of treeOf(root)) {
    try {
      const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
      if (found) sizes.set(pid, Number(found[1]) * 1024)
    } catch {
      // It ended meanwhile.
    }
  }
  return sizes
}

export type Watch = { stop(): { rootPeak: number; childPeak: number; treePeak: number } }

/** Samples the resident memory of a process tree: the root's peak, the greatest peak of one descendant, of the sum. */
export const watchMemory = (root: number, everyMs = 50): Watch => {
  let [rootPeak, childPeak, treePeak] = [0, 0, 0]
  const look = (): void => {
    const sizes = residentBytes(root)
    rootPeak = Math.max(rootPeak, sizes.get(root) ?? 0)
    let sum = 0
    for (const [pid, size] of sizes) {
      sum += size
      if (pid !== root) childPeak = Math.max(childPeak, size)
    }
    treePeak = Math.max(treePeak, sum)
  }
  look()
  const timer = setInterval(look, everyMs)
  return {
    stop: () => {
      clearInterval(timer)
      look()
      return { rootPeak, childPeak, treePeak }
    },
  }
}
