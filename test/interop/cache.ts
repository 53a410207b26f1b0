/**
 * The foreign readers, installed once into a cache: Python environments by exact pins, and the jars of Delta for Spark by Maven.
 * Nothing here runs unless `npm run interop` was asked for.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { cached, MAVEN_COPY, run } from '../../scripts/services/install.ts'

const CACHE = process.env.WEIR_INTEROP_CACHE || join(homedir(), '.cache', 'weir-interop')
const here = import.meta.dirname

/** Name of a part of the cache: changed pins are another part. */
const partOf = (name: string, file: string): string =>
  `${name}-${createHash('sha256')
    .update(readFileSync(join(here, file)))
    .digest('hex')
    .slice(0, 12)}`

const answers = (program: string, args: string[]): Promise<boolean> =>
  run(program, args).then(
    () => true,
    () => false,
  )

/** Why a reader cannot be made ready on this machine; null when it can. */
const missing = async (reader: 'delta-rs' | 'spark'): Promise<string | null> => {
  const usable = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'
  if (!(await answers('python3', ['-c', usable]))) return 'there is no Python 3.10 or newer with venv (python3)'
  if (reader === 'delta-rs') return null
  if (!(await answers('java', ['-version']))) return 'there is no Java runtime, 17 or newer (java)'
  return existsSync(jarsPlace()) || (await answers('mvn', ['-v'])) ? null : 'there is no Apache Maven (mvn)'
}

/** Python of the environment with the packages of a requirements file. */
export const python = async (name: 'delta' | 'spark'): Promise<string> => {
  const file = `requirements-${name}.txt`
  const folder = await cached(
    partOf(name, file),
    '.done',
    async (making) => {
      await run('python3', ['-m', 'venv', making])
      const pip = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps', '-r', join(here, file)]
      await run(join(making, 'bin', 'python'), pip)
      writeFileSync(join(making, '.done'), '')
    },
    CACHE,
  )
  return join(folder, 'bin', 'python')
}

const jarsPlace = (): string => join(CACHE, partOf('jars', 'pom.xml'), '.done')

/** Delta's jars; those of Spark and Hadoop come with Spark. */
export const sparkJars = async (): Promise<string[]> => {
  const folder = await cached(
    partOf('jars', 'pom.xml'),
    '.done',
    async (making) => {
      const only = '-DincludeGroupIds=io.delta,io.unitycatalog'
      await run('mvn', ['-q', '-B', '-f', join(here, 'pom.xml'), MAVEN_COPY, only, `-DoutputDirectory=${making}`])
      writeFileSync(join(making, '.done'), '')
    },
    CACHE,
  )
  return readdirSync(folder)
    .filter((name) => name.endsWith('.jar'))
    .map((name) => join(folder, name))
}

/** Installs what a reader needs, unless it is there; why this machine cannot have it, or null. */
export const prepare = async (reader: 'delta-rs' | 'spark'): Promise<string | null> => {
  const reason = await missing(reader)
  if (reason === null) await Promise.all(reader === 'spark' ? [python('spark'), sparkJars()] : [python('delta')])
  return reason
}
