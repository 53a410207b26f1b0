/** Which process listens on a port of this machine, so that the CPU of servers that others have started can be read. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

const LISTENS = '0A'

/** Sockets that listen on the port, by inode. */
const listeners = (port: number): Set<string> => {
  const found = new Set<string>()
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of readFileSync(table, 'utf8').split('\n').slice(1)) {
      const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/)
      if (state === LISTENS && Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16) === port) found.add(inode)
    }
  }
  return found
}

const holds = (pid: number, inodes: Set<string>): boolean => {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
      return inode !== undefined && inodes.has(inode)
    })
  } catch {
    // Another user's, or it ended meanwhile.
    return false
  }
}

/** Null without /proc, and for a process that is not ours to look into. */
export const pidOfPort = (port: number): number | null => {
  try {
    const inodes = listeners(port)
    if (inodes.size === 0) return null
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    // A server that has forked shares its socket with younger processes.
    const ascending = pids.map(Number).sort((a, b) => a - b)
    return ascending.find((pid) => holds(pid, inodes)) ?? null
  } catch {
    return null
  }
}
