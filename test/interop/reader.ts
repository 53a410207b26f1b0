/** A foreign reader as a child process that answers one request after the other, so that Spark starts once. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Dialect } from './aggregates.ts'
import { python, sparkJars } from './cache.ts'

export type Request = {
  /** Folder or s3:// address of the table. */
  table: string
  storage?: Record<string, string>
  /** Where the reader writes all rows, as Parquet. */
  rows: string
  /** Over a table `t`. */
  queries: string[]
}
/** `rows`: what DuckDB can read; `answers`: per query its rows, each value as text. */
export type Reply = { version: number; rows: string; answers: (string | null)[][][] }

export type Reader = {
  name: 'delta-rs' | 'spark'
  dialect: Dialect
  /** Rejects with what the reader raised. */
  read(request: Request): Promise<Reply>
  close(): Promise<void>
}

/** How long one table may take; Spark's first includes its start. */
const DEADLINE_MS = 300_000

/** Starts a reader that was prepared. */
export const openReader = async (name: Reader['name']): Promise<Reader> => {
  if (name === 'delta-rs') return start(name, 'datafusion', await python('delta'), 'read_delta.py', {})
  // The jars must be there when the Java process starts: settings of the session come too late for them.
  // So short a run does not earn back what the optimizing compiler costs; without it the code cache would be small, and become full.
  const options = '-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m'
  const submit = `--driver-memory 1g --driver-java-options "${options}" --jars ${(await sparkJars()).join(',')} pyspark-shell`
  return start(name, 'spark', await python('spark'), 'read_spark.py', { PYSPARK_SUBMIT_ARGS: submit })
}

const start = (
  name: Reader['name'],
  dialect: Dialect,
  program: string,
  script: string,
  env: Record<string, string>,
): Reader => {
  const child = spawn(program, ['-B', join(import.meta.dirname, script)], {
    env: { ...process.env, TZ: 'UTC', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4_000)
  })
  child.once('error', (error) => {
    said += error.message
  })
  // A write to a child that died is told by `ended`.
  child.stdin.on('error', () => undefined)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    name,
    dialect,
    read: async (request) => {
      child.stdin.write(`${JSON.stringify(request)}\n`)
      const waiting = new AbortController()
      const next = await Promise.race([
        lines.next(),
        sleep(DEADLINE_MS, null, { signal: waiting.signal }).catch(() => null),
      ])
      waiting.abort()
      if (next === null) throw new Error(`${name} did not answer within ${DEADLINE_MS / 1_000} s\n${said}`)
      if (next.done) throw new Error(`${name} ended\n${said}`)
      const reply = JSON.parse(next.value) as Reply | { error: string }
      if ('error' in reply) throw new Error(reply.error)
      return reply
    },
    close: () => end(child, ended),
  }
}

/** End of the input ends a reader; one that hangs is killed. */
const end = async (child: ChildProcess, ended: Promise<void>): Promise<void> => {
  child.stdin?.end()
  const waiting = new AbortController()
  const late = sleep(20_000, 'late', { signal: waiting.signal }).catch(() => null)
  if ((await Promise.race([ended, late])) === 'late') child.kill('SIGKILL')
  waiting.abort()
  await ended
}
