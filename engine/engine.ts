/**
 * The one place that opens DuckDB.
 * Invariant: every connection is UTC, has limits and a spill folder, and cannot install or load extensions; given `folders`, SQL
 * reaches no other file and no setting can be changed. A fatal engine error throws the instance away: sessions on it end with
 * WEIR_ENGINE_FATAL, the next session opens a new one.
 */
import { rm } from 'node:fs/promises'
import { type DuckDBConnection, DuckDBInstance, type DuckDBValue } from '@duckdb/node-api'
import { WeirError } from '../model/errors.ts'
import { literal } from '../model/ident.ts'
import './exact-text.ts'
import { fillTable, type Numbers, readNumbers } from './numbers.ts'
import { ownFolder, scratchBase, spillBase } from './scratch.ts'

export type { Numbers } from './numbers.ts'

export type EngineOptions = {
  /** DuckDB's memory_limit, e.g. '1GB'. Not an RSS limit. */
  memoryLimit?: string
  threads?: number
  /** Folder for spilling and scratch; default fresh ones in memory and under the system's temporary folder. Removed at close. */
  tempDir?: string
  /** Most bytes of spill, e.g. '16GB'; default DuckDB's: nine tenths of what the disk has free. */
  spillLimit?: string
  /** The only folders, besides scratch and spill, whose files SQL may read or write. Undefined: any. */
  folders?: string[]
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** One connection. Statements of a session run one after the other, also when they are not awaited. */
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

/** `deadlineMs` counts from the start of the statement. Both end it with WEIR_ENGINE_DEADLINE. */
export type RunOptions = { params?: Record<string, DuckDBValue>; deadlineMs?: number; signal?: AbortSignal }

export type Engine = {
  version: string
  /** Scratch folder for files that DuckDB reads and writes; memory-backed where the system has one. */
  scratchDir: string
  session(): Promise<Session>
  withSession<T>(use: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

/** An instance with the number of sessions on it: a discarded one is closed when the last of them ends. */
type Owner = { instance: DuckDBInstance; sessions: number; discarded: boolean }

const INTERRUPT_MS = 5

const isFatal = (error: unknown): boolean => /FATAL|INTERNAL Error|database has been invalidated/i.test(String(error))

export const openEngine = async (options: EngineOptions = {}): Promise<Engine> => {
  const scratchDir = await ownFolder(scratchBase(options.tempDir), 'weir-engine')
  const spill = await ownFolder(spillBase(options.tempDir), 'weir-spill')
  let version = ''
  let closed = false
  let opening: Promise<Owner> | undefined

  const open = async (): Promise<Owner> => {
    const instance = await DuckDBInstance.create(':memory:', {
      memory_limit: options.memoryLimit ?? '1GB',
      threads: String(options.threads ?? 1),
      temp_directory: spill,
      ...(options.spillLimit === undefined ? {} : { max_temp_directory_size: options.spillLimit }),
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
      allow_community_extensions: 'false',
    })
    const connection = await instance.connect()
    await connection.run("SET GLOBAL TimeZone = 'UTC'")
    await connection.run("SET GLOBAL Calendar = 'gregorian'")
    if (options.folders !== undefined) {
      const folders = [scratchDir, spill, ...options.folders].map(literal).join(', ')
      await connection.run(`SET GLOBAL allowed_directories = [${folders}]`)
      await connection.run('SET GLOBAL enable_external_access = false')
      await connection.run('SET GLOBAL lock_configuration = true')
    }
    const reader = await connection.runAndReadAll('SELECT version()')
    version = String(reader.getRowsJson()[0]?.[0])
    connection.closeSync()
    return { instance, sessions: 0, discarded: false }
  }
  /** The current instance; one that could not be opened is tried again by the next caller. */
  const current = (): Promise<Owner> => {
    if (closed) throw new Error('the engine is closed')
    opening ??= open().catch((error: unknown) => {
      opening = undefined
      throw error
    })
    return opening
  }
  const release = (owner: Owner): void => {
    if (owner.discarded && owner.sessions === 0) owner.instance.closeSync()
  }
  const discard = (owner: Owner): void => {
    if (owner.discarded) return
    owner.discarded = true
    opening = undefined
  }
  await current()

  const session = async (): Promise<Session> => {
    const owner = await current()
    owner.sessions++
    let connection: DuckDBConnection
    try {
      connection = await owner.instance.connect()
    } catch (error) {
      owner.sessions--
      if (isFatal(error)) discard(owner)
      throw error
    }
    let ended = false
    let last: Promise<unknown> = Promise.resolve()
    const guarded = <T>(run: (c: DuckDBConnection) => Promise<T>, limits: RunOptions = {}): Promise<T> => {
      const result = last.then(() => limited(run, limits))
      last = result.catch(() => undefined)
      return result
    }
    const limited = async <T>(run: (c: DuckDBConnection) => Promise<T>, limits: RunOptions): Promise<T> => {
      if (ended) throw new Error('the session is closed')
      if (limits.signal?.aborted) throw stopped()
      let expired = false
      let again: NodeJS.Timeout | undefined
      // An interrupt is forgotten when the statement starts after it (parsed, not yet run): asked until the statement ends.
      const stop = (): void => {
        expired = true
        connection.interrupt()
        again ??= setInterval(() => connection.interrupt(), INTERRUPT_MS)
      }
      const timer = limits.deadlineMs === undefined ? undefined : setTimeout(stop, limits.deadlineMs)
      limits.signal?.addEventListener('abort', stop, { once: true })
      try {
        return await run(connection)
      } catch (error) {
        if (expired) throw stopped(error)
        if (!isFatal(error)) throw error
        discard(owner)
        throw fatal(error)
      } finally {
        clearTimeout(timer)
        clearInterval(again)
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
      close: () => {
        if (ended) return
        ended = true
        connection.closeSync()
        owner.sessions--
        release(owner)
      },
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
      if (closed) return
      const owner = await opening
      closed = true
      owner?.instance.closeSync()
      await rm(scratchDir, { recursive: true, force: true })
      await rm(spill, { recursive: true, force: true })
    },
  }
}

const stopped = (cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_ENGINE_DEADLINE',
    message: 'The query was stopped before it ended.',
    expected: 'an answer within the deadline',
    next: 'ask for a shorter time range or fewer dimensions, or raise the limit',
    retryable: true,
    cause,
  })

const fatal = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_ENGINE_FATAL',
    message: `The engine failed inside and was replaced: ${String(cause).split('\n')[0]}`,
    expected: 'an answer, or an error of the statement',
    next: 'open a new session and try again; if it comes back, report the statement to the makers of DuckDB',
    retryable: true,
    cause,
  })
