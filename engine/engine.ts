/**
 * The one place that opens DuckDB. Invariant: every connection is UTC, has limits and a spill folder, and cannot reach
 * the network or install extensions. A fatal engine error throws the instance away; the next session opens a new one.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance, type DuckDBValue } from '@duckdb/node-api'
import { WeirError } from '../model/errors.ts'
import './exact-text.ts'
import { fillTable, type Numbers, readNumbers } from './numbers.ts'

export type { Numbers } from './numbers.ts'

export type EngineOptions = {
  /** DuckDB's memory_limit, e.g. '1GB'. Not an RSS limit. */
  memoryLimit?: string
  threads?: number
  /** Folder for spilling and scratch; default a fresh one under the system's temporary folder, removed at close. */
  tempDir?: string
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

export type Session = {
  run(sql: string, options?: RunOptions): Promise<void>
  /** Rows as JSON values: BIGINT, DECIMAL, HUGEINT, times as text; INTEGER and DOUBLE as numbers; NULL as null. */
  rows<T = Record<string, Json>>(sql: string, options?: RunOptions): Promise<T[]>
  /** Column arrays with JS values (BIGINT as bigint, VARCHAR as string, BLOB as Uint8Array): for many rows. */
  columns(sql: string, options?: RunOptions): Promise<unknown[][]>
  /** Number columns as they lie in the engine, for many rows. Throws for a NULL and for any other column type. */
  numbers(sql: string, options?: RunOptions): Promise<Numbers[]>
  /** Creates or replaces a temporary table of DOUBLE columns. All arrays have one length. */
  fill(table: string, columns: Record<string, Float64Array>): Promise<void>
  close(): void
}

export type RunOptions = { params?: Record<string, DuckDBValue>; deadlineMs?: number; signal?: AbortSignal }

export type Engine = {
  version: string
  /** Scratch folder for files that DuckDB reads and writes; memory-backed where the system has one. */
  scratchDir: string
  session(): Promise<Session>
  withSession<T>(use: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const isFatal = (error: unknown): boolean => /FATAL|INTERNAL Error|database has been invalidated/i.test(String(error))

export const openEngine = async (options: EngineOptions = {}): Promise<Engine> => {
  const { existsSync } = await import('node:fs')
  const base = options.tempDir ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir())
  const scratchDir = await mkdtemp(join(base, 'weir-engine-'))
  const spill = await mkdtemp(join(options.tempDir ?? tmpdir(), 'weir-spill-'))
  let instance: DuckDBInstance | undefined
  let version = ''
  const open = async (): Promise<DuckDBInstance> => {
    const created = await DuckDBInstance.create(':memory:', {
      memory_limit: options.memoryLimit ?? '1GB',
      threads: String(options.threads ?? 1),
      temp_directory: spill,
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
      allow_community_extensions: 'false',
    })
    const connection = await created.connect()
    await connection.run("SET GLOBAL TimeZone = 'UTC'")
    await connection.run("SET GLOBAL Calendar = 'gregorian'")
    const reader = await connection.runAndReadAll('SELECT version()')
    version = String(reader.getRowsJson()[0]?.[0])
    connection.closeSync()
    return created
  }
  instance = await open()

  const session = async (): Promise<Session> => {
    if (instance === undefined) instance = await open()
    const owner = instance
    const connection = await owner.connect()
    await connection.run("SET TimeZone = 'UTC'")
    const guarded = async <T>(run: (c: DuckDBConnection) => Promise<T>, limits: RunOptions = {}): Promise<T> => {
      let expired = false
      const stop = () => {
        expired = true
        connection.interrupt()
      }
      if (limits.signal?.aborted) throw cancelled()
      const timer = limits.deadlineMs === undefined ? undefined : setTimeout(stop, limits.deadlineMs)
      limits.signal?.addEventListener('abort', stop, { once: true })
      try {
        return await run(connection)
      } catch (error) {
        if (expired) throw cancelled(error)
        if (isFatal(error) && instance === owner) instance = undefined
        throw error
      } finally {
        if (timer !== undefined) clearTimeout(timer)
        limits.signal?.removeEventListener('abort', stop)
      }
    }
    return {
      run: (sql, o) =>
        guarded(async (c) => {
          await c.run(sql, o?.params)
        }, o),
      rows: <T>(sql: string, o?: RunOptions) =>
        guarded(async (c) => {
          const reader = await c.runAndReadAll(sql, o?.params)
          return reader.getRowObjectsJson() as T[]
        }, o),
      columns: (sql, o) =>
        guarded(async (c) => {
          const reader = await c.runAndReadAll(sql, o?.params)
          const columns = reader.getColumnsJS() as unknown[][]
          return columns.length > 0 ? columns : reader.columnNames().map(() => [])
        }, o),
      numbers: (sql, o) => guarded((c) => readNumbers(c, sql, o?.params), o),
      fill: (table, columns) => guarded((c) => fillTable(c, table, columns)),
      close: () => connection.closeSync(),
    }
  }
  return {
    get version() {
      return version
    },
    scratchDir,
    session,
    withSession: async (use) => {
      const s = await session()
      try {
        return await use(s)
      } finally {
        s.close()
      }
    },
    close: async () => {
      instance?.closeSync()
      instance = undefined
      await rm(scratchDir, { recursive: true, force: true })
      await rm(spill, { recursive: true, force: true })
    },
  }
}

const cancelled = (cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_ENGINE_DEADLINE',
    message: 'The query was stopped before it ended.',
    expected: 'an answer within the deadline',
    next: 'ask for a shorter time range or fewer dimensions, or raise the limit',
    retryable: true,
    cause,
  })
