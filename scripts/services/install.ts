/**
 * What the services need on the machine: packages of the system, and parts that are built once into a shared cache.
 * Invariant: a part in the cache is whole: it is made beside and renamed in, so two checkouts may build at the same time.
 */
import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { homedir, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { say } from './run-folder.ts'

/** Maven's goal that copies the jars of a pom.xml into one folder. */
export const MAVEN_COPY = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies'

export const CACHE = process.env.WEIR_SERVICES_CACHE ?? join(homedir(), '.cache', 'weir-services')

/** Runs a program; an error holds the end of what it printed. Returns its output. */
export const run = async (program: string, args: string[], env: Record<string, string> = {}): Promise<string> => {
  const options = { env: { ...process.env, ...env }, maxBuffer: 1 << 26 }
  const { stdout } = await promisify(execFile)(program, args, options).catch((error: Error & { stderr?: string }) => {
    throw new Error(
      `${program} ${args.join(' ')} failed:\n${(error.stderr || error.message).split('\n').slice(-20).join('\n')}`,
    )
  })
  return stdout
}

const onPath = (program: string): boolean =>
  (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

/** Packages that a single apt call installs when the program is missing. */
const PACKAGES = { 'redis-server': 'redis-server', 'redis-cli': 'redis-tools', kcat: 'kcat' }
/** Programs that are too large a choice to make for somebody: a JDK, a Go. */
const NEEDED = { java: 'a Java runtime, 17 or newer', mvn: 'Apache Maven', go: 'Go' }

export const installPackages = async (): Promise<void> => {
  const missing = Object.entries(PACKAGES).filter(([program]) => !onPath(program))
  if (missing.length > 0) {
    const packages = missing.map(([, name]) => name)
    if (!onPath('apt-get')) throw new Error(`install ${packages.join(', ')} first: there is no apt-get here to do it`)
    const [program, ...before] = userInfo().uid === 0 ? ['apt-get'] : ['sudo', 'apt-get']
    const env = { DEBIAN_FRONTEND: 'noninteractive' }
    await run(program!, [...before, 'update', '-qq'], env)
    await run(program!, [...before, 'install', '-y', '-qq', '--no-install-recommends', ...packages], env)
    say(`installed ${packages.join(', ')}`)
  }
  const absent = Object.entries(NEEDED).filter(([program]) => !onPath(program))
  if (absent.length > 0)
    throw new Error(`install ${absent.map(([name, what]) => `${what} (${name})`).join(', ')} first`)
}

/** Path of a part in the cache, made by `build` in a folder that it is given when `holds` (a path inside it) is not there yet. */
export const cached = async (
  name: string,
  holds: string,
  build: (folder: string) => Promise<void>,
  cache = CACHE,
): Promise<string> => {
  const place = join(cache, name)
  if (existsSync(join(place, holds))) return place
  say(`making ${name}, once`)
  await mkdir(cache, { recursive: true })
  const folder = await mkdtemp(join(cache, 'making-'))
  try {
    await build(folder)
    await rename(folder, place).catch(async (error: unknown) => {
      // Somebody else was quicker; or there is half of one, of an older way of making it.
      if (existsSync(join(place, holds))) return
      if (!existsSync(place)) throw error
      await rm(place, { recursive: true })
      await rename(folder, place)
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return place
}
